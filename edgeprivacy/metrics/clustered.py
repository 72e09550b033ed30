"""How sure a number is that was pooled over several targets: rows are resampled, with all their scores.

The same row scored on many models gives many scores that rise and fall together. Taken for independent they
would make every interval too narrow, so a resample draws rows, and each drawn row brings the scores of all
models: a cluster bootstrap (Field & Welsh, J. R. Statist. Soc. B 69, 2007). It is an interval over rows,
given these models. A TPR is never surer than a binomial share of as many trials as there are rows, as if all
models gave one answer on a row; nor is any other number where nothing varies between resamples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeprivacy.errors import DataError
from edgeprivacy.metrics.intervals import binomial_limits
from edgeprivacy.metrics.roc import Bools, Floats, Roc, allowed_false_positives

_LEAST_RESAMPLES = 2


@dataclass(frozen=True, eq=False)
class Pooled:
    """Metrics of scores pooled over targets, each with its 95 % interval.

    Attributes:
        roc: The curve of all (target, row) pairs.
        auc: Interval of the AUC.
        balanced_accuracy: The value at the given decisions.
        balanced_accuracy_ci: Its interval.
        tpr: Intervals of the TPR, one for each limit asked for.
    """

    roc: Roc
    auc: tuple[float, float]
    balanced_accuracy: float
    balanced_accuracy_ci: tuple[float, float]
    tpr: tuple[tuple[float, float], ...]


def pooled_metrics(
    scores: Floats,
    members: Bools,
    decisions: Bools,
    fprs: tuple[float, ...],
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Pooled:
    """Metrics over all (target, row) pairs, with intervals over rows.

    Args:
        scores: float [targets, rows], finite; higher means member.
        members: bool [targets, rows].
        decisions: bool [targets, rows], who is called a member by a threshold that was chosen elsewhere.
        fprs: Limits of the false-positive rate in [0, 1]; TPR by the step definition, the threshold taken
            anew in every resample.

    Raises:
        DataError: Shapes differ, a score is not finite, or members or non-members are missing.
    """
    if not scores.shape == members.shape == decisions.shape or scores.ndim != 2:
        raise DataError("scores, members and decisions must be [targets, rows] alike", got=scores.shape)
    roc = Roc.from_scores(scores.ravel(), members.ravel())
    rows = scores.shape[1]
    curve = _Curve(scores, members)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(rows, np.full(rows, 1 / rows), size=max(resamples, _LEAST_RESAMPLES))
    # A resample may, with very few rows, hold one side only: it says nothing and is left out.
    inside, outside = counts @ members.sum(axis=0), counts @ (~members).sum(axis=0)
    drawn = counts[(inside > 0) & (outside > 0)]
    samples = np.array([curve.metrics(weights, fprs) for weights in drawn])
    hits = drawn @ (decisions & members).sum(axis=0) / (drawn @ members.sum(axis=0))
    alarms = drawn @ (decisions & ~members).sum(axis=0) / (drawn @ (~members).sum(axis=0))
    balanced = 0.5 * (1 + decisions[members].mean() - decisions[~members].mean())
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2], axis=0)
    values = np.array([roc.auc, *(roc.tpr_at_fpr(fpr) for fpr in fprs)])
    exact_low, exact_high = binomial_limits(values * rows, rows, level)
    ends = np.array([np.minimum(low, exact_low), np.maximum(high, exact_high)])
    if high[0] - low[0] >= 1e-12:
        ends[:, 0] = min(low[0], values[0]), max(high[0], values[0])
    spread = np.quantile(0.5 * (1 + hits - alarms), [(1 - level) / 2, (1 + level) / 2])
    if spread[1] - spread[0] < 1e-12:
        spread = np.array([float(end) for end in binomial_limits(balanced * rows, rows, level)])
    auc, *tpr = [(float(ends[0, i]), float(ends[1, i])) for i in range(len(values))]
    bounds = min(float(spread[0]), float(balanced)), max(float(spread[1]), float(balanced))
    return Pooled(roc, auc, float(balanced), bounds, tuple(tpr))


class _Curve:
    """Pairs in falling order of score, to be weighted by how often their row was drawn."""

    def __init__(self, scores: Floats, members: Bools) -> None:
        flat = scores.ravel()
        order = np.argsort(-flat, kind="stable")
        self._row = order % scores.shape[1]
        self._inside = members.ravel()[order]
        ordered = flat[order]
        # Pairs with equal scores are called members together.
        self._ends = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)

    def metrics(self, weights: np.ndarray, fprs: tuple[float, ...]) -> list[float]:
        """AUC, then the TPR at each limit, of a resample given by how often each row was drawn, [rows]."""
        weight = weights[self._row]
        hits = np.append(0, np.cumsum(weight * self._inside)[self._ends])
        alarms = np.append(0, np.cumsum(weight * ~self._inside)[self._ends])
        auc = float((np.diff(alarms) * (hits[1:] + hits[:-1])).sum()) / (2.0 * hits[-1] * alarms[-1])
        allowed = allowed_false_positives(np.asarray(fprs, dtype=np.float64), int(alarms[-1]))
        return [auc, *(hits[np.searchsorted(alarms, allowed, "right") - 1] / hits[-1])]
