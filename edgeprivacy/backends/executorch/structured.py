"""Structured pruning: channels and neurons that are really removed, so that file and arithmetic shrink.

Which layers must lose a channel together (residual sums, depthwise filters, BatchNorm, flattened features) is
found by torch-pruning's dependency graph: Fang et al., DepGraph, CVPR 2023.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from copy import deepcopy

import numpy as np
import torch
import torch_pruning
from torch import nn

from edgeprivacy.backends.executorch.channel_check import Removal, check_removal
from edgeprivacy.backends.executorch.channel_groups import (
    CONVOLUTIONS,
    HINT,
    PRUNABLE,
    WEIGHTED,
    depthwise,
    makes_channels,
    named_groups,
    removable_groups,
)
from edgeprivacy.errors import ModelError, RecipeError


def prune_channels(
    module: nn.Module, share: float, example_input: torch.Tensor, layers: Sequence[str] | None = None
) -> nn.Module:
    """A smaller copy of a model, without the `share` of each layer's output channels of least magnitude.

    Layers whose channels belong together (a residual sum) lose the same ones, ranked by the sum of squares of
    all weights that make or read a channel. What ends in the model's outputs stays whole, and so does
    what a channel cannot be cut out of (grouped but not depthwise convolutions, free parameters). Each layer
    loses round(share * channels), but keeps one. The same model gives the same result.

    Args:
        module: The model; it is left as it is.
        share: 0 (nothing is removed) to below 1.
        example_input: Rows [batch, ...] that the model takes.
        layers: Names of the linear and convolution layers whose outputs may shrink; None for all. Layers that
            share their channels must be named together; depthwise convolutions follow the layer before them.

    Returns:
        A new model with the same inputs and outputs, in the same training mode.

    Raises:
        RecipeError: A share out of range, an unknown layer, or part of the layers that share channels.
        ModelError: The model cannot be traced, has no channel to remove, or does not compute the same
            without them.
    """
    if not 0 <= share < 1:
        raise RecipeError(
            "the share of channels to remove is out of range", got=share, allowed="0 to below 1"
        )
    full = deepcopy(module).eval()
    pruned = deepcopy(full)
    for parameter in pruned.parameters():
        parameter.requires_grad_(True)  # the dependency graph follows gradients
    try:
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = torch_pruning.DependencyGraph().build_dependency(pruned, example_inputs=(example_input,))
            groups = removable_groups(graph)
    except Exception as error:
        raise ModelError(
            "the channels of this model cannot be followed through its layers", got=_line(error), hint=HINT
        ) from None
    names = {layer: name for name, layer in pruned.named_modules()}
    chosen = named_groups(groups, names, layers)
    if not chosen:
        raise ModelError(
            "the model has no channels that can be removed",
            got=", ".join(name for name, layer in pruned.named_modules() if isinstance(layer, WEIGHTED)),
            hint="all its layers end in the outputs, or in parts that cannot shrink: " + HINT,
        )
    try:
        removal = _remove(graph, chosen, names, share)
        check_removal(full, pruned, removal, example_input)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            "the model does not run without the removed channels", got=_line(error), hint=HINT
        ) from None
    _restore_flags(pruned, module)
    return pruned


def shrink_to(module: nn.Module, weights: Sequence[np.ndarray]) -> nn.Module:
    """Fit a freshly built model to the weights of a pruned one, in place.

    Args:
        module: The full model, as its factory built it.
        weights: What the pruned model's state_dict holds, in its order; each of the full model's shape, or of
            fewer channels.

    Returns:
        The same module, now with the pruned model's widths and weights.

    Raises:
        ModelError: Another number of arrays, or shapes that no removal of channels gives.
    """
    state = list(module.state_dict(keep_vars=True).items())
    if len(state) != len(weights):
        raise ModelError("the weights do not fit the model", got=len(weights), allowed=f"{len(state)} arrays")
    for (name, present), array in zip(state, weights, strict=True):
        value = torch.from_numpy(np.array(array, copy=True)).to(present)
        if value.dim() != present.dim() or any(
            new > old or new == 0 for new, old in zip(value.shape, present.shape, strict=True)
        ):
            raise ModelError(
                f"weights '{name}' do not fit the model",
                got=list(np.shape(array)),
                allowed=f"{list(present.shape)}, or fewer channels",
            )
        owner_name, _, attribute = name.rpartition(".")
        owner = module.get_submodule(owner_name)
        if value.shape == present.shape:
            with torch.no_grad():
                present.copy_(value)
        elif not isinstance(owner, PRUNABLE):
            raise ModelError(f"weights '{name}' do not fit the model", got=list(value.shape), hint=HINT)
        elif isinstance(present, nn.Parameter):
            setattr(owner, attribute, nn.Parameter(value, requires_grad=present.requires_grad))
        else:
            setattr(owner, attribute, value)
    for name, layer in module.named_modules():
        if isinstance(layer, PRUNABLE):
            _set_widths(layer, name)
    return module


def _set_widths(layer, name: str) -> None:
    """Make a layer's own numbers those of its weights."""
    weight = layer.weight
    if isinstance(layer, CONVOLUTIONS):
        if depthwise(layer):
            layer.groups = layer.in_channels = layer.out_channels = weight.shape[0]
        elif layer.groups == 1:
            layer.out_channels, layer.in_channels = weight.shape[:2]
        elif (layer.out_channels, layer.in_channels // layer.groups) != tuple(weight.shape[:2]):
            raise ModelError(f"the grouped convolution '{name}' cannot shrink", got=list(weight.shape))
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = weight.shape
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = weight.shape[0]
    elif isinstance(layer, nn.LayerNorm) and weight is not None:
        layer.normalized_shape = tuple(weight.shape)
    elif isinstance(layer, nn.modules.batchnorm._BatchNorm):
        sized = weight if weight is not None else layer.running_mean
        if sized is not None:
            layer.num_features = sized.shape[0]


def _remove(graph, groups: list, names: dict, share: float) -> Removal:
    """Cut the weakest channels out of every group's layers."""
    importance = torch_pruning.importance.GroupMagnitudeImportance(p=2)
    # Ranked before anything is removed: the order of removal shall not matter.
    weakest = []
    for group in groups:
        scores = importance(group).detach()
        count = min(round(share * len(scores)), len(scores) - 1)
        weakest.append(torch.argsort(scores, stable=True)[:count].tolist())
    removal = Removal()
    for group, channels in zip(groups, weakest, strict=True):
        if not channels:
            continue
        root = group[0].dep
        whole = graph.get_pruning_group(root.target.module, root.handler, channels)
        for dependency, positions in whole:
            layer = dependency.target.module
            if isinstance(layer, WEIGHTED):
                makes = makes_channels(dependency)
                kept = removal.outputs if makes else removal.inputs
                removal.drop(kept, names[layer], layer.weight.shape[0 if makes else 1], positions)
        whole.prune()
    return removal


def _restore_flags(pruned, module) -> None:
    """Training mode and frozen parameters as in the model that was given."""
    for copy, given in zip(pruned.modules(), module.modules(), strict=True):
        copy.training = given.training
    for parameter, given in zip(pruned.parameters(), module.parameters(), strict=True):
        parameter.requires_grad_(given.requires_grad)
        parameter.grad = None


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
