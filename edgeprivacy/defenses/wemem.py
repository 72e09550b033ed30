"""WeMem: limits on data reuse and on memorization while a model is pruned.

Shang et al., "Defending Against Membership Inference Attacks on Iteratively Pruned Deep Neural Networks",
NDSS 2025. The three methods follow the authors' released code (WeMeM, commit 06bf947) and not its defects:
a window clipped at a short class does not stay clipped for the classes after it. The scores that sort the
rows are those of `memorability`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.defenses.base import Defense, Pass, Rows, TrainingRows, defenses
from edgeprivacy.defenses.memorability import MEMORABILITY
from edgeprivacy.defenses.preparing import Preparation
from edgeprivacy.defenses.ranges import Searchable, Span
from edgeprivacy.errors import RecipeError

Order = Literal["low-to-high", "high-to-low", "random"]
ORDERS = ("low-to-high", "high-to-low", "random")

# With the authors' own scores and settings 3 to 18 % of the rows are risky (CINIC-10 apart).
_USUAL_RISKY_SHARE = 0.3

WINDOW_SHARE = 1 / 4
STEP_SHARE = 1 / 60


@dataclass(frozen=True)
class Windows:
    """A sliding window over each class's rows, sorted by memorability.

    Attributes:
        order: How a class is sorted; "random" is the control with the same mechanics on unsorted rows.
        window: Rows of a class in one epoch; None for a share of the class, at least 1.
        step: Rows the window moves each epoch; None for a share of the class, at least 1.
        window_share, step_share: These shares.
    """

    order: Order
    window: int | None
    step: int | None
    window_share: float = WINDOW_SHARE
    step_share: float = STEP_SHARE

    def sizes(self, class_rows: int) -> tuple[int, int]:
        """(window, step) for a class of this many rows."""
        window = self.window if self.window is not None else max(1, round(self.window_share * class_rows))
        step = self.step if self.step is not None else max(1, round(self.step_share * class_rows))
        return window, step

    def bounds(self, class_rows: int, epoch: int) -> tuple[int, int]:
        """First and one-past-last sorted position that an epoch sees of a class; equal when exhausted."""
        window, step = self.sizes(class_rows)
        start = min(step * epoch, class_rows)
        return start, min(start + window, class_rows)

    def touched(self, class_rows: int, epochs: int) -> int:
        """How many of a class's rows are seen at least once in this many epochs."""
        seen = np.zeros(class_rows, dtype=bool)
        for epoch in range(epochs):
            start, stop = self.bounds(class_rows, epoch)
            seen[start:stop] = True
        return int(seen.sum())

    def rows(self, rows: TrainingRows, epoch: int, rng: np.random.Generator) -> Rows:
        """Positions of all rows inside the windows of an epoch, class by class."""
        selected = []
        for label in range(rows.classes):
            of_class = np.flatnonzero(rows.labels == label)
            if self.order == "random":
                ranked = rng.permutation(of_class)
            else:
                assert rows.memorability is not None
                scores = rows.memorability[of_class]
                ranked = of_class[
                    np.argsort(scores if self.order == "low-to-high" else -scores, kind="stable")
                ]
            start, stop = self.bounds(len(of_class), epoch)
            selected.append(ranked[start:stop])
        return np.concatenate(selected)


def window_told(window: int | None, share: float = WINDOW_SHARE) -> str:
    """How many rows an epoch sees through a window, for listings."""
    if window is not None:
        return f"{window} rows of each class in an epoch"
    return f"{100 * share:.0f} % of the rows in an epoch"


