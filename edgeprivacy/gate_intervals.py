"""Intervals a gate needs beyond those of an audit: wider for many comparisons, and of a difference."""

from __future__ import annotations

import math

from scipy.special import betaincinv, expit, logit, ndtri

from edgeprivacy.results import Interval


def clopper_pearson(successes: int, trials: int, level: float) -> Interval:
    """The exact two-sided interval of a proportion (Clopper & Pearson 1934) at a level between 0 and 1."""
    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else float(betaincinv(successes, trials - successes + 1, tail))
    high = 1.0 if successes == trials else float(betaincinv(successes + 1, trials - successes, 1 - tail))
    return low, high


def simultaneous(value: float, ci: Interval, comparisons: int, trials: int | None = None) -> Interval:
    """A stored 95 % interval widened so that `comparisons` of them hold together with 95 % (Bonferroni).

    Args:
        value: The estimate, between 0 and 1.
        ci: Its 95 % interval.
        comparisons: Number of intervals read together, at least 1.
        trials: For a proportion, the number of rows it was counted on: the result then also contains the
            Clopper-Pearson interval at the widened level.

    Returns:
        An interval within [0, 1] that contains `ci`.
    """
    stretch = float(ndtri(1 - 0.025 / comparisons) / ndtri(0.975))
    low, high = _stretched(value, ci[0], stretch), _stretched(value, ci[1], stretch)
    if trials:
        exact = clopper_pearson(round(value * trials), trials, 1 - 0.05 / comparisons)
        low, high = min(low, exact[0]), max(high, exact[1])
    return min(low, ci[0]), max(high, ci[1])


def _stretched(value: float, end: float, stretch: float) -> float:
    """Move one end of an interval away from the estimate, on the logit scale where that is finite."""
    if 0 < value < 1 and 0 < end < 1:
        centre = float(logit(value))
        return float(expit(centre + stretch * (float(logit(end)) - centre)))
    return min(1.0, max(0.0, value + stretch * (end - value)))


def newcombe_difference(first: float, first_ci: Interval, second: float, second_ci: Interval) -> Interval:
    """Interval of `first - second` from the two intervals (Newcombe 1998, method 10).

    It takes the two as independent. Two accuracies on the same rows rise and fall together, which makes the
    true interval narrower: this one errs on the side of "inconclusive".
    """
    difference = first - second
    return (
        difference - math.hypot(first - first_ci[0], second_ci[1] - second),
        difference + math.hypot(first_ci[1] - first, second - second_ci[0]),
    )
