"""What every container's check of a request has in common. Framework-free."""

from __future__ import annotations

from edgeprivacy.converters.facts import ArtifactFacts, Request, WeightFacts
from edgeprivacy.errors import ConversionError, UsageError, did_you_mean


def check_format(name: str, formats: tuple[str, ...], container: str) -> None:
    """Raises UsageError for a format that is not among those of a container (".pte")."""
    if name not in formats:
        raise UsageError(
            f"unknown {container} format '{name}'",
            allowed=", ".join(formats),
            hint=did_you_mean(name, formats),
        )


def layer_problems(request: Request, facts: ArtifactFacts, kinds: str) -> list[str]:
    """Zeros and clusters that were asked for and are not there; `kinds` names operators that have weights."""
    problems = []
    if not facts.weights:
        problems.append(f"the file has no weights ({kinds})")
    lists = (("sparsity", request.sparsity), ("clusters", request.clusters), ("bits", request.bits))
    for what, asked in lists:
        if asked and len(asked) != len(facts.weights):
            problems.append(f"{what} asked for {len(asked)} layers, the file has {len(facts.weights)}")
    for position, (share, weight) in enumerate(zip(request.sparsity, facts.weights, strict=False)):
        # Half an element: a mask is a whole number of zeros.
        if share is not None and weight.sparsity < share - 0.5 / weight.size - 1e-12:
            problems.append(
                f"{layer(position, weight)}: {share:.4%} zeros asked, {weight.sparsity:.4%} found"
            )
    for position, (clusters, weight) in enumerate(zip(request.clusters, facts.weights, strict=False)):
        if clusters is not None and weight.distinct_per_channel > clusters:
            problems.append(
                f"{layer(position, weight)}: at most {clusters} distinct values an output channel asked, "
                f"{weight.distinct_per_channel} found"
            )
    return problems


def float_io_problems(facts: ArtifactFacts) -> list[str]:
    """Inputs and outputs that are not float32."""
    return [
        f"{side} '{tensor.name}': float32 asked, {tensor.dtype} found"
        for side, tensors in (("input", facts.inputs), ("output", facts.outputs))
        for tensor in tensors
        if tensor.dtype != "float32"
    ]


def raise_problems(problems: list[str]) -> None:
    """ConversionError that lists them, if there are any."""
    if problems:
        raise ConversionError("the written file does not hold what was asked for: " + "; ".join(problems))


def layer(position: int, weight: WeightFacts) -> str:
    """How a layer is called in messages: "layer 0 (CONV_2D 8x3x3x3)"."""
    return f"layer {position} ({weight.operator} {'x'.join(map(str, weight.shape))})"
