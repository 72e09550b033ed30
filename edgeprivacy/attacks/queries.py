"""Attacks that ask a file more than once a row: what they ask is written here, who asks is `gathering`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.attacks.base import Attack, Calibration, Signals
from edgeprivacy.errors import DataError

Rows = NDArray[Any]
Ask = Callable[[Rows], NDArray[np.float32]]
"""One model's probabilities [n, classes] of inputs [n, ...] that it may never have seen."""


@dataclass(frozen=True)
class InputSpace:
    """How far apart inputs lie, as the files take them.

    Attributes:
        quantum: Smallest difference of one number that a file can see: its input scale where it takes
            quantized integers, 1 where it takes whole numbers, 0.0 for a float input.
        spread: Standard deviation of the rows' numbers, to be broadcast to a row: one for each column of
            plain vectors (columns have units of their own), one for all numbers of anything else (images,
            sequences).
    """

    quantum: float
    spread: NDArray[np.float32]

    @classmethod
    def of(cls, x: Rows, quantum: float = 0.0) -> InputSpace:
        """Of these rows [rows, ...].

        Args:
            x: Rows of integers count as whole numbers, whatever the file takes: no app would send others.
            quantum: See the attribute.

        Raises:
            DataError: A quantum that is negative or not finite.
        """
        if not np.isfinite(quantum) or quantum < 0:
            raise DataError("an input's step must be a finite number", got=quantum, allowed="0 or more")
        axis = 0 if x.ndim == 2 else None
        spread = np.asarray(x.std(axis=axis, dtype=np.float64), dtype=np.float32)
        return cls(max(quantum, 1.0) if x.dtype.kind in "iu" else quantum, spread)

    def width(self, share: float, quanta: float) -> NDArray[np.float32]:
        """Of noise, to be broadcast to a row: a share of the spread, but no less than some quanta; a column
        that is always the same keeps still unless there are quanta."""
        return np.asarray(np.maximum(np.float32(share) * self.spread, np.float32(quanta * self.quantum)))


def moved(x: Rows, change: NDArray[Any]) -> Rows:
    """x + change in the type of x: integers are rounded (halves to even) and kept in the type's range; floats
    become float32."""
    if x.dtype.kind not in "iu":
        return np.asarray(x, dtype=np.float32) + change.astype(np.float32)
    limits = np.iinfo(x.dtype)
    return np.asarray(np.clip(np.rint(x + change), limits.min, limits.max).astype(x.dtype))


class QueryAttack(Attack):
    """An attack on what files answer to rows of its own making.

    `gather` makes the rows and keeps what `score` will need; it is run for every model, the shadows included.
    `queries` is how often it asks about a row. What the label decides in `gather` an attacker could decide as
    well: it holds the row and its label.
    """

    queries: int
    rows_needed: str = ""
    """What `usable` asks of rows, in words."""

    @abstractmethod
    def gather(
        self, ask: Ask, x: Rows, labels: NDArray[np.int64], inputs: InputSpace, rng: np.random.Generator
    ) -> NDArray[Any]:
        """What one model says of the surroundings of some rows; it never sees who is a member.

        All models get a generator of the same state, so that with the same number of draws they are asked
        with the same noise.

        Args:
            ask: One model.
            x: [rows, ...] float or integer.
            labels: int64 [rows].
            inputs: Of all rows of the audit, not of these alone.
            rng: For every random choice.

        Returns:
            Finite numbers [rows, ...].
        """

    def usable(self, x: Rows) -> bool:
        """Whether rows like these [rows, ...] can be varied as the attack does."""
        return True

    def missing(self, signals: Signals, calibration: Calibration | None) -> str | None:
        """As `Attack.missing`; without answers to its queries there is nothing to score.

        An array without a number, [models, rows, 0], stands for rows that were not `usable`.
        """
        reason = super().missing(signals, calibration)
        if reason is None and self.name not in signals.gathered:
            return "needs further queries to the files: they are asked where the attack is named"
        if reason is None and signals.gathered[self.name].size == 0:
            return f"needs {self.rows_needed}"
        return reason

    def gathered(self, signals: Signals) -> NDArray[np.float64]:
        """What was gathered for this attack, float64 [models, rows, ...]."""
        return np.asarray(signals.gathered[self.name], dtype=np.float64)


def correct(ask: Ask, x: Rows, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether the likeliest class (the first of equals) is the label, [rows]: all that a label-only attack
    looks at."""
    return np.asarray(ask(x).argmax(axis=1) == labels)


def per_row(values: NDArray[Any], rows: Rows) -> NDArray[Any]:
    """[rows] as [rows, 1, ...], to be broadcast to rows."""
    return values.reshape(len(values), *([1] * (rows.ndim - 1)))
