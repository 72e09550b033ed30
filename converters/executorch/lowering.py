"""torch module to an ExecuTorch program's bytes; what cannot be exported is named with its line."""

from __future__ import annotations

import re
import traceback
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgeprivacy.converters.executorch.molds import Molds, ingredients
from edgeprivacy.converters.quiet import quiet
from edgeprivacy.errors import MissingDependency, ModelError

LOGGERS = ("torch", "torchao", "executorch", "root", "torch.fx", "torch._export")
GRAPH_ROWS = 4096
"""Bound of the batch in graphs that are calibrated and trained: the bound becomes a guard of the graph."""
_EXAMPLE_ROWS = 17
_CORE_SET = "replace them by operators of its core set (matmul, conv, pooling, relu, softmax, ...)"
_LIBRARIES = ("site-packages", "dist-packages", "<frozen", "<string>", "<eval_with_key>", "/lib/python3")


def batch_limit(input_shape: tuple[int, ...]) -> int:
    """Largest batch that a written program takes: 256 rows of vectors, 64 images."""
    return 256 if len(input_shape) == 1 else 64


def frameworks() -> Any:
    """torch, with one thread as everywhere. MissingDependency where the extra is not installed."""
    try:
        with quiet(*LOGGERS):
            import executorch.exir  # noqa: F401
            import torch
            import torchao  # noqa: F401
    except ImportError:
        raise MissingDependency("converting a torch model", extra="executorch") from None
    torch.set_num_threads(1)
    return torch


def export_graph(module: Any, input_shape: tuple[int, ...], rows: int, example: int | None = None) -> Any:
    """`torch.export` with a batch of 1 to `rows`. The module must be in the mode that is wanted.

    Raises:
        ModelError: The model does not export; names the cause and the line of the user's code.
    """
    import torch

    # Programs of convolutions get the capacity that the example has room for: give the largest.
    x = torch.zeros((example or rows, *input_shape))
    try:
        batch = torch.export.Dim("batch", min=1, max=rows)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.export(module, (x,), dynamic_shapes=({0: batch},), strict=False)
    except Exception as error:
        # torch raises whatever the tracing tripped over: its own words and the line are what helps.
        raise _not_exported(error) from error


def training_graph(module: Any, input_shape: tuple[int, ...]) -> Any:
    """The graph that quantization prepares, calibrates and trains, for 1 to `GRAPH_ROWS` rows."""
    return export_graph(module, input_shape, GRAPH_ROWS, _EXAMPLE_ROWS).module()


def lower(
    module: Any, input_shape: tuple[int, ...], delegate: bool = True, molds: Molds | None = None
) -> bytes:
    """The program's bytes for a batch of 1 to `batch_limit` rows; the same module gives the same bytes.

    Args:
        module: In eval mode; takes float32 [rows, *input_shape], answers probabilities [rows, classes].
        delegate: Hand what XNNPACK can run to it; otherwise portable kernels run everything.
        molds: What earlier lowerings of the same network taught; the bytes are the same with and without.

    Raises:
        ModelError: The model does not export, or has an operator that ExecuTorch does not know.
    """
    if molds is None:
        return _lowered(module, input_shape, delegate)
    made_of = ingredients(module, input_shape, delegate)
    content = molds.cast(made_of)
    if content is None:
        content = _lowered(module, input_shape, delegate)
        molds.learn(content, made_of)
    return content


def _lowered(module: Any, input_shape: tuple[int, ...], delegate: bool) -> bytes:
    exported = export_graph(module, input_shape, batch_limit(input_shape))
    check_answer(exported)
    from executorch.exir import to_edge_transform_and_lower

    partitioners = []
    if delegate:
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

        partitioners = [XnnpackPartitioner()]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            edge = to_edge_transform_and_lower(exported, partitioner=partitioners)
            return bytes(edge.to_executorch().buffer)
    except Exception as error:
        raise _not_lowered(error, exported) from error


def check_kernels(operators: Iterable[str]) -> None:
    """ModelError for operators of a program, inside no delegate, that the runtime has no portable kernel for:
    such a program is written without a word and fails when it is loaded."""
    from executorch.runtime import Runtime

    known = set(Runtime.get().operator_registry.operator_names)
    missing = sorted({name for name in operators if not name.startswith("xnnpack:")} - known)
    if missing:
        raise ModelError(
            "the model has operators that ExecuTorch's runtime has no kernel for",
            got=", ".join(missing)[:200],
            hint=_CORE_SET,
        )


