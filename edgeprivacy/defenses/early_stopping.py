"""Early stopping as a defense: each phase ends after few epochs, before members stand out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgeprivacy.defenses.base import Pass, TrainingDefense, TrainingRows, defenses
from edgeprivacy.defenses.ranges import Searchable, Span, check_count


@defenses.register("early-stopping")
@dataclass(frozen=True)
class EarlyStopping(TrainingDefense):
    """Plain training of all rows for at most `epochs` epochs a phase; of these the epoch with the best
    validation accuracy ships, as ever.

    Attributes:
        epochs: Epochs of each phase at most; the literature's grid starts at 5.
    """

    name: ClassVar[str] = "early-stopping"
    title: ClassVar[str] = "early stopping: every phase ends after few epochs"
    paper: ClassVar[str] = "Song & Mittal, USENIX Security 2021 (as a defense)"
    search: ClassVar[Mapping[str, Searchable]] = {"epochs": Span(1, 20, whole=True)}

    epochs: int = 5

    def __post_init__(self) -> None:
        check_count("epochs", self.epochs)

    @property
    def rows_seen(self) -> str:
        """All, for few epochs."""
        return f"at most {self.epochs} epochs a phase"

    def epoch(
        self, rows: TrainingRows, epoch: int, epochs: int, weight_decay: float, rng: np.random.Generator
    ) -> list[Pass]:
        """All rows, until the last epoch."""
        if epoch >= self.epochs:
            return []
        return super().epoch(rows, epoch, epochs, weight_decay, rng)