def check_windows(order: str, window: int | None, step: int | None) -> None:
    """Raises ValueError for settings that describe no window."""
    if order not in ORDERS:
        raise ValueError(f"order must be one of {', '.join(ORDERS)}, got {order!r}")
    for name, value in (("window", window), ("step", step)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise ValueError(f"{name} must be a whole number of rows, at least 1, got {value!r}")


def check_width(defense: str, window: int | None, rows: TrainingRows) -> None:
    """Raises RecipeError for a window that is wider than the largest class."""
    largest = int(np.bincount(rows.labels, minlength=rows.classes).max())
    if window is not None and window > largest:
        raise RecipeError(
            f"the window of '{defense}' is wider than every class",
            got=f"{window} rows",
            allowed=f"1 to {largest}",
        )


def width_notes(defense: str, window: int | None, rows: TrainingRows) -> tuple[str, ...]:
    """What a window of so many rows is to classes that have fewer."""
    counts = np.bincount(rows.labels)
    counts = counts[counts > 0]
    narrow = 0 if window is None else int((counts < window).sum())
    if not narrow:
        return ()
    return (
        f"{defense}: the window of {window} rows is wider than {narrow} of {len(counts)} classes, of which a "
        "phase's first epochs see every row that is left.",
    )


@dataclass(frozen=True)
class RestrictedWindow(Defense):
    """RSW, against data reuse: each epoch trains on one window of each class, sorted by memorability.

    The window restarts at the first row in every pruning iteration, and again at the start of clustering and
    of quantization-aware training.

    Attributes:
        order: How a class is sorted: "low-to-high" memorability, or "high-to-low".
        window: Rows of a class in one epoch; a quarter of the class if None.
        step: Rows that the window moves each epoch; a sixtieth of the class if None.
    """

    name: ClassVar[str] = "wemem"
    title: ClassVar[str] = "RSW: a sliding window over each class limits how often a row is reused"
    paper: ClassVar[str] = "Shang et al., WeMem, NDSS 2025 (RSW)"
    search: ClassVar[Mapping[str, Searchable]] = {"order": ("low-to-high", "high-to-low")}

    order: Order = "low-to-high"
    window: int | None = None
    step: int | None = None

    def __post_init__(self) -> None:
        check_windows(self.order, self.window, self.step)

    def preparations(self) -> tuple[Preparation, ...]:
        """Memorability scores."""
        return (MEMORABILITY,)

    @property
    def windows(self) -> Windows:
        """The window mechanics."""
        return Windows(self.order, self.window, self.step)

    @property
    def rows_seen(self) -> str:
        """Those of the window."""
        return window_told(self.window)

    def check(self, rows: TrainingRows) -> None:
        """A window wider than the largest class would be no window at all."""
        check_width(self.name, self.window, rows)

    def notes(self, rows: TrainingRows) -> tuple[str, ...]:
        """How many classes are smaller than the window."""
        return width_notes(self.name, self.window, rows)

    def epoch(
        self, rows: TrainingRows, epoch: int, epochs: int, weight_decay: float, rng: np.random.Generator
    ) -> list[Pass]:
        """One pass over the window; none once every class is exhausted."""
        selected = self.windows.rows(rows, epoch, rng)
        return [Pass(selected, weight_decay)] if len(selected) else []


@dataclass(frozen=True)
class RandomWindow(RestrictedWindow):
    """The window of RSW over unsorted rows: what is left when memorability plays no part.

    Attributes:
        window, step: As RSW's; the `order` is random.
    """

    name: ClassVar[str] = "wemem:random"
    title: ClassVar[str] = "control: the window of RSW over unsorted rows"
    paper: ClassVar[str] = "Shang et al., WeMem, NDSS 2025 (random-order control)"
    role: ClassVar[str] = "control"
    search: ClassVar[Mapping[str, Searchable]] = {}

    order: Order = "random"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order != "random":
            raise ValueError("the random window has no order; use wemem")

    def preparations(self) -> tuple[Preparation, ...]:
        """None: the rows stay unsorted."""
        return ()


@dataclass(frozen=True)
class RiskyRegularization(Defense):
    """RMR, against memorability: rows scored risky are trained with a much larger L2 coefficient.

    Two Adam optimizers share the parameters; each epoch passes over the risky rows first, then the others.
    A score is risky from `threshold` on, or in the top share if `top_share` is set (scores are min-max scaled
    within a release, so an absolute threshold does not carry over from one data set to another).

    Attributes:
        weight_decay_risky: L2 of the risky rows; authors: 0.01 and 0.1.
        threshold: Memorability from which on a row is risky, 0 to 1.
        top_share: Share of the rows that are risky, whatever their scores; None leaves the threshold.
    """

    name: ClassVar[str] = "wemem:rmr"
    title: ClassVar[str] = "RMR: stronger L2 for the rows most easily memorized"
    paper: ClassVar[str] = "Shang et al., WeMem, NDSS 2025 (RMR)"
    search: ClassVar[Mapping[str, Searchable]] = {
        "weight_decay_risky": Span(0.01, 1.0, log=True),
        "threshold": Span(0.2, 0.9),
    }

    weight_decay_risky: float = 0.1
    threshold: float = 0.6
    top_share: float | None = None

    def __post_init__(self) -> None:
        if self.weight_decay_risky < 0:
            raise ValueError(f"weight_decay_risky must be 0 or more, got {self.weight_decay_risky}")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold must be between 0 and 1, got {self.threshold}")
        if self.top_share is not None and not 0 < self.top_share < 1:
            raise ValueError(f"top_share must be between 0 and 1, got {self.top_share}")

    def preparations(self) -> tuple[Preparation, ...]:
        """Memorability scores."""
        return (MEMORABILITY,)

    def risky(self, rows: TrainingRows) -> NDArray[np.bool_]:
        """bool [rows]: which rows are risky."""
        assert rows.memorability is not None
        limit = self.threshold
        if self.top_share is not None:
            limit = float(np.quantile(rows.memorability, 1 - self.top_share))
        return np.asarray(rows.memorability >= limit)

    def notes(self, rows: TrainingRows) -> tuple[str, ...]:
        """How many rows are risky, where that is far from what the method was made for."""
        share = float(self.risky(rows).mean())
        if self.top_share is not None or share <= _USUAL_RISKY_SHARE:
            return ()
        return (
            f"{self.name}: {100 * share:.0f} % of the target's training rows score at or above the threshold "
            f"{self.threshold:g} and train under L2 {self.weight_decay_risky:g}; memorability scores are "
            "min-max scaled within a release, so a threshold does not carry over: see the setting top_share.",
        )

    def split(self, rows: TrainingRows, selected: Rows, weight_decay: float) -> list[Pass]:
        """The risky pass, then the general one, over selected rows; an empty one is left out."""
        risky = self.risky(rows)[selected]
        passes = [
            Pass(selected[risky], self.weight_decay_risky, "risky"),
            Pass(selected[~risky], weight_decay, "general"),
        ]
        return [entry for entry in passes if len(entry.rows)]

    def epoch(
        self, rows: TrainingRows, epoch: int, epochs: int, weight_decay: float, rng: np.random.Generator
    ) -> list[Pass]:
        """Risky rows with their own optimizer and L2, then all others."""
        return self.split(rows, np.arange(len(rows.labels)), weight_decay)


@dataclass(frozen=True)
class WindowedRegularization(RiskyRegularization):
    """SWMR, against both: the window of RSW, and inside it the risky rows by RMR.

    Attributes:
        weight_decay_risky, threshold, top_share: As RMR's.
        order, window, step: As RSW's.
    """

    name: ClassVar[str] = "wemem:swmr"
    title: ClassVar[str] = "SWMR: RSW's window, and RMR inside it"
    paper: ClassVar[str] = "Shang et al., WeMem, NDSS 2025 (SWMR)"
    search: ClassVar[Mapping[str, Searchable]] = {**RestrictedWindow.search, **RiskyRegularization.search}

    order: Order = "high-to-low"
    window: int | None = None
    step: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_windows(self.order, self.window, self.step)

    @property
    def rows_seen(self) -> str:
        """Those of the window."""
        return window_told(self.window)

    def epoch(
        self, rows: TrainingRows, epoch: int, epochs: int, weight_decay: float, rng: np.random.Generator
    ) -> list[Pass]:
        """RMR's two passes over the rows of the window."""
        selected = Windows(self.order, self.window, self.step).rows(rows, epoch, rng)
        return self.split(rows, selected, weight_decay)

    def check(self, rows: TrainingRows) -> None:
        """As for RSW."""
        check_width(self.name, self.window, rows)

    def notes(self, rows: TrainingRows) -> tuple[str, ...]:
        """Those of both."""
        return (*super().notes(rows), *width_notes(self.name, self.window, rows))


for _name, _class in (
    ("wemem", RestrictedWindow),
    ("wemem:rmr", RiskyRegularization),
    ("wemem:swmr", WindowedRegularization),
    ("wemem:random", RandomWindow),
):
    defenses.register(_name)(_class)
