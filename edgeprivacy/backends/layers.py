"""A network's weighted layers, and which of them pruning and clustering are about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeprivacy.errors import RecipeError
from edgeprivacy.recipe import Recipe

ITERATIVE = ("iterative", "finetune", "untrained")
"""Schedules that prune by iterations."""


@dataclass(frozen=True)
class Layer:
    """A weighted layer, in the order of execution. `kind` is "dense", "convolution" or "depthwise"."""

    name: str
    kind: str


def pruned_layers(layers: Sequence[Layer], recipe: Recipe) -> list[str]:
    """Names of the layers whose weights are held at zero.

    Raises:
        RecipeError: A name that is no weighted layer, or none that the schedule can prune.
    """
    if not recipe.prunes or recipe.prune.schedule == "structured":
        return []
    names = names_of(layers, depthwise=recipe.prune.schedule in ITERATIVE)
    wanted = recipe.prune.layers
    if isinstance(wanted, tuple):
        unknown = [name for name in wanted if name not in names]
        if unknown:
            raise RecipeError(
                "prune.layers names no weighted layer", got=", ".join(unknown), allowed=", ".join(names)
            )
        return [name for name in names if name in wanted]
    convolutional = any(layer.kind != "dense" for layer in layers)
    return names if wanted == "all" or convolutional else names[:-1]


def names_of(layers: Sequence[Layer], depthwise: bool) -> list[str]:
    """Names of the weighted layers, each once, with or without depthwise convolutions.

    tfmot neither prunes nor clusters their few weights; the same recipe means the same in every backend.
    """
    return list(dict.fromkeys(layer.name for layer in layers if depthwise or layer.kind != "depthwise"))
