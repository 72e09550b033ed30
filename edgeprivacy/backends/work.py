"""One release at work: its rows, its defense, and the network that is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.backends.base import Material, Weights
from edgeprivacy.backends.fitting import Network
from edgeprivacy.defenses import Defense, TrainingRows


class TrainableNetwork(Network, Protocol):
    """A network of a backend, reused for every model of the same form.

    Attributes:
        dropout_layers: How many of its layers drop something, and at a rate that a defense may choose.
    """

    dropout_layers: int

    def load(self, weights: Weights | None, seed: int) -> None:
        """Set all variables (None keeps them); forget optimizers, masks and random state."""

    def bind(
        self,
        x: NDArray[Any],
        y: NDArray[Any],
        validation_x: NDArray[Any],
        validation_y: NDArray[Any],
    ) -> None:
        """The rows that epochs and validation refer to."""

    def bind_others(self, x: NDArray[Any], y: NDArray[Any]) -> None:
        """Reference rows, for defenses that want some beside each batch."""

    def trainable(self) -> Weights:
        """A copy of what training moves, an array a parameter."""

    def importance(self) -> Weights:
        """|gradient * weight| of the parameters of `trainable`, summed over all steps since `load` under a
        defense that scores weights."""

    def freeze(self, start: Weights, frozen: Sequence[NDArray[np.bool_]]) -> None:
        """Set what training moves, and hold the frozen ones there until the next `load`."""

    def hold_grid(self, steps: Mapping[int, NDArray[Any]], levels: Mapping[int, int]) -> None:
        """Round parameters, by their position in `trainable`, to multiples of their steps, no further than
        `levels` of them from zero, until the next `load`: gradients are those of the rounded ones, and move
        what is behind them."""

    def answers_alone(self, x: NDArray[Any]) -> bool:
        """Whether in training what a row is answered does not depend on the rows beside it."""

    def use_loss(self, defense: Defense, columns: Mapping[str, NDArray[Any]] | None = None) -> None:
        """The loss of the passes that follow, and what it sees of the bound rows beside their labels."""


@dataclass(frozen=True)
class Held:
    """What pruning may not touch, an array for each that training moves: positions that stay where they are,
    and positions that it must not prune."""

    frozen: Sequence[NDArray[np.bool_]]
    spared: Sequence[NDArray[np.bool_]]


@dataclass(frozen=True)
class Work:
    """One release being compressed by one arm: its rows, its defense, its seed, and what was done so far."""

    material: Material
    defense: Defense
    rows: TrainingRows
    seed: int
    history: list[dict[str, Any]] = field(default_factory=list)
    held: Held | None = None


def bind(network: TrainableNetwork, material: Material) -> None:
    """Bind a release's training and validation rows."""
    network.bind(material.train.x, material.train.y, material.validation.x, material.validation.y)
    network.bind_others(material.reference.x, material.reference.y)
