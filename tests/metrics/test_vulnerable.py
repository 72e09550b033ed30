"""The share of leakage that few rows carry, where the truth is known."""

import numpy as np
import pytest
from scipy.stats import norm

from edgeprivacy.errors import DataError
from edgeprivacy.metrics.roc import auc
from edgeprivacy.metrics.vulnerable import row_leakage, vulnerable_share


def audit(rng, models, shifts):
    members = rng.random((models, len(shifts))) < 0.5
    return rng.normal(size=members.shape) + members * shifts, members


def test_leakage_of_a_row_is_its_auc():
    rng = np.random.default_rng(0)
    evidence, members = audit(rng, 9, np.linspace(0, 3, 20))
    evidence = np.round(evidence)  # with ties
    members[:, 0] = True
    found = row_leakage(evidence, members)
    assert np.isnan(found[0])
    expected = [auc(evidence[:, row], members[:, row]) - 0.5 for row in range(1, 20)]
    assert found[1:] == pytest.approx(expected)


def test_a_tenth_that_carries_everything():
    shifts = np.where(np.arange(1000) < 100, 3.0, 0.0)
    result = vulnerable_share(*audit(np.random.default_rng(1), 32, shifts))
    assert result.low < result.share < result.high
    assert result.share > 0.9
    assert result.low < 1.0 < result.high
    assert result.chosen_leakage == pytest.approx(norm.cdf(3 / np.sqrt(2)) - 0.5, abs=0.04)
    assert result.mean_leakage == pytest.approx(0.1 * (norm.cdf(3 / np.sqrt(2)) - 0.5), abs=0.01)
    assert (result.rows + result.left_out, result.models) == (1000, 32)
    assert result.part == pytest.approx(0.1, abs=1e-3)


def test_rows_that_leak_alike_share_alike():
    # The honest share is a tenth in expectation; rows chosen and measured on the same models carry more.
    rng, shares, same, covered = np.random.default_rng(2), [], [], 0
    for index in range(100):
        evidence, members = audit(rng, 16, np.full(300, 0.7))
        result = vulnerable_share(evidence, members, resamples=200, seed=index)
        shares.append(result.share)
        covered += result.low <= 0.1 <= result.high
        leakage = row_leakage(evidence, members)
        leakage = leakage[np.isfinite(leakage)]
        same.append(np.sort(leakage)[-30:].sum() / leakage.sum())
    assert np.mean(shares) == pytest.approx(0.1, abs=0.005)
    assert np.mean(same) > 0.2
    assert covered >= 88


def test_more_models_choose_better():
    shifts = np.where(np.arange(2000) < 200, 1.0, 0.1)
    few, many = (vulnerable_share(*audit(np.random.default_rng(3), n, shifts)).share for n in (8, 64))
    truth = 200 * (norm.cdf(1 / np.sqrt(2)) - 0.5)
    truth /= truth + 1800 * (norm.cdf(0.1 / np.sqrt(2)) - 0.5)
    assert few < many < truth


def test_without_leakage_there_is_no_share():
    rng, given = np.random.default_rng(4), 0
    for index in range(100):
        result = vulnerable_share(*audit(rng, 8, np.zeros(200)), resamples=200, seed=index)
        given += result.share is not None
        assert (result.share is None) == (result.low is None) == (result.reason is not None)
    assert given <= 8  # 2.5 expected


def test_rows_without_both_kinds_are_left_out():
    evidence, members = audit(np.random.default_rng(5), 16, np.full(100, 2.0))
    members[:, :7] = True
    result = vulnerable_share(evidence, members)
    assert result.left_out >= 7
    assert result.rows + result.left_out == 100


def test_what_does_not_fit_is_refused():
    evidence, members = audit(np.random.default_rng(6), 8, np.zeros(10))
    with pytest.raises(DataError, match="alike"):
        vulnerable_share(evidence, members[:, :9])
    with pytest.raises(DataError, match="more models"):
        vulnerable_share(evidence[:3], members[:3])
    with pytest.raises(DataError, match="option"):
        vulnerable_share(evidence, members, part=1.0)
    with pytest.raises(DataError, match="both halves"):
        vulnerable_share(evidence, np.ones_like(members))
    with pytest.raises(DataError, match="finite"):
        vulnerable_share(np.full_like(evidence, np.nan), members)
