"""Asked for against found in the file. What was asked and is not there is an error; no TensorFlow needed."""

from __future__ import annotations

from edgeprivacy.converters.check import check_format, layer, layer_problems, raise_problems
from edgeprivacy.converters.facts import ArtifactFacts, Request, WeightFacts
from edgeprivacy.converters.tflite.narrow import stored_bits

FORMATS = ("float32", "float16", "dynamic", "int8", "qat-int8")
INTEGER_FORMATS = ("int8", "qat-int8")

_PACKED = (
    "{} weights are packed: tried with LiteRT's interpreter as pinned, one of another age may refuse the file"
)
_SMALLEST_DYNAMIC = 1024
"""TFLite's dynamic-range quantization leaves tensors with fewer elements in float."""


def check_request(request: Request, facts: ArtifactFacts) -> tuple[str, ...]:
    """Compare a request with the facts of the file that came of it.

    Returns:
        Notes: what differs for a documented reason (small layers that stay float in a dynamic file).

    Raises:
        ConversionError: Lists everything that was asked for and is not in the file.
        UsageError: The request names an unknown format.
    """
    check_format(request.format, FORMATS, ".tflite")
    problems: list[str] = []
    notes: list[str] = []
    _check_io(request.format, facts, problems)
    bits = request.bits or (None,) * len(facts.weights)
    for position, (weight, wanted) in enumerate(zip(facts.weights, bits, strict=False)):
        _check_dtype(request.format, position, weight, wanted, problems, notes)
    problems += layer_problems(request, facts, "FULLY_CONNECTED, CONV_2D, DEPTHWISE_CONV_2D")
    raise_problems(problems)
    return tuple(notes)


def _check_io(format_: str, facts: ArtifactFacts, problems: list[str]) -> None:
    wanted = "int8" if format_ in INTEGER_FORMATS else "float32"
    for side, tensors in (("input", facts.inputs), ("output", facts.outputs)):
        for tensor in tensors:
            if tensor.dtype != wanted:
                problems.append(f"{side} '{tensor.name}': {wanted} asked, {tensor.dtype} found")
            elif wanted == "int8" and tensor.scale is None:
                problems.append(f"{side} '{tensor.name}' has no scale")
    if format_ in INTEGER_FORMATS and facts.output_grid is None:
        problems.append("output grid asked, none found")


def _check_dtype(
    format_: str,
    position: int,
    weight: WeightFacts,
    bits: int | None,
    problems: list[str],
    notes: list[str],
) -> None:
    wanted = {"float32": "float32", "float16": "float16"}.get(format_, "int8")
    if format_ in INTEGER_FORMATS:
        wanted = f"int{stored_bits(weight.operator, bits)}"
    if weight.dtype == wanted:
        if wanted in ("int4", "int2") and (note := _PACKED.format(wanted)) not in notes:
            notes.append(note)
        return
    if format_ == "dynamic" and weight.dtype == "float32" and weight.size < _SMALLEST_DYNAMIC:
        notes.append(f"{layer(position, weight)} stays float32: under {_SMALLEST_DYNAMIC} elements")
        return
    problems.append(f"{layer(position, weight)}: {wanted} weights asked, {weight.dtype} found")
