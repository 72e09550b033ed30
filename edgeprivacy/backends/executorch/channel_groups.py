"""Which layers of a model must lose a channel together, and which of these sets may."""

from __future__ import annotations

from collections.abc import Sequence

import torch_pruning
from torch import nn

from edgeprivacy.errors import RecipeError

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)
WEIGHTED = (*CONVOLUTIONS, nn.Linear)
PRUNABLE = (*WEIGHTED, nn.modules.batchnorm._BatchNorm, nn.PReLU, nn.LayerNorm)
HINT = "take another prune.schedule, or name in prune.layers only layers whose outputs may shrink"


def removable_groups(graph) -> list:
    """Sets of layers that lose a channel together, without those whose channels are the model's outputs."""
    layers = set(graph.model.modules())

    def removable(dependency) -> bool:
        node = dependency.target
        if graph.is_out_channel_pruning_fn(dependency.handler) and not node.outputs:
            return False  # the model's outputs
        if isinstance(node.module, nn.Parameter):
            return False  # which of its dimensions are the channels is a guess
        return node.module not in layers or _can_shrink(node.module)

    groups = graph.get_all_groups(root_module_types=list(WEIGHTED))
    return [group for group in groups if all(removable(dependency) for dependency, _ in group)]


def _can_shrink(layer) -> bool:
    if isinstance(layer, CONVOLUTIONS):
        return layer.groups == 1 or depthwise(layer)
    return isinstance(layer, PRUNABLE)


def depthwise(layer) -> bool:
    """Whether a convolution filters each channel by itself."""
    return layer.groups == layer.in_channels == layer.out_channels > 1


def _makers(group, names: dict) -> list[str]:
    """Names of the layers whose outputs a group's channels are; depthwise filters only pass them on."""
    layers = [dependency.target.module for dependency, _ in group if makes_channels(dependency)]
    return sorted(
        names[layer] for layer in set(layers) if not (isinstance(layer, CONVOLUTIONS) and depthwise(layer))
    )


def makes_channels(dependency) -> bool:
    """Whether a layer of a group loses outputs, not inputs (a depthwise convolution loses both)."""
    return dependency.handler in (
        torch_pruning.prune_conv_out_channels,
        torch_pruning.prune_linear_out_channels,
        torch_pruning.prune_depthwise_conv_out_channels,
    )


def named_groups(groups: list, names: dict, layers: Sequence[str] | None) -> list:
    """The groups that may shrink by `layers`.

    Raises:
        RecipeError: A name that is no such layer, or part of a group.
    """
    if layers is None:
        return groups
    makers = [_makers(group, names) for group in groups]
    allowed = sorted({name for group in makers for name in group})
    # Depthwise convolutions may be named, and follow anyway.
    passing = {name for layer, name in names.items() if isinstance(layer, CONVOLUTIONS) and depthwise(layer)}
    unknown = [name for name in layers if name not in allowed and name not in passing]
    if unknown:
        raise RecipeError(
            "prune.layers names no layer whose channels can be removed",
            got=", ".join(unknown),
            allowed=", ".join(allowed),
        )
    chosen = []
    for group, own in zip(groups, makers, strict=True):
        missing = [name for name in own if name not in layers]
        if not missing:
            chosen.append(group)
        elif len(missing) < len(own):
            raise RecipeError(
                "layers that share their channels must be pruned together",
                got=", ".join(name for name in own if name in layers),
                hint=f"name in prune.layers also: {', '.join(missing)}",
            )
    return chosen
