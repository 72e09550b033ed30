"""The grid that the confidences of a .pte lie on, found by walking back from its output. Framework-free."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprivacy.confidences import OutputGrid
from edgeprivacy.converters.executorch.container import PteFile
from edgeprivacy.converters.executorch.xnnpack import Value, XnnpackGraph

_NORMALIZING = ("Softmax", "Sigmoid", "aten::_softmax", "aten::softmax", "aten::sigmoid")
_SHAPING = ("StaticReshape", "StaticTranspose", "Copy", "aten::view_copy", "aten::permute_copy")
_DEQUANTIZE = "quantized_decomposed::dequantize_per_tensor"
_INTEGERS = ("qint8", "quint8")


@dataclass(frozen=True)
class _Step:
    """An operator met on the way back: its name, where its input comes from, and that input's grid if it has
    one. `scope` is the position of the delegate call, -1 for the program itself."""

    name: str
    scope: int
    source: int
    grid: tuple[float, int] | None


def output_grid(file: PteFile, graphs: dict[int, XnnpackGraph]) -> OutputGrid | None:
    """The grid of the only output's logits (behind a float softmax or sigmoid), or of the output itself where
    nothing normalizes it; None for float outputs and for programs with several.

    A quantizer that leaves the softmax in float, as ExecuTorch's does, puts the grid on the logits.
    """
    if len(file.outputs) != 1:
        return None
    scope, index, normalized = -1, file.outputs[0], False
    for _ in range(2 * (len(file.calls) + sum(len(graph.nodes) for graph in graphs.values())) + 2):
        step = _step_back(file, graphs, scope, index)
        if step is None:
            return None
        if step.grid is not None:
            return OutputGrid(step.grid[0], step.grid[1], "logits")
        if step.name in _NORMALIZING and not normalized:
            normalized = True
        elif step.name not in _SHAPING and step.name != "":
            return None
        scope, index = step.scope, step.source
    return None


def _step_back(file: PteFile, graphs: dict[int, XnnpackGraph], scope: int, index: int) -> _Step | None:
    if scope >= 0:
        call = file.calls[scope]
        graph = graphs[call.delegate]
        for node in graph.nodes:
            if node.output == index and node.source >= 0:
                grid = _grid(graph.values[node.source]) if node.name == "Convert" else None
                return _Step(node.name, scope, node.source, grid)
        outer = graph.values[index].external
        if outer is None or outer >= len(call.args):
            return None
        return _step_back_before(file, graphs, call.args[outer], scope)
    return _step_back_before(file, graphs, index, len(file.calls))


def _step_back_before(
    file: PteFile, graphs: dict[int, XnnpackGraph], index: int, before: int
) -> _Step | None:
    """The instruction before a position that writes a value of the program."""
    for position in range(before - 1, -1, -1):
        call = file.calls[position]
        if call.operator is None:
            graph = graphs.get(call.delegate)
            if graph is None:
                if index in call.args:
                    return None
                continue
            written = {node.output for node in graph.nodes}
            for number, value in enumerate(graph.values):
                outer = value.external
                if outer is not None and outer < len(call.args) and call.args[outer] == index:
                    if number in written:
                        return _Step("", position, number, None)
        elif call.args and call.args[-1] == index:
            name = call.operator.split(".")[0]
            grid = None
            if name == _DEQUANTIZE and len(call.args) > 2:
                scale, zero = file.values[call.args[1]], file.values[call.args[2]]
                if isinstance(scale, float) and isinstance(zero, int) and scale > 0:
                    grid = scale, zero
            return _Step(name, -1, call.args[0], grid)
    return None


def _grid(value: Value) -> tuple[float, int] | None:
    if value.datatype in _INTEGERS and value.scale is not None and value.scale > 0:
        return value.scale, value.zero_point
    return None
