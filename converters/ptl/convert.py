"""A torch module to .ptl for PyTorch Mobile's lite interpreter; its facts against what was asked."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.converters.calibrating import calibration_rows
from edgeprivacy.converters.check import check_format
from edgeprivacy.converters.executorch.lowering import (
    LOGGERS,
    batch_limit,
    check_answer,
    export_graph,
    frameworks,
    users_line,
)
from edgeprivacy.converters.executorch.memory import forgetting
from edgeprivacy.converters.facts import ArtifactFacts, Request
from edgeprivacy.converters.ptl.check import FORMATS, check_request
from edgeprivacy.converters.ptl.facts import read_ptl_facts
from edgeprivacy.converters.ptl.packing import repack
from edgeprivacy.converters.quiet import quiet
from edgeprivacy.errors import ConversionError, ModelError, UsageError
from edgeprivacy.files import atomic_path

ENGINE = "qnnpack"
"""The quantized kernels that phones have; a file's int8 answers depend on them."""
_CALIBRATION_BATCH = 64


def convert_ptl(
    module: Any,
    format: str,
    calibration: NDArray[Any] | None,
    path: Path,
    request: Request | None = None,
    input_shape: tuple[int, ...] = (),
) -> ArtifactFacts:
    """Write `path` from a torch module and read back what it holds. The same module gives the same bytes.

    "ptl-int8" is static quantization with one scale an output channel, for QNNPACK; the softmax at the end
    stays float, so that the grid lies on the logits as in an int8 .pte. Sources and paths of the machine that
    converted are not written into the file. Any number of rows can be run at once.

    Args:
        module: A torch.nn.Module that takes float32 [rows, *input_shape] in raw units and answers
            probabilities [rows, classes]; it is converted as in eval mode and left as it was.
        format: "ptl-float32" or "ptl-int8".
        calibration: [rows, *input_shape] representative rows; required for "ptl-int8", unused otherwise.
        path: The file to write, whole or not at all; a file that fails its check is not left behind.
        request: What must be found in the file; by default the format alone.

    Returns:
        Facts read back from the file, with a note that the runtime is a legacy.

    Raises:
        ModelError: The model does not export, torch.jit cannot trace it, or torch.fx cannot ("ptl-int8").
        ConversionError: The file does not hold what was asked for.
        DataError: Calibration rows are missing, of the wrong shape, or not finite.
        UsageError: Unknown format, or a request for another format.
        MissingDependency: The extra "executorch" is not installed.
        StorageError: The file cannot be written.
    """
    check_format(format, FORMATS, ".ptl")
    request = request or Request(format)
    if request.format != format:
        raise UsageError("format and request differ", got=f"{format} and {request.format}")
    rows = calibration_rows(calibration, input_shape) if format == "ptl-int8" else None
    frameworks()
    with quiet(*LOGGERS), forgetting(), _engine():
        plain = _checked(module, input_shape)
        content = _saved(plain if rows is None else _quantized(plain, rows), input_shape)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
        facts = read_ptl_facts(temporary)
        notes = check_request(request, facts)
    return replace(facts, notes=(*facts.notes, *notes))


def _checked(module: Any, input_shape: tuple[int, ...]) -> Any:
    """A copy in eval mode. ModelError for control flow on data, where a trace would silently take one way."""
    plain = copy.deepcopy(module).cpu().eval()
    check_answer(export_graph(plain, input_shape, batch_limit(input_shape)))
    return plain


def _saved(module: Any, input_shape: tuple[int, ...]) -> bytes:
    import torch

    try:
        with torch.no_grad():
            x = torch.zeros((batch_limit(input_shape), *input_shape))
            # The check of a trace runs the model once more and compares; the parity of the file says more.
            traced = torch.jit.freeze(torch.jit.trace(module, x, check_trace=False))
            content = bytes(traced._save_to_buffer_for_lite_interpreter())
    except Exception as error:
        raise _failed("torch.jit cannot trace this model for any number of rows", error) from error
    return repack(content, input_shape)


def _quantized(module: Any, rows: NDArray[np.float32]) -> Any:
    import torch
    from torch.ao.quantization import (
        HistogramObserver,
        QConfig,
        QConfigMapping,
        default_per_channel_weight_observer,
    )
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    chosen = QConfigMapping().set_global(
        QConfig(
            activation=HistogramObserver.with_args(reduce_range=False),
            weight=default_per_channel_weight_observer,
        )
    )
    functional = torch.nn.functional
    for kind in (torch.softmax, torch.sigmoid, functional.softmax, torch.nn.Softmax, torch.nn.Sigmoid):
        chosen.set_object_type(kind, None)
    for method in ("softmax", "sigmoid"):
        chosen.set_object_type(method, None)
    try:
        with torch.no_grad():
            prepared = prepare_fx(module, chosen, (torch.from_numpy(rows[:2]),))
            for start in range(0, len(rows), _CALIBRATION_BATCH):
                prepared(torch.from_numpy(rows[start : start + _CALIBRATION_BATCH]))
            return convert_fx(prepared).eval()
    except Exception as error:
        raise _failed("torch.fx cannot trace this model, which ptl-int8 needs", error) from error


def check_ptl(module: Any, input_shape: tuple[int, ...], formats: tuple[str, ...]) -> None:
    """Try the way to each .ptl format before anything is trained; nothing is written.

    Raises:
        ModelError: torch.jit or torch.fx cannot trace the model.
        MissingDependency: The extra "executorch" is not installed.
    """
    frameworks()
    with quiet(*LOGGERS), forgetting(), _engine():
        plain = _checked(module, input_shape)
        if "ptl-float32" in formats:
            _saved(plain, input_shape)
        if "ptl-int8" in formats:
            rows = np.random.default_rng(0).random((4, *input_shape), np.float32)
            _saved(_quantized(plain, rows), input_shape)


def _failed(what: str, error: Exception) -> ModelError:
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    where = users_line(error)
    return ModelError(
        what,
        got=f"{said[:200]}{f', at {where}' if where else ''}",
        hint="leave the .ptl formats out, or keep Python's control flow out of forward",
    )


@contextlib.contextmanager
def _engine() -> Iterator[None]:
    """QNNPACK as the process's quantized kernels inside the block."""
    import torch

    quantized = torch.backends.quantized
    if ENGINE not in quantized.supported_engines:
        raise ConversionError(
            "this build of torch has no QNNPACK", got=", ".join(quantized.supported_engines), allowed=ENGINE
        )
    before = quantized.engine
    quantized.engine = ENGINE
    try:
        yield
    finally:
        quantized.engine = before
