"""Asked for against found in a .pte. What was asked and is not there is an error; no torch needed."""

from __future__ import annotations

from edgeprivacy.converters.check import (
    check_format,
    float_io_problems,
    layer,
    layer_problems,
    raise_problems,
)
from edgeprivacy.converters.executorch.narrow import stored_bits
from edgeprivacy.converters.facts import ArtifactFacts, Request

FORMATS = ("float32", "dynamic", "int8", "qat-int8", "portable-float32")
INTEGER_FORMATS = ("int8", "qat-int8")
_CONVOLUTIONS = ("xnnpack:Conv2d", "xnnpack:DepthwiseConv2d", "xnnpack:ConvTranspose2d")


def check_request(request: Request, facts: ArtifactFacts, capacity: int | None = None) -> tuple[str, ...]:
    """Compare a request with the facts of the .pte that came of it.

    Args:
        capacity: The batch that the program must take, where one was asked for.

    Returns:
        Notes: what differs for a documented reason (convolutions that stay float in a dynamic file).

    Raises:
        ConversionError: Lists everything that was asked for and is not in the file.
        UsageError: The request names an unknown format.
    """
    check_format(request.format, FORMATS, ".pte")
    notes: list[str] = []
    problems = float_io_problems(facts)
    problems += _delegation_problems(request.format, facts)
    problems += _dtype_problems(request, facts, notes)
    problems += layer_problems(request, facts, "linear, convolution")
    if capacity is not None and facts.batch_capacity != capacity:
        problems.append(f"room for {capacity} rows asked, for {facts.batch_capacity} found")
    if request.format in INTEGER_FORMATS and facts.output_grid is None:
        notes.append("the layer before the softmax is not quantized: the confidences lie on no grid")
    raise_problems(problems)
    return tuple(notes)


def _delegation_problems(format_: str, facts: ArtifactFacts) -> list[str]:
    names = [delegate.id for delegate in facts.delegates]
    if format_ == "portable-float32":
        return [f"portable kernels asked, a delegate found: {names[0]}"] if names else []
    return [] if names else [f"{format_} asked for XNNPACK, nothing was delegated"]


def _dtype_problems(request: Request, facts: ArtifactFacts, notes: list[str]) -> list[str]:
    problems, format_ = [], request.format
    wanted = "float32" if format_.endswith("float32") else "int8"
    bits = request.bits or (None,) * len(facts.weights)
    for position, (weight, few) in enumerate(zip(facts.weights, bits, strict=False)):
        if format_ == "int8":
            wanted = f"int{stored_bits(weight.operator, few)}"
        delegated = weight.operator.startswith("xnnpack:")
        if format_ in INTEGER_FORMATS and not delegated:
            problems.append(f"{layer(position, weight)}: {weight.dtype}, not delegated")
        elif weight.dtype != wanted:
            if format_ == "dynamic" and weight.dtype == "float32" and weight.operator in _CONVOLUTIONS:
                # XNNPACK's dynamic quantization is for some convolutions only; which, the file tells.
                notes.append(f"{layer(position, weight)} stays float32 in a dynamic file")
            else:
                problems.append(f"{layer(position, weight)}: {wanted} weights asked, {weight.dtype} found")
        elif few is not None and few <= 4 and wanted == "int8" and format_ == "int8":
            notes.append(f"{layer(position, weight)} holds its grid of {few} bits in int8")
    if format_ == "dynamic" and facts.weights and all(w.dtype == "float32" for w in facts.weights):
        problems.append("int8 weights asked, none found")
    return problems
