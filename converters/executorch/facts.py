"""Facts of an ExecuTorch program (.pte), read from its bytes. Needs neither ExecuTorch nor torch."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgeprivacy.converters.executorch.container import Call, PteFile, damaged
from edgeprivacy.converters.executorch.flatbuffer import Damaged
from edgeprivacy.converters.executorch.grid import output_grid
from edgeprivacy.converters.executorch.xnnpack import STORED, XnnpackGraph
from edgeprivacy.converters.facts import ArtifactFacts, DelegateFacts, TensorFacts, WeightFacts
from edgeprivacy.converters.measures import NOTABLE, file_measures, weight_facts

XNNPACK = "XnnpackBackend"
PORTABLE_WEIGHTS = {
    # Position of the weights among the arguments, and the axis of the output channels there.
    "aten::convolution": (1, 0),
    "aten::conv2d": (1, 0),
    "aten::linear": (1, 0),
    "aten::addmm": (2, 1),
    "aten::mm": (1, 1),
}
_RESHAPED = ("aten::permute_copy", "aten::t_copy", "aten::transpose_copy")
_DEQUANTIZE = ("quantized_decomposed::dequantize_per_tensor", "quantized_decomposed::dequantize_per_channel")


@dataclass
class _Found:
    """What the walk through the program gathers."""

    operators: Counter[str] = field(default_factory=Counter)
    outside: list[str] = field(default_factory=list)
    delegates: list[DelegateFacts] = field(default_factory=list)
    weights: list[WeightFacts] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seen: set[Any] = field(default_factory=set)


def read_pte_facts(path: Path) -> ArtifactFacts:
    """What the program really holds: inputs, outputs, operators inside the XNNPACK delegate and outside of
    it, weights, payload and sizes, the batch that it takes and the grid of its logits.

    Weights are those of XNNPACK's fully connected, convolution and depthwise nodes, and of the portable
    linear and convolution kernels, in order of execution; a constant that several operators share is listed
    once. Time and memory are bounded by the file's size.

    Raises:
        ArtifactError: Missing, unreadable, truncated, damaged, of an unknown version, or no .pte.
    """
    file = PteFile(path)
    try:
        return _facts(file)
    except (Damaged, struct.error, ValueError, IndexError, OverflowError, MemoryError) as error:
        raise damaged(path, str(error) or type(error).__name__) from error


def _facts(file: PteFile) -> ArtifactFacts:
    found = _Found()
    graphs = _graphs(file, found)
    for position, call in enumerate(file.calls):
        if call.operator is None:
            _delegated(file, call, position, graphs.get(call.delegate), found)
        else:
            found.operators[call.operator] += 1
            found.outside.append(call.operator)
            _portable(file, call, position, found)
    inputs = tuple(_tensor_facts(file, index, f"input {n}") for n, index in enumerate(file.inputs))
    outputs = tuple(_tensor_facts(file, index, f"output {n}") for n, index in enumerate(file.outputs))
    _say_what_is_missing(file, inputs, found)
    return ArtifactFacts(
        container="pte",
        **file_measures(file.content),
        inputs=inputs,
        outputs=outputs,
        operators=dict(found.operators),
        weights=tuple(found.weights),
        output_grid=output_grid(file, graphs),
        notes=tuple(dict.fromkeys(found.notes)),
        delegates=tuple(found.delegates),
        outside=tuple(dict.fromkeys(found.outside)) if found.delegates else (),
        batch_capacity=_capacity(file),
    )


def _graphs(file: PteFile, found: _Found) -> dict[int, XnnpackGraph]:
    graphs = {}
    for number, delegate in enumerate(file.delegates):
        size, operators = len(delegate.payload), Counter[str]()
        if delegate.id == XNNPACK:
            try:
                graph = graphs[number] = XnnpackGraph(file, delegate.payload)
                size = graph.payload_bytes
                operators.update(node.name for node in graph.nodes)
            except LookupError as error:
                found.notes.append(
                    f"delegate {number}: {error}: its operators and weights cannot be read back"
                )
        else:
            found.notes.append(
                f"delegate {number} ({delegate.id}): this backend's operators and weights cannot be read back"
            )
        found.delegates.append(DelegateFacts(delegate.id, size, dict(operators)))
    return graphs


def _delegated(file: PteFile, call: Call, position: int, graph: XnnpackGraph | None, found: _Found) -> None:
    if graph is None:
        return
    for number, node in enumerate(graph.nodes):
        operator = f"xnnpack:{node.name}"
        found.operators[operator] += 1
        if node.filter < 0:
            continue
        value = graph.values[node.filter]
        if value.constant == 0 or graph.key(value) in found.seen:
            continue
        found.seen.add(graph.key(value))
        values = graph.constant(value)
        if values is None:
            found.notes.append(f"weights of {operator} are {value.datatype}: not unpacked, not listed")
            continue
        # [out, in], [out, h, w, in]; a depthwise filter is [1, h, w, out].
        axis = 3 if node.name == "DepthwiseConv2d" else 0
        if node.name == "FullyConnected" and node.transposed:
            axis = 1
        if values.ndim <= axis or values.size == 0:
            raise Damaged(f"the weights of a {node.name} have the shape {value.dims}")
        found.weights.append(
            weight_facts(
                operator,
                f"instruction {position}, node {number}",
                values,
                STORED[value.datatype][0],
                axis,
                value.zero_point,
                value.scales,
            )
        )


def _portable(file: PteFile, call: Call, position: int, found: _Found) -> None:
    assert call.operator is not None
    place = PORTABLE_WEIGHTS.get(call.operator.split(".")[0])
    if place is None or len(call.args) <= place[0]:
        return
    index, axis, parameters = _constant_source(file, call.args[place[0]], place[1])
    tensor = file.tensor(index)
    if tensor is None or not tensor.constant or (tensor.buffer, tensor.sizes) in found.seen:
        return
    found.seen.add((tensor.buffer, tensor.sizes))
    values = file.constant(index)
    if values is None:
        where = "in another file (.ptd)" if tensor.external else f"of type {tensor.dtype}"
        found.notes.append(f"weights of {call.operator} are {where}: not listed")
        return
    if (
        call.operator.startswith("aten::convolution")
        and len(call.args) > 6
        and file.values[call.args[6]] == 1
    ):
        axis = 1  # a transposed convolution's weights are [in, out, h, w]
    if values.ndim <= axis or values.size == 0:
        raise Damaged(f"the weights of {call.operator} have the shape {tensor.sizes}")
    zero, scales = _zero_and_scales(file, parameters, values)
    found.weights.append(
        weight_facts(call.operator, f"instruction {position}", values, tensor.dtype, axis, zero, scales)
    )


def _constant_source(file: PteFile, index: int, axis: int) -> tuple[int, int, Call | None]:
    """Walk back from an argument through transposition and dequantization to a constant: its number, the
    channels' axis there, and the dequantizing call."""
    parameters = None
    for _ in range(8):
        tensor = file.tensor(index)
        if tensor is None or tensor.constant:
            break
        maker = next(
            (c for c in file.calls if c.operator is not None and c.args and c.args[-1] == index), None
        )
        if maker is None or maker.operator is None:
            break
        name = maker.operator.split(".")[0]
        if name in _DEQUANTIZE:
            parameters = maker
        elif name in _RESHAPED and len(tensor.sizes) == 2:
            axis = 1 - axis
        else:
            break
        index = maker.args[0]
    return index, axis, parameters


