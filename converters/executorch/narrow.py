"""Weights of 4 bits in a .pte: those of dense layers, which XNNPACK multiplies with int8 activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgeprivacy.converters.narrow import narrowed

_WEIGHTED = ("aten.linear.", "aten.conv", "aten.addmm.", "aten.mm.")
_LINEAR = "aten.linear."
_DEQUANTIZE = "dequantize_per_channel"


def stored_bits(operator: str, bits: int | None) -> int:
    """How many bits a weight takes in the file: 4 or 8."""
    return 4 if bits is not None and bits <= 4 and operator == "xnnpack:FullyConnected" else 8


def narrow_weights(graph: Any, bits: Sequence[int | None]) -> None:
    """Give dense layers of a quantized graph integers of 4 bits and scales to match; the lowering packs them.

    Args:
        graph: What `convert_pt2e` made with one scale an output channel; changed in place.
        bits: For each weighted layer in order of execution, of the grid that its weights lie on; None for
            others.

    Raises:
        ConversionError: Weights that do not lie on their grid.
    """
    import torch

    if all(wanted is None or wanted > 4 for wanted in bits):
        return
    # By the constant that holds the weights: a layer that runs twice stands where it runs first.
    layers: dict[str, Any] = {}
    readers: dict[str, list[Any]] = {}
    for node in graph.graph.nodes:
        source: Any = node.args[1] if len(node.args) > 1 else None
        weighted = any(name in str(node.target) for name in _WEIGHTED)
        if weighted and _DEQUANTIZE in str(getattr(source, "target", "")):
            weights = source.args[0].target
            layers.setdefault(weights, node)
            readers.setdefault(weights, []).append(source)
    if len(layers) != len(bits):
        return  # the check of the file says so, with everything else that is missing
    for position, ((weights, node), wanted) in enumerate(zip(layers.items(), bits, strict=True)):
        if wanted is None or wanted > 4 or _LINEAR not in str(node.target):
            continue
        stored, scales = _attribute(graph, weights), _attribute(graph, readers[weights][0].args[1].target)
        few, factors = narrowed(stored.numpy(), wanted, f"layer {position}")
        with torch.no_grad():
            stored.copy_(torch.from_numpy(few))
            scales.copy_(scales * torch.from_numpy(factors))
        for reader in readers[weights]:
            reader.args = (*reader.args[:4], -8, 7, *reader.args[6:])
    graph.recompile()


def _attribute(graph: Any, path: str) -> Any:
    for name in path.split("."):
        graph = getattr(graph, name)
    return graph.detach()
