"""A torch model to .pte, and the file's facts compared with what was asked."""

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
from edgeprivacy.converters.executorch.check import FORMATS, check_request
from edgeprivacy.converters.executorch.facts import read_pte_facts
from edgeprivacy.converters.executorch.lowering import (
    LOGGERS,
    batch_limit,
    check_kernels,
    frameworks,
    lower,
    training_graph,
)
from edgeprivacy.converters.executorch.memory import forgetting
from edgeprivacy.converters.executorch.molds import Molds
from edgeprivacy.converters.executorch.narrow import narrow_weights
from edgeprivacy.converters.executorch.patterns import known_patterns
from edgeprivacy.converters.facts import ArtifactFacts, Request
from edgeprivacy.converters.quiet import quiet
from edgeprivacy.errors import ConversionError, EdgePrivacyError, UsageError
from edgeprivacy.files import atomic_path

_CALIBRATION_BATCH = 64


def convert(
    module: Any,
    format: str,
    calibration: NDArray[Any] | None,
    path: Path,
    request: Request | None = None,
    input_shape: tuple[int, ...] = (),
    molds: Molds | None = None,
) -> ArtifactFacts:
    """Write `path` from a torch module and read back what it holds. The same module gives the same bytes.

    The program takes 1 to `batch_limit(input_shape)` rows. Inputs and outputs are float32 in every format:
    the integer formats quantize inside, and their grid lies on the logits.

    Args:
        module: A torch.nn.Module that takes float32 [rows, *input_shape] in raw units and answers
            probabilities [rows, classes]; it is converted as in eval mode and left as it was. For "qat-int8"
            the trained graph that `prepare_qat_pt2e` made of an exported training graph.
        format: "float32", "dynamic" (int8 weights, scales of activations found while it runs), "int8"
            (static, per channel), "qat-int8", or "portable-float32" (no delegate).
        calibration: [rows, *input_shape] representative rows; required for "int8", unused otherwise.
        path: The file to write, whole or not at all; a file that fails its check is not left behind.
        request: What must be found in the file; by default the format alone.
        molds: What earlier conversions of the same network taught; it makes the next ones fast.

    Returns:
        Facts read back from the file, with notes on operators outside the delegate and on layers that a
        dynamic file leaves in float.

    Raises:
        ModelError: The model does not export, or has operators that ExecuTorch does not know.
        ConversionError: Quantization failed, or the file does not hold what was asked for.
        DataError: Calibration rows are missing, of the wrong shape, or not finite.
        UsageError: Unknown format, or a request for another format.
        MissingDependency: The extra "executorch" is not installed.
        StorageError: The file cannot be written.
    """
    check_format(format, FORMATS, ".pte")
    request = request or Request(format)
    if request.format != format:
        raise UsageError("format and request differ", got=f"{format} and {request.format}")
    rows = calibration_rows(calibration, input_shape) if format == "int8" else None
    frameworks()
    with quiet(*LOGGERS), forgetting(), _untouched(module):
        if format == "qat-int8":
            content = lower(_trained(module), input_shape, molds=molds)
        elif format in ("int8", "dynamic"):
            graph = _quantized(module, input_shape, rows)
            if format == "int8":
                narrow_weights(graph, request.bits)
            content = lower(graph, input_shape, molds=molds)
        else:
            content = lower(module, input_shape, format == "float32", molds)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
        facts = read_pte_facts(temporary)
        with quiet(*LOGGERS):
            check_kernels(facts.operators)
        notes = check_request(request, facts, batch_limit(input_shape))
    return replace(facts, notes=(*facts.notes, *notes))


def check_exports(module: Any, input_shape: tuple[int, ...], molds: Molds | None = None) -> tuple[str, ...]:
    """Try the whole way to a float32 program, before anything is trained; nothing is written.

    Args:
        module: As for `convert`.
        input_shape: Of a row.
        molds: To learn from the trial.

    Returns:
        Operators that fall out of the delegate and will run on portable kernels.

    Raises:
        ModelError: The model does not export, or has operators that ExecuTorch does not know.
        MissingDependency: The extra "executorch" is not installed.
    """
    import tempfile

    frameworks()
    with quiet(*LOGGERS), forgetting(), _untouched(module):
        content = lower(module, input_shape, molds=molds)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trial.pte"
        path.write_bytes(content)
        facts = read_pte_facts(path)
    with quiet(*LOGGERS):
        check_kernels(facts.operators)
    return facts.outside


def quantizer(dynamic: bool = False, aware: bool = False) -> Any:
    """XNNPACK's symmetric int8 quantizer with one scale an output channel."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )

    return XNNPACKQuantizer().set_global(
        get_symmetric_quantization_config(is_per_channel=True, is_dynamic=dynamic, is_qat=aware)
    )


def _quantized(module: Any, input_shape: tuple[int, ...], rows: NDArray[np.float32] | None) -> Any:
    import torch
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    graph = training_graph(copy.deepcopy(module), input_shape)
    try:
        with torch.no_grad(), known_patterns():
            prepared = prepare_pt2e(graph, quantizer(dynamic=rows is None))
            if rows is None:
                prepared(torch.zeros((2, *input_shape)))
            else:
                for start in range(0, len(rows), _CALIBRATION_BATCH):
                    prepared(torch.from_numpy(rows[start : start + _CALIBRATION_BATCH]))
            return convert_pt2e(prepared)
    except Exception as error:
        raise _failed(error) from error


def _trained(prepared: Any) -> Any:
    """An int8 graph of one trained with fake quantization, which stays as it is."""
    import torchao.quantization.pt2e as pt2e
    from torchao.quantization.pt2e.fake_quantize import FakeQuantizeBase
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

    parts = prepared.modules() if hasattr(prepared, "graph") else ()
    if not any(isinstance(part, FakeQuantizeBase) for part in parts):
        raise ConversionError(
            "qat-int8 needs a graph that was trained with fake quantization", got=type(prepared).__name__
        )
    try:
        graph = copy.deepcopy(prepared)
        pt2e.move_exported_model_to_eval(graph)
        with known_patterns():
            return convert_pt2e(graph)
    except Exception as error:
        raise _failed(error) from error


def _failed(error: Exception) -> EdgePrivacyError:
    if isinstance(error, EdgePrivacyError):
        return error
    said = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return ConversionError("the model cannot be quantized", got=said[:300])


@contextlib.contextmanager
def _untouched(module: Any) -> Iterator[None]:
    """Eval mode inside the block; each part's own mode and torch's random state again afterwards."""
    import torch
    from torch.fx import GraphModule

    # An exported graph has no mode to switch.
    modes = [] if isinstance(module, GraphModule) else [(part, part.training) for part in module.modules()]
    if modes:
        module.eval()
    try:
        # The quantizers draw example inputs for their patterns.
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        for part, mode in modes:
            part.training = mode