def _zero_and_scales(file: PteFile, call: Call | None, values: np.ndarray) -> tuple[Any, int]:
    if call is None or len(call.args) < 4:
        return 0, 0
    scale, zero = call.args[1], call.args[2]
    if file.tensor(scale) is None:
        point = file.values[zero]
        return (point if isinstance(point, int) else 0), 1
    scales, points = file.constant(scale), file.constant(zero)
    axis = file.values[call.args[3]]
    if scales is None or points is None or not isinstance(axis, int) or not 0 <= axis < values.ndim:
        return 0, 0
    if points.size != values.shape[axis]:
        raise Damaged("zero points do not fit their weights")
    return points.reshape([-1 if d == axis else 1 for d in range(values.ndim)]), int(scales.size)


def _tensor_facts(file: PteFile, index: int, name: str) -> TensorFacts:
    tensor = file.tensor(index)
    if tensor is None:
        return TensorFacts(name, (), "no tensor")
    return TensorFacts(name, (-1, *tensor.sizes[1:]) if tensor.dynamic else tensor.sizes, tensor.dtype)


def _capacity(file: PteFile) -> int | None:
    tensors = [tensor for index in file.inputs if (tensor := file.tensor(index)) is not None]
    return min((tensor.sizes[0] for tensor in tensors if tensor.sizes), default=None)


def _say_what_is_missing(file: PteFile, inputs: tuple[TensorFacts, ...], found: _Found) -> None:
    notes = found.notes
    if any(tensor.shape and tensor.shape[0] == -1 for tensor in inputs):
        notes.append("the first dimension is taken to be the batch: which one may vary is not in the file")
    if len(file.methods) > 1:
        notes.append(f"{len(file.methods)} methods; facts are of '{file.methods[0]}' or 'forward'")
    if file.branches:
        notes.append("control flow (jumps); operators are listed in the order of the file")
    if not found.delegates:
        notes.append("no delegate: every operator runs on a portable kernel")
    elif found.outside:
        names = ", ".join(dict.fromkeys(found.outside))
        notes.append(f"operators outside the delegate, run by portable kernels: {names}")
    others = sorted(set(_other_constants(file, found)))
    if others:
        notes.append(f"large constants not counted as weights: {', '.join(others)}")


def _other_constants(file: PteFile, found: _Found) -> Iterator[str]:
    for call in file.calls:
        for index in call.args:
            tensor = file.tensor(index)
            if tensor is None or not tensor.constant or (tensor.buffer, tensor.sizes) in found.seen:
                continue
            if int(np.prod(tensor.sizes, dtype=np.int64)) >= NOTABLE:
                yield call.operator or file.delegates[call.delegate].id
