"""Gaussian privacy, against closed forms, a linear program of the paper's inequalities, and simulation."""

import math
import time

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.stats import binom, norm

from edgeprivacy.errors import DataError
from edgeprivacy.metrics.f_dp import (
    gaussian_epsilon,
    gaussian_mu,
    gaussian_mu_of_counts,
    one_run_gaussian_mu,
    one_run_rejects,
)


def test_a_number_known_elsewhere():
    assert gaussian_mu(0.10, 0.01) == pytest.approx(1.045, abs=5e-4)


@pytest.mark.parametrize("mu", [0.0, 0.5, 2.0])
def test_the_curve_of_two_gaussians_has_one_mu(mu):
    thresholds = np.linspace(-2, 4, 7)
    assert gaussian_mu(norm.sf(thresholds, mu), norm.sf(thresholds)) == pytest.approx(mu, abs=1e-9)


def test_counts_stay_below_the_rates():
    assert 0 < gaussian_mu_of_counts(1000, 10_000, 100, 10_000) < 1.045
    assert gaussian_mu_of_counts(10**6, 10**7, 10**5, 10**7) == pytest.approx(1.045, abs=0.005)
    assert gaussian_mu_of_counts(np.array([0, 10]), 10, np.array([0, 10]), 10).tolist() == [0.0, 0.0]
    assert gaussian_mu_of_counts(10, 100, 40, 100) == 0.0


@pytest.mark.parametrize("mu", [0.3, 1.0, 3.0])
def test_epsilon_of_mu_by_integration(mu):
    # delta is the mass by which one Gaussian exceeds e^epsilon times the other.
    epsilon = gaussian_epsilon(mu, 1e-3)
    x = np.linspace(-12, 12, 400_001)
    gap = np.maximum(norm.pdf(x, mu) - math.exp(epsilon) * norm.pdf(x), 0)
    assert np.trapezoid(gap, x) == pytest.approx(1e-3, rel=1e-5)
    assert gaussian_epsilon(mu, 0.9) == 0.0


def largest_tail(m, k, v, slopes, offsets):
    """Largest P[V >= v] that the inequalities allow for F(x) = min over lines of slope x + offset."""
    columns = np.arange(k + 1)
    rows, limits = [], []
    for c in range(1, k + 1):
        left = np.where(columns >= c, columns / m, 0.0)
        right = np.where((columns >= c - 1) & (columns <= k - 1), (k - columns) / m, 0.0)
        for slope, offset in zip(slopes, offsets, strict=True):
            rows.append(left - slope * right)
            limits.append(offset)
    answer = linprog(
        -(columns >= v).astype(float),
        A_ub=rows,
        b_ub=limits,
        A_eq=[np.ones(k + 1)],
        b_eq=[1.0],
        bounds=(0, 1),
    )
    assert answer.status == 0
    return -answer.fun


def tangents(mu, n=60):
    """Lines that touch F of mu-GDP; their lower envelope lies above F by a little."""
    at = norm.ppf(np.geomspace(1e-6, 0.999, n))
    slopes = np.exp(-mu * at - mu**2 / 2)
    return slopes, norm.cdf(at + mu) - slopes * norm.cdf(at)


def inverse_of(slopes, offsets):
    return lambda x: np.maximum(((x[:, None] - offsets) / slopes).max(axis=1), 0.0)


@pytest.mark.parametrize(("m", "k"), [(12, 12), (30, 12), (9, 3)])
@pytest.mark.parametrize("mu", [0.0, 0.7, 1.8])
def test_the_recursion_is_the_linear_program(m, k, mu):
    slopes, offsets = tangents(mu)
    for v in range(1, k + 1):
        allowed = largest_tail(m, k, v, slopes, offsets)
        inverse = inverse_of(slopes, offsets)
        # Never rejected where the program finds a distribution with such a tail, always just above.
        assert not one_run_rejects(m, k, v, inverse, level=1 - allowed * 0.999)[0]
        if allowed < 0.99:
            assert one_run_rejects(m, k, v, inverse, level=1 - allowed * 1.001)[0]


@pytest.mark.parametrize(("v", "k"), [(10, 10), (17, 25), (60, 90)])
def test_pure_dp_allows_randomized_response(v, k):
    # F(x) = min(e x, 1 - (1 - x) / e): the tail of randomized response must never be rejected.
    e = math.e
    inverse = inverse_of(np.array([e, 1 / e]), np.array([0.0, 1 - 1 / e]))
    tail = binom.sf(v - 1, k, e / (1 + e))
    assert not one_run_rejects(k, k, v, inverse, level=1 - tail * 0.999)[0]


def test_the_bound_is_where_rejection_ends():
    mu = one_run_gaussian_mu(1000, 400, 330)
    inverse = lambda at: lambda x: norm.cdf(norm.ppf(x) - at)  # noqa: E731
    assert mu > 0.5
    assert one_run_rejects(1000, 400, 330, inverse(mu))[0]
    assert not one_run_rejects(1000, 400, 330, inverse(mu + 1e-4))[0]


def test_gaussian_canaries_are_not_overestimated():
    rng, truth, m, k = np.random.default_rng(4), 1.0, 400, 60
    bounds = {v: one_run_gaussian_mu(m, 2 * k, v) for v in range(60, 121)}
    found = []
    for _ in range(200):
        coins = rng.random(m) < 0.5
        order = np.argsort(rng.normal(size=m) + truth * coins)
        found.append(bounds[int(coins[order[-k:]].sum() + (~coins[order[:k]]).sum())])
    assert sum(value > truth for value in found) <= 18  # 19 or more: 0.5 % at exactly 5 %
    assert np.median(found) > 0.4


def test_nothing_shown_is_zero():
    assert one_run_gaussian_mu(100, 100, 50) == 0.0
    assert one_run_gaussian_mu(100, 50, 0) == 0.0
    assert one_run_gaussian_mu(100, 0, 0) == 0.0


def test_what_does_not_fit_is_refused():
    with pytest.raises(DataError, match="between 0 and 1"):
        gaussian_mu(1.1, 0.1)
    with pytest.raises(DataError, match="every curve"):
        gaussian_mu(0.0, 0.0)
    with pytest.raises(DataError, match="do not fit"):
        gaussian_mu_of_counts(11, 10, 0, 10)
    with pytest.raises(DataError, match="out of range"):
        gaussian_epsilon(1.0, 0.0)
    with pytest.raises(DataError, match="do not fit"):
        one_run_gaussian_mu(10, 5, 6)
    with pytest.raises(DataError, match="level"):
        one_run_gaussian_mu(10, 5, 5, level=0.0)


def test_many_guesses_take_seconds():
    start = time.process_time()
    assert one_run_gaussian_mu(50_000, 10_000, 8_000) > 0.4
    assert time.process_time() - start < 5
