"""DeLong's interval of the AUC, against the definition in loops and by coverage."""

import numpy as np
import pytest
from scipy.stats import norm

from edgeprivacy.metrics.delong import auc_limits, auc_variance
from edgeprivacy.metrics.roc import Roc


@pytest.mark.parametrize("decimals", [1, 6])
def test_variance_by_loops(decimals):
    rng = np.random.default_rng(2)
    inside, outside = np.round(rng.normal(1, 1, 23), decimals), np.round(rng.normal(0, 1, 31), decimals)

    def beats(a, b):
        return 1.0 if a > b else 0.5 if a == b else 0.0

    by_member = [sum(beats(a, b) for b in outside) / 31 for a in inside]
    by_other = [sum(beats(a, b) for a in inside) / 23 for b in outside]
    expected = np.var(by_member, ddof=1) / 23 + np.var(by_other, ddof=1) / 31
    roc = Roc.from_scores(np.append(inside, outside), np.arange(54) < 23)
    assert auc_variance(roc) == pytest.approx(expected)


@pytest.mark.parametrize("shift", [0.0, 2.0])
@pytest.mark.parametrize("level", [0.95, 0.999])
def test_coverage(shift, level):
    rng, truth, missed = np.random.default_rng(1), norm.cdf(shift / np.sqrt(2)), 0
    members = np.arange(120) < 50
    for _ in range(1000):
        low, high = auc_limits(Roc.from_scores(rng.normal(size=120) + shift * members, members), level)
        missed += not low <= truth <= high
    assert missed <= (75 if level == 0.95 else 8)  # 50 and 1 expected; 7.5 % and 0.8 % are let pass


def test_nothing_that_varies_still_has_a_width():
    members = np.arange(40) < 20
    low, high = auc_limits(Roc.from_scores(members * 1.0, members))
    assert (round(low, 3), high) == (0.832, 1.0)
    low, high = auc_limits(Roc.from_scores(np.zeros(40), members))
    assert 0.2 < low < 0.35 < 0.65 < high < 0.8
    assert auc_variance(Roc.from_scores(np.arange(3.0), np.array([True, False, True]))) >= 0.0
