"""How strong an attack is, in units of epsilon.

An attack that calls a row a member with rates TPR and FPR would break (epsilon, delta)-DP for every epsilon
below log((TPR - delta) / FPR) and below log((TNR - delta) / FNR) (Kairouz, Oh, Viswanath, ICML 2015, theorem
2.1). With Clopper-Pearson limits in place of the rates, every operating point is read on one scale
(Jagielski, Ullman, Oprea, NeurIPS 2020; Nasr et al., S&P 2021, who trained many models where here one model
has many rows).

It is no bound of differential privacy: the rows of one model are not independent trials, and membership need
not have been drawn by coins. `ATTACK_STRENGTH` stands in every result; `edgeprivacy.metrics.epsilon` holds
the bound.

The limits hold for thresholds that did not look at the answers: one that is fixed beforehand, several of them
with Bonferroni, or one that is chosen on half of the rows and measured on the other half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.errors import DataError
from edgeprivacy.metrics.intervals import binomial_limits
from edgeprivacy.metrics.roc import Floats, Roc, check_scores

ATTACK_STRENGTH = "attack strength in epsilon units, not a bound of differential privacy"


def strength_of_counts(
    true_positives: int | NDArray[Any],
    n_members: int,
    false_positives: int | NDArray[Any],
    n_nonmembers: int,
    delta: float = 0.0,
    level: float = 0.95,
) -> Floats:
    """Attack strength in epsilon units at operating points given by counts, >= 0, float64 shaped as they are.

    Both limits (of TPR from below, of FPR from above) fail with probability (1 - level) / 2 at most; they are
    those of FNR and TNR too, so both directions together cost no more than one.

    Args:
        true_positives: Members called members, one or [points].
        n_members: Members, at least 1.
        false_positives: Non-members called members, shaped alike.
        n_nonmembers: Non-members, at least 1.
        delta: Subtracted from TPR and TNR, in [0, 1).
        level: Confidence of each point by itself, in (0, 1).

    Raises:
        DataError: Counts do not fit, or delta or level is out of its range.
    """
    found, alarms = np.asarray(true_positives), np.asarray(false_positives)
    if n_members < 1 or n_nonmembers < 1 or found.shape != alarms.shape:
        raise DataError(
            "counts need rows on both sides and one shape",
            got=f"{n_members} and {n_nonmembers} rows, {found.shape} and {alarms.shape}",
        )
    if (found < 0).any() or (found > n_members).any() or (alarms < 0).any() or (alarms > n_nonmembers).any():
        raise DataError("a count of positives lies outside its rows", allowed="0 to the number of rows")
    if not (0.0 <= delta < 1.0 and 0.0 < level < 1.0):
        raise DataError("delta or level is no probability", got=f"{delta}, {level}", allowed="0 to 1")
    hit_low, _ = binomial_limits(found, n_members, level)
    _, alarm_high = binomial_limits(alarms, n_nonmembers, level)
    by_members = _log_ratio(hit_low - delta, alarm_high)
    by_nonmembers = _log_ratio(1.0 - alarm_high - delta, 1.0 - hit_low)
    return np.maximum(np.maximum(by_members, by_nonmembers), 0.0)


@dataclass(frozen=True)
class AttackStrength:
    """An attack's best operating point in epsilon units.

    Attributes:
        epsilon: Lower limit of the strength, >= 0.
        delta: The delta it was taken at.
        level: Confidence, after any correction, were rows independent.
        threshold: Rows at or above it are called members.
        true_positives, n_members, false_positives, n_nonmembers: Counts it was measured on.
        search: How the threshold was chosen.
        n_thresholds: How many were looked at.
        meaning: What the number is, and is not.
    """

    epsilon: float
    delta: float
    level: float
    threshold: float
    true_positives: int
    n_members: int
    false_positives: int
    n_nonmembers: int
    search: Literal["beforehand", "split"]
    n_thresholds: int
    meaning: str = ATTACK_STRENGTH


def attack_strength(
    scores: NDArray[Any],
    members: NDArray[Any],
    *,
    thresholds: Sequence[float] | None = None,
    delta: float = 0.0,
    level: float = 0.95,
    seed: int = 0,
) -> AttackStrength:
    """Largest attack strength over thresholds, in epsilon units, with limits that hold for the choice.

    Args:
        scores: float [rows], higher means member.
        members: bool [rows].
        thresholds: Set beforehand, for example on shadow models: all are measured on all rows, each at
            1 - (1 - level) / thresholds (Bonferroni). None: members and non-members are halved at random, the
            best threshold of the first halves is measured on the second.
        delta: In [0, 1).
        level: Confidence in (0, 1).
        seed: Of the halves.

    Raises:
        DataError: Scores do not fit, there are no thresholds, or there are too few rows to halve.
    """
    values, truth = check_scores(scores, members)
    if thresholds is not None:
        chosen = np.asarray(thresholds, dtype=np.float64)
        if chosen.ndim != 1 or not len(chosen) or np.isnan(chosen).any():
            raise DataError("thresholds must be numbers, at least one", got=list(thresholds))
        roc, looked_at, each = Roc.from_scores(values, truth), len(chosen), 1.0 - (1.0 - level) / len(chosen)
    else:
        if min(truth.sum(), (~truth).sum()) < 2:
            raise DataError("halving needs two members and two non-members")
        second = _second_half(truth, np.random.default_rng(seed))
        first = Roc.from_scores(values[~second], truth[~second])
        vertex = int(np.argmax(_strengths(first, delta, level)))
        chosen, looked_at, each = first.thresholds[[vertex]], len(first.thresholds), level
        roc = Roc.from_scores(values[second], truth[second])
    counts = np.array([roc.counts_at(float(threshold)) for threshold in chosen])
    points = strength_of_counts(counts[:, 0], roc.n_members, counts[:, 1], roc.n_nonmembers, delta, each)
    best = int(np.argmax(points))
    return AttackStrength(
        epsilon=float(points[best]),
        delta=delta,
        level=level,
        threshold=float(chosen[best]),
        true_positives=int(counts[best, 0]),
        n_members=roc.n_members,
        false_positives=int(counts[best, 1]),
        n_nonmembers=roc.n_nonmembers,
        search="beforehand" if thresholds is not None else "split",
        n_thresholds=looked_at,
    )


def _strengths(roc: Roc, delta: float, level: float) -> Floats:
    return strength_of_counts(
        roc.true_positives, roc.n_members, roc.false_positives, roc.n_nonmembers, delta, level
    )


def _second_half(truth: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    second = np.zeros(len(truth), dtype=np.bool_)
    for side in (np.flatnonzero(truth), np.flatnonzero(~truth)):
        second[rng.permutation(side)[len(side) // 2 :]] = True
    return second


def _log_ratio(above: Floats, below: Floats) -> Floats:
    """log(above / below), minus infinity where nothing is left above; below is never 0 for limits."""
    return np.log(np.maximum(above, np.finfo(np.float64).tiny)) - np.log(below)
