"""Choosing the score from which a row is called a member: on calibration rows, never on the measured ones."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.metrics.roc import Bools, Floats, Roc


def best_threshold(scores: Floats, members: Bools) -> float:
    """The score that maximises balanced accuracy; among equals the highest (fewest false positives).

    Args:
        scores: float [rows] of calibration rows.
        members: bool [rows], both kinds present.

    Returns:
        One of the scores: rows at or above it are called members.

    Raises:
        DataError: Members or non-members are missing, or a score is not finite.
    """
    roc = Roc.from_scores(scores, members)
    # Whole numbers: two thresholds with the same accuracy compare equal. "Nobody" (+inf) is left out.
    gain = roc.true_positives * roc.n_nonmembers - roc.false_positives * roc.n_members
    return float(roc.thresholds[1 + int(np.argmax(gain[1:]))])


def class_thresholds(
    scores: Floats, labels: NDArray[np.int64], members: Bools, classes: int
) -> tuple[Floats, Bools]:
    """One `best_threshold` a class (Song & Mittal, USENIX Security 2021).

    Args:
        scores: float [pairs] of calibration pairs.
        labels: int [pairs], 0..classes-1.
        members: bool [pairs].
        classes: Number of classes.

    Returns:
        Thresholds float64 [classes], and bool [classes]: which fell back to the threshold over all classes
        because they have no member or no non-member among the pairs.
    """
    overall = best_threshold(scores, members)
    thresholds = np.full(classes, overall)
    fallback = np.ones(classes, dtype=np.bool_)
    order = np.argsort(labels, kind="stable")
    edges = np.searchsorted(labels[order], np.arange(classes + 1))
    for label, (start, end) in enumerate(pairwise(edges)):
        rows = order[start:end]
        inside = int(members[rows].sum())
        if 0 < inside < len(rows):
            thresholds[label] = best_threshold(scores[rows], members[rows])
            fallback[label] = False
    return thresholds, fallback


def stratified_folds(strata: NDArray[np.int64], folds: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Fold 0..folds-1 of every row, int [rows]; each stratum is spread over the folds evenly."""
    order = np.lexsort((rng.random(len(strata)), strata))
    fold = np.empty(len(strata), dtype=np.intp)
    fold[order] = np.arange(len(strata)) % folds
    return fold


def cross_fit_decisions(
    scores: Floats, members: Bools, folds: int = 2, rng: np.random.Generator | None = None
) -> Bools:
    """Who is called a member, bool [rows], by the threshold chosen on the other folds.

    For audits without shadows: no row takes part in the choice of its own threshold.
    """
    fold = stratified_folds(members.astype(np.int64), folds, rng or np.random.default_rng(0))
    decisions = np.zeros(len(scores), dtype=np.bool_)
    for index in range(folds):
        inside = fold == index
        decisions[inside] = scores[inside] >= best_threshold(scores[~inside], members[~inside])
    return decisions


def balanced_accuracy(decisions: Bools, members: Bools) -> float:
    """(TPR + TNR) / 2 of decisions [rows] against membership [rows]."""
    return 0.5 * (float(decisions[members].mean()) + 1.0 - float(decisions[~members].mean()))
