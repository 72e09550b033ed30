"""The ROC curve of membership scores. Rows with equal scores are one vertex, whatever their order.

A row is called a member when its score is at or above the threshold; higher means member.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.errors import DataError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def allowed_false_positives(limit: float | Floats, n_nonmembers: int) -> Any:
    """Largest number of false positives whose rate is not above `limit`: floor(limit * n), int64.

    The small addend undoes the binary rounding of a decimal limit (0.29 * 100 is 28.999999999999996).
    """
    return np.floor(np.asarray(limit) * n_nonmembers * (1 + 1e-12) + 1e-9).astype(np.int64)


def check_scores(scores: NDArray[Any], members: NDArray[Any]) -> tuple[Floats, Bools]:
    """Scores as float64 and membership as bool, both [rows].

    Raises:
        DataError: Shapes differ, a score is not finite, or members or non-members are missing.
    """
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(members, dtype=np.bool_)
    if values.ndim != 1 or values.shape != truth.shape:
        raise DataError("scores and members must be [rows] alike", got=f"{values.shape}, {truth.shape}")
    if not np.isfinite(values).all():
        raise DataError("scores must be finite", got=f"{int((~np.isfinite(values)).sum())} that are not")
    if not truth.any() or truth.all():
        raise DataError(
            "a ROC needs members and non-members", got=f"{int(truth.sum())} members of {len(truth)} rows"
        )
    return values, truth


def auc(scores: Floats, members: Bools) -> float:
    """Mann-Whitney probability that a member scores above a non-member, ties counted one half.

    Args:
        scores: float [rows], finite.
        members: bool [rows], both kinds present.
    """
    values, truth = check_scores(scores, members)
    outside, inside = np.sort(values[~truth]), values[truth]
    wins = np.searchsorted(outside, inside, "left").sum() + np.searchsorted(outside, inside, "right").sum()
    return float(wins) / (2.0 * len(outside) * len(inside))


@dataclass(frozen=True, eq=False)
class Roc:
    """All operating points of a score: one vertex for each distinct score, from "nobody" to "everybody".

    Attributes:
        thresholds: float64 [vertices], falling, the first one +inf.
        true_positives: int64 [vertices], members with a score at or above the threshold.
        false_positives: int64 [vertices], non-members with a score at or above the threshold.
    """

    thresholds: Floats
    true_positives: Ints
    false_positives: Ints

    @classmethod
    def from_scores(cls, scores: NDArray[Any], members: NDArray[Any]) -> Roc:
        """The curve of scores [rows] and membership [rows].

        Raises:
            DataError: Shapes differ, a score is not finite, or members or non-members are missing.
        """
        values, truth = check_scores(scores, members)
        order = np.argsort(-values, kind="stable")
        values, truth = values[order], truth[order]
        ends = np.append(np.flatnonzero(values[1:] != values[:-1]), len(values) - 1)
        found = np.cumsum(truth, dtype=np.int64)[ends]
        return cls(
            thresholds=np.append(np.inf, values[ends]),
            true_positives=np.append(0, found),
            false_positives=np.append(0, ends + 1 - found),
        )

    @property
    def n_members(self) -> int:
        """Number of members."""
        return int(self.true_positives[-1])

    @property
    def n_nonmembers(self) -> int:
        """Number of non-members."""
        return int(self.false_positives[-1])

    @cached_property
    def tpr(self) -> Floats:
        """True-positive rate, [vertices]."""
        return self.true_positives / self.n_members

    @cached_property
    def fpr(self) -> Floats:
        """False-positive rate, [vertices]."""
        return self.false_positives / self.n_nonmembers

    @cached_property
    def auc(self) -> float:
        """Area under the curve (Mann-Whitney, ties one half)."""
        middle = self.true_positives[1:] + self.true_positives[:-1]
        area = float((np.diff(self.false_positives) * middle).sum())
        return area / (2.0 * self.n_members * self.n_nonmembers)

    def vertex_at_fpr(self, limit: float) -> int:
        """Last vertex whose FPR is not above `limit`."""
        allowed = allowed_false_positives(limit, self.n_nonmembers)
        return int(np.searchsorted(self.false_positives, allowed, "right")) - 1

    def tpr_at_fpr(self, limit: float) -> float:
        """TPR at the largest empirical FPR that is not above `limit`: a step, never interpolated."""
        return float(self.tpr[self.vertex_at_fpr(limit)])

    def counts_at(self, threshold: float) -> tuple[int, int]:
        """True and false positives when rows at or above `threshold` are called members."""
        vertex = max(int(np.searchsorted(-self.thresholds, -threshold, "right")) - 1, 0)
        return int(self.true_positives[vertex]), int(self.false_positives[vertex])

    def balanced_accuracy(self, threshold: float) -> float:
        """(TPR + TNR) / 2 at a threshold that was chosen elsewhere."""
        hits, alarms = self.counts_at(threshold)
        return 0.5 * (1.0 + hits / self.n_members - alarms / self.n_nonmembers)

    @property
    def oracle_balanced_accuracy(self) -> float:
        """Largest balanced accuracy over all thresholds: an upper bound, for it looks at the answers."""
        return float(0.5 * (1.0 + (self.tpr - self.fpr).max()))

    def thinned(self, points: int = 200) -> tuple[Floats, Floats]:
        """FPR and TPR of at most about `points` vertices for a step plot, both [points], FPR rising.

        One point for each FPR kept, with `tpr_at_fpr` of it; on long curves the FPRs kept are evenly spaced
        on a logarithmic axis from 1/n_nonmembers to 1, with the first and the last.
        """
        last = np.append(np.flatnonzero(np.diff(self.false_positives)), len(self.false_positives) - 1)
        if len(last) > points:
            n = self.n_nonmembers
            wanted = np.unique(np.geomspace(1, n, points - 1).astype(np.int64))
            positions = np.searchsorted(self.false_positives[last], wanted, "right") - 1
            last = last[np.unique(np.concatenate([[0], positions, [len(last) - 1]]))]
        return self.fpr[last], self.tpr[last]
