"""The sum of rows' clipped gradients, for steps that hide what a single row adds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edgeprivacy.backends.executorch.frameworks import torch

_TINY = 1e-12

Gradients = list[torch.Tensor]
LossOf = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Rows [batch, ...] and their labels to the mean loss of the batch."""


def clipped_one_by_one(
    gradients: Callable[[int], Sequence[torch.Tensor | None]], rows: int, zeros: Gradients, clip: float
) -> Gradients:
    """Sum over rows of g * min(1, clip / |g|), each row's gradient for itself.

    Args:
        gradients: Row to the gradient of its own loss, None for what it does not depend on.
        zeros: Of the gradients' shapes; becomes the sum.
    """
    for row in range(rows):
        of_row = [
            (total, gradient)
            for total, gradient in zip(zeros, gradients(row), strict=True)
            if gradient is not None
        ]
        start = torch.zeros((), device=zeros[0].device)
        norm = torch.sqrt(sum((gradient.square().sum() for _, gradient in of_row), start))
        scale = torch.clamp(clip / (norm + _TINY), max=1.0)
        for total, gradient in of_row:
            total += scale * gradient
    return zeros


@dataclass
class _Tap:
    """One linear layer in one forward pass: what went in, and what came out."""

    layer: torch.nn.Linear
    inputs: torch.Tensor
    outputs: torch.Tensor


class LinearClipping:
    """The same sum for networks whose trained parameters are all of linear layers, without a gradient of any
    row: that of a layer is the outer product of what went in and of the gradient of what came out, so its
    norm is the product of theirs (Goodfellow, "Efficient per-example gradient computations", 2015).

    Args:
        model: The network.
        leaves: Its trained parameters, in the order of the sum.
    """

    def __init__(self, model: Any, leaves: Sequence[torch.Tensor]) -> None:
        self._layers = [layer for layer in model.modules() if type(layer) is torch.nn.Linear]
        self._leaves = list(leaves)
        owned = [id(p) for layer in self._layers for p in layer.parameters() if p.requires_grad]
        self.fits = sorted(owned) == sorted(map(id, leaves))

    def clipped(self, loss: Callable[[], torch.Tensor], rows: int, clip: float) -> Gradients | None:
        """The sum over one batch; None where the layers are not each asked once about plain rows.

        Args:
            loss: Runs the network, and gives the mean of the rows' own losses.
        """
        with self._tapped() as taps:
            value = loss() * rows
        plain = all(tap.inputs.dim() == 2 and len(tap.inputs) == rows for tap in taps)
        if len({id(tap.layer) for tap in taps}) != len(taps) or len(taps) != len(self._layers) or not plain:
            return None
        backs = torch.autograd.grad(value, [tap.outputs for tap in taps])
        squares = sum(
            (
                back.square().sum(1) * (tap.inputs.square().sum(1) + (tap.layer.bias is not None))
                for tap, back in zip(taps, backs, strict=True)
            ),
            torch.zeros(rows, device=value.device),
        )
        scale = torch.clamp(clip / (torch.sqrt(squares) + _TINY), max=1.0).unsqueeze(1)
        summed: dict[int, torch.Tensor] = {}
        for tap, back in zip(taps, backs, strict=True):
            scaled = scale * back
            summed[id(tap.layer.weight)] = scaled.t() @ tap.inputs
            if tap.layer.bias is not None:
                summed[id(tap.layer.bias)] = scaled.sum(0)
        return [summed[id(leaf)] for leaf in self._leaves]

    @contextlib.contextmanager
    def _tapped(self) -> Iterator[list[_Tap]]:
        taps: list[_Tap] = []

        def note(layer: Any, inputs: Any, outputs: Any) -> None:
            taps.append(_Tap(layer, inputs[0].detach(), outputs))

        hooks = [layer.register_forward_hook(note) for layer in self._layers]
        try:
            yield taps
        finally:
            for hook in hooks:
                hook.remove()
