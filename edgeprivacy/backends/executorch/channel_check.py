"""Whether a model without some channels computes what the full one does when nothing reads them."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import nn

from edgeprivacy.backends.executorch.channel_groups import HINT, WEIGHTED
from edgeprivacy.errors import ModelError

_TOLERANCE = 1e-3


@dataclass
class Removal:
    """Positions, in the full model, of the channels that each layer keeps, by the layer's name."""

    inputs: dict[str, list[int]] = field(default_factory=dict)
    outputs: dict[str, list[int]] = field(default_factory=dict)

    @staticmethod
    def drop(kept: dict[str, list[int]], name: str, width: int, positions: Iterable[int]) -> None:
        """Note that a layer of `width` channels now loses these, counted among those it still has."""
        gone = set(positions)
        before = kept.get(name, list(range(width)))
        kept[name] = [channel for position, channel in enumerate(before) if position not in gone]


def check_removal(full: nn.Module, pruned: nn.Module, removal: Removal, example_input: torch.Tensor) -> None:
    """Require that the pruned model computes what the full one does when nothing reads the removed channels.

    The graph takes every operation that it does not know for one that acts on each channel by itself: a
    permutation before a flattening, say, would have the wrong weights removed, in the right number.

    Raises:
        ModelError: It does not.
    """
    full, pruned = _without_layer_norms(full), _without_layer_norms(pruned)
    generator = torch.Generator().manual_seed(0)
    size = float(example_input.abs().max()) or 1.0
    rows = torch.randn(example_input.shape, generator=generator) * size
    with torch.no_grad():
        for name, kept in removal.inputs.items():
            weight = full.get_parameter(f"{name}.weight")
            unread = torch.ones(weight.shape[1], dtype=torch.bool)
            unread[kept] = False
            weight[:, unread] = 0.0
        expected, got = _layer_outputs(full, rows), _layer_outputs(pruned, rows)
    for name, outputs in got.items():
        wanted = expected[name]
        if name in removal.outputs:
            dimension = -1 if isinstance(pruned.get_submodule(name), nn.Linear) else 1
            wanted = wanted.index_select(dimension, torch.tensor(removal.outputs[name]))
        if outputs.shape != wanted.shape or not torch.allclose(
            outputs, wanted, rtol=_TOLERANCE, atol=_TOLERANCE * float(wanted.abs().max())
        ):
            raise ModelError(
                "channels cannot be removed from this model: an operation on its way mixes or reorders them",
                got=f"layer '{name}' answers otherwise" if name else "the outputs are others",
                hint=HINT,
            )


def _without_layer_norms(model: nn.Module) -> nn.Module:
    """A copy whose LayerNorms pass on what they get: what one channel becomes there depends on the others."""
    copy = deepcopy(model)
    for name, layer in list(copy.named_modules()):
        if isinstance(layer, nn.LayerNorm):
            owner, _, attribute = name.rpartition(".")
            setattr(copy.get_submodule(owner), attribute, nn.Identity())
    return copy


def _layer_outputs(model: nn.Module, rows: torch.Tensor) -> dict[str, torch.Tensor]:
    """What every linear and convolution layer answers, by name, and the model itself under ''."""
    outputs: dict[str, torch.Tensor] = {}
    hooks = [
        layer.register_forward_hook(
            lambda _, __, answer, name=name: outputs.__setitem__(name, answer.clone())
        )
        for name, layer in model.named_modules()
        if isinstance(layer, WEIGHTED)
    ]
    answer = model(rows)
    for hook in hooks:
        hook.remove()
    return {**outputs, "": answer}
