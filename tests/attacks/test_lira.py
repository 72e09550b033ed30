from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from edgeprivacy.attacks import attacks
from edgeprivacy.errors import DataError


def by_loop(signals, target, online, global_variance):
    """One row after the other, with scipy's normal distribution."""
    p = signals.probabilities.astype(np.float64)
    models, rows = signals.members.shape
    phi = np.empty((models, rows))
    for m in range(models):
        for r in range(rows):
            y = signals.labels[r]
            phi[m, r] = np.log(p[m, r, y]) - np.log(sum(p[m, r, k] for k in range(p.shape[2]) if k != y))
    shadows = [m for m in range(models) if m != target]
    sides = {
        side: [[phi[m, r] for m in shadows if signals.members[m, r] == side] for r in range(rows)]
        for side in (True, False)
    }
    every = {side: np.concatenate(values) for side, values in sides.items()}
    expected, pooled = np.empty(rows), 0
    for r in range(rows):
        location, width, short = {}, {}, False
        for side in (True, False):
            values = sides[side][r]
            if len(values) < 2:
                location[side], width[side] = every[side].mean(), every[side].std()
                short |= online or not side
            else:
                location[side] = np.median(values)
                width[side] = every[side].std() if global_variance else np.std(values)
                width[side] = max(width[side], 0.01 * every[side].std())  # the documented floor
        pooled += short
        inside = norm.logpdf(phi[target, r], location[True], width[True])
        outside = norm.logpdf(phi[target, r], location[False], width[False])
        tail = norm.cdf(phi[target, r], location[False], width[False])
        expected[r] = inside - outside if online else tail
    return expected, pooled


@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize("global_variance", [True, False])
@pytest.mark.parametrize(("models", "target"), [(6, 0), (14, 13)])
def test_matches_a_loop_of_scipy(make_signals, online, global_variance, models, target):
    signals = make_signals(models=models, rows=120)
    name = "lira." + ("online" if online else "offline") + (".global" if global_variance else "")
    scores = attacks[name](signals, target)
    expected, pooled = by_loop(signals, target, online, global_variance)
    assert scores.pooled_rows == pooled
    assert (pooled > 0) == (models == 6)
    values = scores.values if online else norm.cdf(scores.values)
    np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-9)


def test_rows_in_several_blocks_match_rows_alone(make_signals):
    signals = make_signals(models=7, rows=5000, classes=2, population=2)
    scores = attacks["lira.offline"](signals, 0).values
    phi, out = signals.logit_confidence, ~signals.members
    for r in (0, 2047, 2048, 4999):
        values = phi[1:, r][out[1:, r]]
        if len(values) >= 2:
            assert scores[r] == pytest.approx((phi[0, r] - np.median(values)) / np.std(values), rel=1e-9)


def test_finds_members_of_gaussian_models(make_signals):
    """Known optimum: with gain 3 and unit noise the ideal AUC is Φ(3/√2) = 0.983."""
    signals = make_signals(models=65, rows=1500, gain=3.0, population=2)
    for name, least in (("lira.online", 0.96), ("lira.online.global", 0.97), ("lira.offline", 0.95)):
        area = roc_auc_score(signals.members[0], attacks[name](signals, 0).values)
        assert least < area < 0.99


def test_offline_is_one_sided(make_signals):
    signals = make_signals(models=9, rows=50)
    raised = signals.probabilities.copy()
    raised[0] = 1e-6
    raised[0, np.arange(50), signals.labels] = 1 - 4e-6
    lowered = signals.probabilities.copy()
    lowered[0] = 0.25
    lowered[0, np.arange(50), signals.labels] = 1e-9
    high = attacks["lira.offline"](replace(signals, probabilities=raised), 0).values
    low = attacks["lira.offline"](replace(signals, probabilities=lowered), 0).values
    assert (high > 1).all() and (low < -1).all()


def test_agreeing_shadows_have_a_floor_under_their_variance(make_signals):
    signals = make_signals(models=9, rows=50)
    equal = signals.probabilities.copy()
    equal[1:, 0] = equal[1, 0]
    scores = attacks["lira.offline"](replace(signals, probabilities=equal), 0).values
    phi = replace(signals, probabilities=equal).logit_confidence
    spread = phi[1:][~signals.members[1:]].std()
    assert scores[0] == pytest.approx((phi[0, 0] - phi[1, 0]) / (0.01 * spread), rel=1e-9)


def test_nothing_known_of_members_is_an_error(make_signals):
    signals = make_signals()
    nobody = replace(signals, members=np.zeros_like(signals.members))
    with pytest.raises(DataError, match="known membership"):
        attacks["lira.online"](nobody, 0)
    assert np.isfinite(attacks["lira.offline"](nobody, 0).values).all()
