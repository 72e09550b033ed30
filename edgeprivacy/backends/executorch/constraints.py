"""What training may not undo: weights held at zero, on a grid, or to a few values that they share.

All act from outside on a network's parameters, after the gradients and after each step, so the same code
holds them while a plain network trains and while one with fake quantizers does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from edgeprivacy.backends.executorch.frameworks import DEVICE, torch
from edgeprivacy.compression.magnitude import magnitude_mask
from edgeprivacy.compression.palette import Palette

Schedule = Callable[[int], float | None]


class Masks:
    """Weights at zero, by the parameter's name."""

    def __init__(self, parameters: Mapping[str, torch.nn.Parameter]) -> None:
        self._parameters = parameters
        self._masks: dict[str, torch.Tensor] = {}
        self._scheduled: tuple[list[str], Schedule] | None = None
        self._step = 0

    def clear(self) -> None:
        """Hold nothing."""
        self._masks, self._scheduled, self._step = {}, None, 0

    def hold(self, masks: Mapping[str, np.ndarray]) -> None:
        """Hold weights at zero where a mask is False, from now on."""
        for name, mask in masks.items():
            self._masks[name] = torch.from_numpy(np.asarray(mask, dtype=np.float32)).to(DEVICE)
        self.apply()

    def follow(self, names: list[str], schedule: Schedule) -> None:
        """Before each step from 1 on, hold the smallest weights of these parameters at zero, as many as the
        schedule says for the step; None leaves the masks as they are."""
        self._scheduled, self._step = (names, schedule), 0

    def before_step(self) -> None:
        """Let a schedule set the masks of the step that follows."""
        if self._scheduled is None:
            return
        names, schedule = self._scheduled
        self._step += 1
        sparsity = schedule(self._step)
        if sparsity is not None:
            self.hold({name: magnitude_mask(_array(self._parameters[name]), sparsity) for name in names})

    @torch.no_grad()
    def apply(self) -> None:
        """Set the held weights to zero.

        Their gradients need no mask: what an optimizer makes of them reaches no other weight.
        """
        if self._masks:
            torch._foreach_mul_([self._parameters[name] for name in self._masks], list(self._masks.values()))


class SharedValues:
    """A parameter that takes few values: they are what is trained, with the sum of the gradients of all
    weights that have the value."""

    def __init__(self, parameter: torch.nn.Parameter, palette: Palette) -> None:
        self._weights, self._zero = parameter.detach().view(-1), palette.zero
        self._assignment = torch.from_numpy(palette.assignment).to(DEVICE)
        self.values = torch.from_numpy(np.array(palette.centroids, dtype=np.float32)).to(DEVICE)
        self.apply()

    def gradient(self, of_weights: torch.Tensor) -> torch.Tensor:
        """Gradient of the values; that of the pruned weights' value is zero."""
        summed = torch.zeros_like(self.values).scatter_add_(0, self._assignment, of_weights.reshape(-1))
        if self._zero is not None:
            summed[self._zero] = 0.0
        return summed

    @torch.no_grad()
    def apply(self) -> None:
        """Give every weight its value."""
        torch.index_select(self.values, 0, self._assignment, out=self._weights)


class RoundedWeights:
    """Parameters that are rounded after each step: gradients are those of the rounded ones and move the full
    ones, straight through (Courbariaux et al., BinaryConnect, NeurIPS 2015).

    Args:
        leaves: All that training moves.
        steps, levels: By the position of those that are rounded; see compression.grid.
    """

    def __init__(
        self,
        leaves: Sequence[torch.Tensor],
        steps: Mapping[int, np.ndarray],
        levels: Mapping[int, int],
    ) -> None:
        self._held = [
            (leaves[k], leaves[k].detach().clone(), torch.from_numpy(step).to(DEVICE), levels[k])
            for k, step in steps.items()
        ]
        self.round()

    @torch.no_grad()
    def unround(self) -> None:
        """Before a step: what is behind the rounded ones."""
        for leaf, full, _, _ in self._held:
            leaf.copy_(full)

    @torch.no_grad()
    def round(self) -> None:
        """After a step: keep what came out, and round it."""
        for leaf, full, step, levels in self._held:
            full.copy_(leaf)
            leaf.copy_(step * (leaf / step).round().clamp(-levels, levels))


def _array(parameter: torch.nn.Parameter) -> np.ndarray:
    return parameter.detach().cpu().numpy()