def check_answer(exported: Any) -> None:
    """ModelError unless the exported program answers one float tensor [rows, classes]."""
    outputs = next(node for node in exported.graph.nodes if node.op == "output").args[0]
    values: list[Any] = [getattr(node, "meta", {}).get("val") for node in outputs]
    if len(values) != 1 or not hasattr(values[0], "shape") or values[0].dim() != 2:
        shapes = [tuple(map(str, v.shape)) if hasattr(v, "shape") else type(v).__name__ for v in values]
        raise ModelError("the model must answer one tensor [rows, classes]", got=shapes)
    if str(values[0].dtype) != "torch.float32" or isinstance(values[0].shape[0], int):
        raise ModelError(
            "the model must answer float32 probabilities, one row for each row given",
            got=f"{values[0].dtype} {tuple(map(str, values[0].shape))}",
        )


def _not_exported(error: Exception) -> ModelError:
    text = str(error)
    kind = type(error).__name__
    said = _first_line(text) or kind
    if "DataDependent" in kind or "data-dependent" in text.lower():
        what = "the model does not export: its control flow depends on the data"
        hint = "replace `if` and `while` on tensor values by torch.where or torch.cond"
    elif "ConstraintViolation" in kind or "specialized" in text or "Constraints violated" in text:
        what = "the model does not export: it is made for one number of rows"
        said = next((line.strip(" -") for line in text.splitlines() if "constant" in line), said)
        hint = "use x.flatten(1) or x.shape[0] in place of a fixed number of rows"
    elif isinstance(error, NotImplementedError) or "FakeTensor" in text or "fake" in text.lower():
        what = "the model does not export: it uses an operator that torch.export cannot trace"
        hint = "replace the operator, or move it out of forward"
    else:
        what = "the model does not export"
        hint = "torch.export must trace forward(x) with x of float32 [rows, ...]"
    where = users_line(error)
    return ModelError(what, got=f"{said[:200]}{f', at {where}' if where else ''}", hint=hint)


def _not_lowered(error: Exception, exported: Any) -> ModelError:
    text = str(error)
    names = sorted(set(re.findall(r"(?:aten|torch\.ops\.aten|torchvision)(?:::|\.)([A-Za-z_0-9]+)", text)))
    if names and ("out variant" in text or "not" in text.lower()):
        places = [place for name in names if (place := _place(exported, name))]
        return ModelError(
            "the model has operators that ExecuTorch cannot run",
            got=", ".join(f"aten::{name}" for name in names)[:200] + (f", at {places[0]}" if places else ""),
            hint=_CORE_SET,
        )
    where = users_line(error)
    return ModelError(
        "ExecuTorch cannot lower this model",
        got=f"{(_first_line(text) or type(error).__name__)[:200]}{f', at {where}' if where else ''}",
        hint="look at the last operator that is named, and replace it",
    )


def users_line(error: BaseException) -> str | None:
    """The innermost line of the user's own code in a traceback: "model.py:12 (if x.sum() > 0:)"."""
    seen: BaseException | None = error
    while seen is not None:
        for frame in reversed(traceback.extract_tb(seen.__traceback__)):
            ours = Path(frame.filename).is_relative_to(Path(__file__).parents[1])
            if not ours and not any(part in frame.filename for part in _LIBRARIES):
                return f"{Path(frame.filename).name}:{frame.lineno} ({(frame.line or '').strip()[:80]})"
        seen = seen.__cause__ or seen.__context__
    return None


def _place(exported: Any, operator: str) -> str | None:
    """Where the user's code calls an operator, from the trace that the exported graph keeps."""
    for node in exported.graph.nodes:
        # What an operator is made of has its name with more to it: linalg_svdvals calls _linalg_svd.
        if node.op == "call_function" and operator.strip("_") in str(node.target):
            lines = re.findall(
                r'File "([^"]+)", line (\d+), in \w+\n\s*(.*)', node.meta.get("stack_trace") or ""
            )
            for file, line, code in reversed(lines):
                if not any(part in file for part in _LIBRARIES):
                    return f"{Path(file).name}:{line} ({code.strip()[:80]})"
    return None


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
