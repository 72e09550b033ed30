"""The training loop above the frameworks: passes, early stopping, best weights. One loop for all backends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.backends.base import Weights
from edgeprivacy.defenses import Pass
from edgeprivacy.defenses.dpsgd import PrivateSteps


class Network(Protocol):
    """A compiled network with its optimizers, bound to the rows it trains on."""

    def run_epoch(
        self, order: NDArray[np.int32], weight_decay: float, optimizer: str, epoch: int = 0
    ) -> None:
        """One pass over rows in this order, in batches; `epoch` counts from the start of the phase."""

    def validate(self) -> float:
        """Accuracy on the validation rows."""

    def weights(self) -> Weights:
        """A copy of all variables of the model."""


@dataclass(frozen=True)
class Fit:
    """How a phase went.

    Attributes:
        best: Weights of the epoch with the best validation accuracy (the last ones where no epoch counted).
        last: Weights after the last epoch.
        accuracies: Validation accuracy after each epoch.
        best_epoch: Index of the best epoch.
        steps: Gradient steps taken.
        private: What the accountant must know of them, where they hid their rows.
    """

    best: Weights
    last: Weights
    accuracies: tuple[float, ...]
    best_epoch: int
    steps: int
    private: Mapping[str, float] | None = None

    def summary(self, phase: str) -> dict[str, Any]:
        """JSON-ready content for the release's history."""
        return {
            "phase": phase,
            "epochs": len(self.accuracies),
            "best_epoch": self.best_epoch,
            "validation_accuracy": round(float(self.accuracies[self.best_epoch]), 6)
            if self.accuracies
            else None,
            "steps": self.steps,
            **({} if self.private is None else {"private": dict(self.private)}),
        }


def fit(
    network: Network,
    passes: Callable[[int], list[Pass]],
    *,
    epochs: int,
    patience: int,
    batch_size: int,
    rng: np.random.Generator,
    first_counted: int = 0,
    private: PrivateSteps | None = None,
) -> Fit:
    """Train until `epochs`, until no pass is left, or until more than `patience` epochs bring no improvement.

    Args:
        passes: Epoch to its passes.
        first_counted: Epochs before this one (still short of the asked sparsity) are neither best nor count
            towards patience.
        private: How the network's steps hide their rows, for the history.
    """
    told: dict[str, float] | None = None
    best: Weights | None = None
    best_accuracy, best_epoch, waited, steps = -1.0, 0, 0, 0
    accuracies: list[float] = []
    for epoch in range(epochs):
        plan = passes(epoch)
        if not plan:
            break
        for entry in plan:
            network.run_epoch(
                rng.permutation(entry.rows).astype(np.int32), entry.weight_decay, entry.optimizer, epoch
            )
            steps += -(-len(entry.rows) // batch_size)
            if private is not None:
                told = private.told(len(entry.rows), batch_size)
        accuracies.append(network.validate())
        if epoch < first_counted:
            continue
        if accuracies[-1] > best_accuracy:
            best, best_accuracy, best_epoch, waited = network.weights(), accuracies[-1], epoch, 0
        else:
            waited += 1
            if waited > patience:
                break
    last = network.weights()
    return Fit(best if best is not None else last, last, tuple(accuracies), best_epoch, steps, told)
