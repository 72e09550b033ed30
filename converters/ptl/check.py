"""Asked for against found in a .ptl. What was asked and is not there is an error; no torch needed."""

from __future__ import annotations

from edgeprivacy.converters.check import (
    check_format,
    float_io_problems,
    layer,
    layer_problems,
    raise_problems,
)
from edgeprivacy.converters.facts import ArtifactFacts, Request

FORMATS = ("ptl-float32", "ptl-int8")


def check_request(request: Request, facts: ArtifactFacts) -> tuple[str, ...]:
    """Compare a request with the facts of the .ptl that came of it.

    Returns:
        Notes: what differs for a documented reason.

    Raises:
        ConversionError: Lists everything that was asked for and is not in the file.
        UsageError: The request names an unknown format.
    """
    check_format(request.format, FORMATS, ".ptl")
    problems = float_io_problems(facts)
    wanted = "int8" if request.format == "ptl-int8" else "float32"
    for position, weight in enumerate(facts.weights):
        if weight.dtype != wanted:
            problems.append(f"{layer(position, weight)}: {wanted} weights asked, {weight.dtype} found")
    problems += layer_problems(request, facts, "linear, convolution")
    raise_problems(problems)
    if request.format == "ptl-int8" and facts.output_grid is None:
        return ("the layer before the softmax is not quantized: the confidences lie on no grid",)
    return ()
