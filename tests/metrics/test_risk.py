"""Risks of records: Bayes by hand, reliability by loops, and recalibration of ratios that are too sure."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from edgeprivacy.errors import DataError
from edgeprivacy.metrics.risk import Recalibration, posterior, reliability


@pytest.mark.parametrize("prior", [0.5, 0.01, 0.9])
def test_posterior_is_bayes_by_hand(prior):
    inside, outside = 0.3, 0.05
    expected = prior * inside / (prior * inside + (1 - prior) * outside)
    assert posterior(np.array([math.log(inside / outside)]), prior)[0] == pytest.approx(expected)


def test_posterior_at_the_ends():
    risks = posterior(np.array([-np.inf, -800.0, 0.0, 800.0, np.inf]))
    assert risks.tolist() == [0.0, pytest.approx(0.0, abs=1e-300), 0.5, 1.0, 1.0]
    assert np.all(np.diff(risks) >= 0)


def gaussian_pairs(rng, n, shift=1.5, prior=0.5):
    """Ratios of two Gaussians, whose posterior is exact."""
    members = rng.random(n) < prior
    phi = rng.normal(size=n) + shift * members
    return shift * phi - shift**2 / 2, members


@pytest.mark.parametrize("prior", [0.5, 0.1])
def test_exact_risks_are_reliable_and_others_are_not(prior):
    ratios, members = gaussian_pairs(np.random.default_rng(1), 20_000, prior=prior)
    good = reliability(posterior(ratios, prior), members)
    assert good.outside <= 1  # of ten; all are inside in 95 % of such data
    assert good.expected_error < 2 * good.error_by_chance
    sure = reliability(posterior(3 * ratios, prior), members)
    assert sure.outside > 3
    assert sure.expected_error > 5 * sure.error_by_chance


def test_all_bins_hold_together_as_often_as_they_should():
    rng, failed = np.random.default_rng(6), 0
    for _ in range(200):
        ratios, members = gaussian_pairs(rng, 300)
        failed += reliability(posterior(ratios), members, bins=5).outside > 0
    assert failed <= 18  # 19 or more: 0.5 % at exactly 5 %


def test_bins_by_loops():
    risks = np.array([0.1, 0.9, 0.2, 0.8, 0.2, 0.2, 0.7, 0.95])
    members = np.array([False, True, False, True, True, False, False, True])
    result = reliability(risks, members, bins=2, level=0.9)
    # The cut lies at the fifth smallest, 0.7; a bin has equal risks whole.
    groups = [[0, 2, 4, 5], [1, 3, 6, 7]]
    error = 0.0
    for index, rows in enumerate(groups):
        assert result.predicted[index] == pytest.approx(sum(risks[r] for r in rows) / 4)
        assert result.observed[index] == sum(members[r] for r in rows) / 4
        interval = binomtest(int(members[rows].sum()), 4).proportion_ci(0.95, method="exact")
        assert (result.low[index], result.high[index]) == pytest.approx((interval.low, interval.high))
        error += abs(risks[rows].sum() - members[rows].sum()) / 8
    assert result.expected_error == pytest.approx(error)
    assert result.records.tolist() == [4, 4]
    assert result.bin_level == pytest.approx(0.95)


def test_equal_risks_are_one_bin():
    result = reliability(np.full(100, 0.5), np.arange(100) < 55)
    assert (result.records.tolist(), result.outside) == ([100], 0)
    assert result.expected_error == pytest.approx(0.05)


@pytest.mark.parametrize("method", ["logistic", "isotonic"])
@pytest.mark.parametrize("prior", [0.5, 0.2])
def test_recalibration_on_shadows_mends_ratios_that_are_too_sure(method, prior):
    rng = np.random.default_rng(8)
    ratios, members = gaussian_pairs(rng, 20_000, prior=0.3)  # the share of members in the shadows is another
    mended = Recalibration(5 * ratios + 4, members, method)
    ratios, members = gaussian_pairs(rng, 20_000, prior=prior)
    before = reliability(posterior(5 * ratios + 4, prior), members)
    after = reliability(mended(5 * ratios + 4, prior), members)
    assert before.expected_error > 0.1
    assert after.expected_error < 0.015
    assert np.abs(mended(5 * ratios + 4, prior) - posterior(ratios, prior)).mean() < 0.015


@pytest.mark.parametrize("method", ["logistic", "isotonic"])
def test_recalibration_never_falls_and_is_never_certain(method):
    ratios, members = gaussian_pairs(np.random.default_rng(0), 400, shift=6.0)
    risks = Recalibration(ratios, members, method)(np.array([-np.inf, -1e6, -1.0, 0.0, 1.0, 1e6, np.inf]))
    assert np.all(np.diff(risks) >= 0)
    if method == "isotonic":
        assert (risks[0], risks[-1]) == pytest.approx((0.5 / 400, 1 - 0.5 / 400))


@pytest.mark.parametrize("method", ["logistic", "isotonic"])
def test_ratios_that_are_upside_down_or_empty_give_the_prior(method):
    ratios, members = gaussian_pairs(np.random.default_rng(0), 5000)
    assert Recalibration(-ratios, members, method)(ratios[:9], 0.3) == pytest.approx(
        np.full(9, 0.3), abs=0.02
    )
    same = Recalibration(np.zeros(5000), members, method)
    assert same(np.array([0.0, 7.0, np.inf]), 0.3) == pytest.approx(np.full(3, 0.3), abs=1e-6)


def test_what_does_not_fit_is_refused():
    with pytest.raises(DataError, match="prior"):
        posterior(np.zeros(2), 1.0)
    with pytest.raises(DataError, match="not a number"):
        posterior(np.array([np.nan]))
    with pytest.raises(DataError, match="probability"):
        reliability([0.5, 1.5], [True, False])
    with pytest.raises(DataError, match="bins"):
        reliability([0.5, 0.5], [True, False], bins=0)
    with pytest.raises(DataError, match="method"):
        Recalibration(np.zeros(2), np.array([True, False]), "magic")
    with pytest.raises(DataError, match="not a number"):
        Recalibration(np.zeros(2), np.array([True, False]))(np.array([np.nan]))
