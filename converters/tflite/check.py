"""Asked for against found in the file. What was asked and is not there is an error; no TensorFlow needed."""

from __future__ import annotations

from edgeprivacy.converters.facts import ArtifactFacts, Request, WeightFacts
from edgeprivacy.errors import ConversionError, UsageError, did_you_mean

FORMATS = ("float32", "float16", "dynamic", "int8", "qat-int8")
INTEGER_FORMATS = ("int8", "qat-int8")

_SMALLEST_DYNAMIC = 1024
"""TFLite's dynamic-range quantization leaves tensors with fewer elements in float."""


def check_format(name: str) -> None:
    """Raises UsageError for a format that is not in `FORMATS`."""
    if name not in FORMATS:
        raise UsageError(
            f"unknown .tflite format '{name}'", allowed=", ".join(FORMATS), hint=did_you_mean(name, FORMATS)
        )


def check_request(request: Request, facts: ArtifactFacts) -> tuple[str, ...]:
    """Compare a request with the facts of the file that came of it.

    Returns:
        Notes: what differs for a documented reason (small layers that stay float in a dynamic file).

    Raises:
        ConversionError: Lists everything that was asked for and is not in the file.
        UsageError: The request names an unknown format.
    """
    check_format(request.format)
    problems: list[str] = []
    notes: list[str] = []
    _check_io(request.format, facts, problems)
    for position, weight in enumerate(facts.weights):
        _check_dtype(request.format, position, weight, problems, notes)
    if not facts.weights:
        problems.append("the file has no weights (FULLY_CONNECTED, CONV_2D, DEPTHWISE_CONV_2D)")
    for what, asked in (("sparsity", request.sparsity), ("clusters", request.clusters)):
        if asked and len(asked) != len(facts.weights):
            problems.append(f"{what} asked for {len(asked)} layers, the file has {len(facts.weights)}")
    for position, (share, weight) in enumerate(zip(request.sparsity, facts.weights, strict=False)):
        # Half an element: a mask is a whole number of zeros.
        if share is not None and weight.sparsity < share - 0.5 / weight.size - 1e-12:
            problems.append(
                f"{_layer(position, weight)}: {share:.4%} zeros asked, {weight.sparsity:.4%} found"
            )
    for position, (clusters, weight) in enumerate(zip(request.clusters, facts.weights, strict=False)):
        if clusters is not None and weight.distinct_per_channel > clusters:
            problems.append(
                f"{_layer(position, weight)}: at most {clusters} distinct values an output channel asked, "
                f"{weight.distinct_per_channel} found"
            )
    if problems:
        raise ConversionError("the written file does not hold what was asked for: " + "; ".join(problems))
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
    format_: str, position: int, weight: WeightFacts, problems: list[str], notes: list[str]
) -> None:
    wanted = {"float32": "float32", "float16": "float16"}.get(format_, "int8")
    if weight.dtype == wanted:
        return
    if format_ == "dynamic" and weight.dtype == "float32" and weight.size < _SMALLEST_DYNAMIC:
        notes.append(f"{_layer(position, weight)} stays float32: under {_SMALLEST_DYNAMIC} elements")
        return
    problems.append(f"{_layer(position, weight)}: {wanted} weights asked, {weight.dtype} found")


def _layer(position: int, weight: WeightFacts) -> str:
    return f"layer {position} ({weight.operator} {'x'.join(map(str, weight.shape))})"
