"""Attack strength in epsilon units, against a published number, limits by root finding, and simulation."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq

from edgeprivacy.errors import DataError
from edgeprivacy.metrics.attack_epsilon import ATTACK_STRENGTH, attack_strength, strength_of_counts


def tail(k, n, p):
    """P[Bin(n, p) >= k], term by term."""
    return math.fsum(math.comb(n, j) * p**j * (1 - p) ** (n - j) for j in range(k, n + 1))


def naive_strength(tp, m, fp, n, delta, error):
    low = 0.0 if tp == 0 else brentq(lambda p: tail(tp, m, p) - error, 0, 1, xtol=1e-14)
    high = 1.0 if fp == n else brentq(lambda p: 1 - tail(fp + 1, n, p) - error, 0, 1, xtol=1e-14)
    directions = [(low - delta, high), (1 - high - delta, 1 - low)]
    return max([0.0] + [math.log(above / below) for above, below in directions if above > 0])


def test_a_number_known_elsewhere():
    assert strength_of_counts(840, 10_000, 10, 10_000) == pytest.approx(3.756, abs=2e-3)


def test_the_other_direction_is_the_same_attack():
    # 10 of 10 000 members missed while 9 160 of 10 000 non-members are called.
    assert strength_of_counts(9_990, 10_000, 9_160, 10_000) == pytest.approx(3.756, abs=2e-3)


@pytest.mark.parametrize("delta", [0.0, 0.05])
@pytest.mark.parametrize(("tp", "fp"), [(0, 0), (40, 50), (30, 1), (40, 0), (10, 0), (39, 25), (7, 20)])
def test_limits_by_root_finding(tp, fp, delta):
    expected = naive_strength(tp, 40, fp, 50, delta, 0.05)
    assert strength_of_counts(tp, 40, fp, 50, delta, level=0.9) == pytest.approx(expected, abs=1e-8)


def laplace_like(rng, n, epsilon):
    """Scores whose ROC reaches exactly epsilon at every threshold: randomized response in several values."""
    members = np.arange(n) < n // 2
    truthful = rng.random(n) < 1 / (1 + math.exp(-epsilon))
    return np.where(truthful, members, ~members) + rng.integers(0, 1, n), members


@pytest.mark.parametrize("thresholds", [None, [0.5], [-1.0, 0.25, 0.5, 0.75, 2.0]])
def test_the_strength_is_not_overestimated(thresholds):
    rng, found = np.random.default_rng(2), []
    for index in range(200):
        scores, members = laplace_like(rng, 400, 1.0)
        found.append(attack_strength(scores, members, thresholds=thresholds, seed=index).epsilon)
    assert sum(value > 1.0 for value in found) <= 18  # 19 or more: 0.5 % at exactly 5 %
    assert np.median(found) > 0.4


def test_thresholds_that_were_searched_are_paid_for():
    # At level 0.5 and without any attack, at most half of the audits may find one.
    rng, grid = np.random.default_rng(9), np.linspace(-3, 3, 60)
    above, uncorrected = {"split": 0, "beforehand": 0}, 0
    for index in range(200):
        scores, members = rng.normal(size=300), np.arange(300) < 150
        for thresholds in (None, grid):
            result = attack_strength(scores, members, thresholds=thresholds, level=0.5, seed=index)
            above[result.search] += result.epsilon > 0
        counts = np.array([[(scores[side] >= t).sum() for side in (members, ~members)] for t in grid])
        uncorrected += strength_of_counts(counts[:, 0], 150, counts[:, 1], 150, level=0.5).max() > 0
    assert max(above.values()) <= 60
    assert uncorrected > 118  # 119 of 200 has probability 0.5 % at one half: what the correction is for


def test_the_result_says_what_it_is():
    scores, members = laplace_like(np.random.default_rng(0), 2000, 2.0)
    split = attack_strength(scores, members, delta=1e-3)
    assert split.meaning == ATTACK_STRENGTH
    assert "not a bound of differential privacy" in split.meaning
    assert (split.search, split.n_members, split.n_nonmembers) == ("split", 500, 500)
    assert split.threshold == 1.0
    one, ten = (attack_strength(scores, members, thresholds=[0.5] * copies) for copies in (1, 10))
    assert (ten.search, ten.n_thresholds, ten.n_members) == ("beforehand", 10, 1000)
    assert one.epsilon > ten.epsilon > 1.5
    called = scores >= 0.5
    assert (one.true_positives, one.false_positives) == ((called & members).sum(), (called & ~members).sum())


def test_what_does_not_fit_is_refused():
    with pytest.raises(DataError, match="thresholds"):
        attack_strength([1.0, 2.0], [True, False], thresholds=[])
    with pytest.raises(DataError, match="halving"):
        attack_strength([1.0, 2.0, 3.0], [True, False, False])
    with pytest.raises(DataError, match="outside its rows"):
        strength_of_counts(11, 10, 0, 10)
    with pytest.raises(DataError, match="both sides"):
        strength_of_counts(0, 0, 0, 10)
    with pytest.raises(DataError, match="probability"):
        strength_of_counts(1, 10, 0, 10, delta=1.0)
