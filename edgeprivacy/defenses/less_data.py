"""The control that takes RSW's exclusion of data apart from its sorting: fewer rows, nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgeprivacy.defenses.base import Defense, Pass, TrainingRows, defenses
from edgeprivacy.defenses.wemem import Windows, check_width, check_windows, width_notes, window_told


@defenses.register("less-data")
@dataclass(frozen=True)
class LessData(Defense):
    """A fixed random subset of each class, as large as the union of RSW's windows over a phase; each epoch
    draws as many rows of it as RSW's window holds. Same original, same epochs, same stop rule.

    Attributes:
        window, step: As RSW's.
    """

    name: ClassVar[str] = "less-data"
    title: ClassVar[str] = "control: as few rows as RSW touches, chosen at random"
    paper: ClassVar[str] = "-"
    role: ClassVar[str] = "control"

    window: int | None = None
    step: int | None = None

    def __post_init__(self) -> None:
        check_windows("random", self.window, self.step)

    def check(self, rows: TrainingRows) -> None:
        """As for RSW: of a window wider than every class the control would be all rows."""
        check_width(self.name, self.window, rows)

    def notes(self, rows: TrainingRows) -> tuple[str, ...]:
        """How many classes are smaller than the window."""
        return width_notes(self.name, self.window, rows)

    @property
    def rows_seen(self) -> str:
        """As many as RSW's window holds."""
        return window_told(self.window)

    def epoch(
        self, rows: TrainingRows, epoch: int, epochs: int, weight_decay: float, rng: np.random.Generator
    ) -> list[Pass]:
        """Rows of the subset, as many per class as RSW would see in this epoch."""
        windows = Windows("random", self.window, self.step)
        per_epoch = np.random.default_rng([epoch, int(rng.integers(2**31))])
        selected = []
        for label in range(rows.classes):
            of_class = rng.permutation(np.flatnonzero(rows.labels == label))
            subset = of_class[: windows.touched(len(of_class), epochs)]
            start, stop = windows.bounds(len(of_class), epoch)
            selected.append(per_epoch.choice(subset, size=stop - start, replace=False))
        drawn = np.concatenate(selected)
        return [Pass(drawn, weight_decay)] if len(drawn) else []
