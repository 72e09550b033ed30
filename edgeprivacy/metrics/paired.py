"""Whether one attack finds more than another on the same rows: a bootstrap that resamples rows for both.

Members and non-members are resampled apart, thresholds are taken anew in every resample, and both attacks are
measured on the same draw: what is common to them cancels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.metrics.roc import Floats, Roc, allowed_false_positives
from edgeprivacy.results import Difference

Bools = NDArray[np.bool_]
_CHUNK_NUMBERS = 4_000_000


@dataclass(frozen=True)
class PairedDifferences:
    """First less second: AUC, and TPR at each FPR limit in the order given."""

    auc: Difference
    tpr: tuple[Difference, ...]


def paired_differences(
    first: Floats,
    second: Floats,
    members: Bools,
    fprs: tuple[float, ...],
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> PairedDifferences:
    """Differences of two attacks' metrics with percentile intervals.

    Args:
        first, second: Scores of the same rows, [rows]; higher means member.
        members: bool [rows].
        fprs: Limits of the false-positive rate, in [0, 1]; TPR by the step definition.
    """
    rng = np.random.default_rng(seed)
    inside, outside = np.flatnonzero(members), np.flatnonzero(~members)
    limits = allowed_false_positives(np.asarray(fprs, dtype=np.float64), len(outside))
    sides = [_Sorted(scores, members) for scores in (first, second)]
    samples = []
    left = resamples
    while left > 0:
        size = min(left, max(1, _CHUNK_NUMBERS // len(members)))
        left -= size
        weights = np.zeros((size, len(members)))
        for rows in (inside, outside):
            weights[:, rows] = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=size)
        drawn = [side.metrics(weights, limits) for side in sides]
        samples.append(drawn[0] - drawn[1])
    values = np.concatenate(samples)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)
    rocs = [Roc.from_scores(scores, members) for scores in (first, second)]
    exact = [rocs[0].auc - rocs[1].auc, *(rocs[0].tpr_at_fpr(f) - rocs[1].tpr_at_fpr(f) for f in fprs)]
    found = tuple(
        Difference(float(v), (float(min(a, v)), float(max(b, v))))
        for v, a, b in zip(exact, low, high, strict=True)
    )
    return PairedDifferences(found[0], found[1:])


class _Sorted:
    """One attack's rows from the highest score to the lowest, and where groups of equal scores begin."""

    def __init__(self, scores: Floats, members: Bools) -> None:
        self._order = np.argsort(-scores, kind="stable")
        ordered = scores[self._order]
        self._starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
        self._members = members[self._order].astype(np.float64)

    def metrics(self, weights: Floats, allowed: NDArray[np.int64]) -> Floats:
        """AUC and TPR at each allowed number of false positives, [resamples, 1 + limits]."""
        drawn = weights[:, self._order]
        hits = np.add.reduceat(drawn * self._members, self._starts, axis=1)
        alarms = np.add.reduceat(drawn * (1 - self._members), self._starts, axis=1)
        found, accused = np.cumsum(hits, axis=1), np.cumsum(alarms, axis=1)
        m, n = found[:, -1:], accused[:, -1:]
        auc = ((found - 0.5 * hits) * alarms).sum(axis=1, keepdims=True) / (m * n)
        tpr = [
            np.take_along_axis(np.pad(found, ((0, 0), (1, 0))), (accused <= most).sum(axis=1)[:, None], 1) / m
            for most in allowed
        ]
        return np.concatenate([auc, *tpr], axis=1)
