"""Tests that must find nothing when the measurement is sound (design: null tests with every audit).

All take arrays and give a p-value that is uniform, or larger, when there is nothing to find. The level of the
family is held by `edgeprivacy.metrics.multiple.holm`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.errors import DataError
from edgeprivacy.metrics.blind import blind_scores
from edgeprivacy.metrics.roc import Bools, Floats, Roc, check_scores
from edgeprivacy.metrics.thresholds import balanced_accuracy, cross_fit_decisions


class NullOutcome(NamedTuple):
    """p-value, the statistic it belongs to, and one sentence for the report."""

    p_value: float
    statistic: float
    detail: str


def rank_sum_test(a: NDArray[Any], b: NDArray[Any]) -> NullOutcome:
    """Null test (a): do two sets of non-members score alike? Two-sided Mann-Whitney, corrected for ties.

    Args:
        a: Scores [rows] of held-out rows that were passed off as members, through the members' own path.
        b: Scores [rows] of the non-members.

    Returns:
        The statistic is the AUC of `a` against `b` (1/2 when they are alike).

    Raises:
        DataError: A side is empty or a score is not finite.
    """
    from scipy.stats import mannwhitneyu

    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if not len(first) or not len(second) or not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise DataError(
            "a rank test needs finite scores on both sides", got=f"{len(first)} and {len(second)} scores"
        )
    if min(first.min(), second.min()) == max(first.max(), second.max()):
        return NullOutcome(1.0, 0.5, f"all {len(first)} + {len(second)} scores are equal")
    u, p = mannwhitneyu(first, second, alternative="two-sided", method="asymptotic")
    area = float(u) / (len(first) * len(second))
    return NullOutcome(
        float(p), area, f"AUC {area:.3f} of {len(first)} held-out rows against {len(second)} non-members"
    )


def permuted_labels_test(
    scores: NDArray[Any],
    members: NDArray[Any],
    n_permutations: int = 200,
    seed: int = 0,
    rescore: Callable[[Bools], Floats] | None = None,
    max_rows: int = 20_000,
) -> NullOutcome:
    """Null test (b): permuted membership must give a mean AUC and balanced accuracy (cross-fitted) of 1/2.

    Both expectations are exactly 1/2 for a sound measurement, whatever the scores: given one fold, the labels
    of the other are still exchangeable. A two-sided t-test of each mean; the smaller p-value counts twice.
    It finds faults of the measurement (order-dependent ties, thresholds chosen on measured rows), not of
    data.

    Args:
        scores: float [rows].
        members: bool [rows].
        n_permutations: At least 2.
        seed: Seed of the permutations.
        rescore: Attack to run again on each permuted membership (scores [rows]); else scores stay.
        max_rows: More rows than this are subsampled, to bound the time.

    Returns:
        The statistic is the mean deviation from 1/2 that was the less likely.
    """
    values, truth = check_scores(scores, members)
    rng = np.random.default_rng(seed)
    if rescore is None and len(values) > max_rows:
        share = rng.permutation(len(values))[:max_rows]
        values, truth = values[share], truth[share]
    areas, accuracies = np.empty(n_permutations), np.empty(n_permutations)
    for index in range(n_permutations):
        permuted = rng.permutation(truth)
        current = values if rescore is None else rescore(permuted)
        areas[index] = Roc.from_scores(current, permuted).auc
        accuracies[index] = balanced_accuracy(cross_fit_decisions(current, permuted, rng=rng), permuted)
    p_area, p_accuracy = _mean_is_half(areas), _mean_is_half(accuracies)
    worse = areas if p_area <= p_accuracy else accuracies
    return NullOutcome(
        min(1.0, 2.0 * min(p_area, p_accuracy)),
        float(worse.mean() - 0.5),
        f"{n_permutations} permutations: mean AUC {areas.mean():.4f}, "
        f"mean cross-fitted balanced accuracy {accuracies.mean():.4f}",
    )


def _mean_is_half(samples: Floats) -> float:
    from scipy.stats import ttest_1samp

    if np.ptp(samples) < 1e-12:
        return 1.0 if abs(float(samples[0]) - 0.5) < 1e-9 else 0.0
    return float(ttest_1samp(samples, 0.5).pvalue)


def blind_classifier_test(
    x_members: NDArray[Any],
    x_nonmembers: NDArray[Any],
    seed: int = 0,
    max_rows: int = 4000,
    folds: int = 2,
    trees: int = 150,
) -> NullOutcome:
    """Null test (c): can the inputs alone, without any model, tell members from non-members?

    Cross-fitted (`edgeprivacy.metrics.blind`): in each fold a one-sided Mann-Whitney test of the rows held
    out, which is exact for halves of the same distribution; the smallest p-value is multiplied by the number
    of folds (Bonferroni). Adding up or pooling over folds would not hold the level, because each fold's rows
    train the other folds' classifiers: nominal 1 % was 4 % in simulation.

    Args:
        x_members: [rows, ...] inputs of members, as the model received them.
        x_nonmembers: [rows, ...] inputs of non-members.
        seed: Seed of the folds and of the classifier.
        max_rows: More rows than this (both sides together) are subsampled, to bound the time.
        folds: Number of folds.
        trees: Number of trees a fold.

    Returns:
        The statistic is the AUC within folds.

    Raises:
        DataError: Shapes of the inputs differ, or a side has fewer rows than folds.
    """
    from scipy.stats import mannwhitneyu

    if x_members.shape[1:] != x_nonmembers.shape[1:]:
        raise DataError(
            "members and non-members differ in shape", got=f"{x_members.shape[1:]}, {x_nonmembers.shape[1:]}"
        )
    if min(len(x_members), len(x_nonmembers)) < 2 * folds:
        raise DataError(
            f"a blind classifier needs {2 * folds} or more rows on each side",
            got=f"{len(x_members)} and {len(x_nonmembers)}",
        )
    rng = np.random.default_rng(seed)
    half = max_rows // 2
    sides = [side[rng.permutation(len(side))[:half]] for side in (x_members, x_nonmembers)]
    x = np.concatenate(sides)
    members = np.repeat([True, False], [len(sides[0]), len(sides[1])])
    scores, fold = blind_scores(x, members, folds, rng, trees)
    p_values, won, pairs = [], 0.0, 0
    for index in range(folds):
        held = fold == index
        inside, outside = scores[held & members], scores[held & ~members]
        u, p_fold = mannwhitneyu(inside, outside, alternative="greater", method="asymptotic")
        p_values.append(1.0 if np.isnan(p_fold) else float(p_fold))  # nan: all scores equal
        won += float(u)
        pairs += len(inside) * len(outside)
    p, area = min(1.0, folds * min(p_values)), won / pairs
    return NullOutcome(
        p,
        area,
        f"AUC {area:.3f} from the inputs alone on {int(members.sum())} + {int((~members).sum())} rows",
    )


def same_outputs_test(
    first_outputs: NDArray[Any],
    second_outputs: NDArray[Any],
    first_inputs: NDArray[Any] | None = None,
    second_inputs: NDArray[Any] | None = None,
) -> NullOutcome:
    """Null test (d): rows that were loaded and queried twice must give the same inputs and the same outputs.

    Args:
        first_outputs: [rows, ...] of the first pass.
        second_outputs: [rows, ...] of the second pass.
        first_inputs: [rows, ...] inputs (or their hashes [rows]) of the first pass, where known.
        second_inputs: The same of the second pass.

    Returns:
        p-value 1 if every bit is the same, else 0; the statistic is the number of rows that differ.

    Raises:
        DataError: The passes have different shapes.
    """
    pairs = [("outputs", first_outputs, second_outputs)]
    if first_inputs is not None and second_inputs is not None:
        pairs.append(("inputs", first_inputs, second_inputs))
    differing = np.zeros(len(first_outputs), dtype=np.bool_)
    found = []
    for what, first, second in pairs:
        if first.shape != second.shape or len(first) != len(differing):
            raise DataError(
                f"two passes gave different shapes of {what}", got=f"{first.shape}, {second.shape}"
            )
        unequal = first != second
        if first.dtype.kind == "f" and second.dtype.kind == "f":
            unequal &= ~(np.isnan(first) & np.isnan(second))
        rows = unequal.reshape(len(first), -1).any(axis=1)
        found.append(f"{int(rows.sum())} of {len(first)} rows differ in their {what}")
        differing |= rows
    count = int(differing.sum())
    return NullOutcome(float(count == 0), float(count), "; ".join(found))
