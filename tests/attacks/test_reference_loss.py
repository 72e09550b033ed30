"""Attack-R, difficulty calibration and LiRA's other variances against loops and scipy."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from edgeprivacy.attacks import attacks, score_target
from edgeprivacy.attacks.lira_variants import student_log_density
from edgeprivacy.attacks.reference_loss import empirical_cdf


def test_attack_r_interpolates_between_sorted_losses(make_signals):
    signals = make_signals(models=9, rows=80)
    scores = score_target(attacks["attack-r"], signals, 2).values
    for row in range(80):
        losses = [signals.loss[m, row] for m in range(9) if m != 2 and not signals.members[m, row]]
        points = np.array([0.0, *sorted(losses), 1000.0])
        expected = 1 - np.interp(signals.loss[2, row], points, np.linspace(0, 1, len(points)))
        assert scores[row] == pytest.approx(expected, abs=1e-9)


def test_the_distribution_of_one_sample_and_of_none():
    values = np.array([0.0, 1.0, 2.0, 5000.0])
    samples, chosen = np.full((1, 4), 2.0), np.ones((1, 4), bool)
    np.testing.assert_allclose(empirical_cdf(values, samples, chosen), [0.0, 0.25, 0.5, 1.0])
    np.testing.assert_allclose(empirical_cdf(values, samples, ~chosen), [0.0, 0.001, 0.002, 1.0])


def test_equal_losses_count_half():
    ones = np.ones((4, 3))
    chosen = np.array([[1, 1, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0]], bool)
    np.testing.assert_allclose(empirical_cdf(np.ones(3), ones, chosen), [0.5, 0.5, 0.001])


def test_difficulty_is_a_difference_of_means(make_signals):
    signals = make_signals(models=6, rows=60)
    scores = score_target(attacks["difficulty"], signals, 1)
    for row in range(60):
        losses = [signals.loss[m, row] for m in range(6) if m != 1 and not signals.members[m, row]]
        if losses:
            assert scores.values[row] == pytest.approx(np.mean(losses) - signals.loss[1, row])
    nobody = [all(signals.members[m, row] for m in range(6) if m != 1) for row in range(60)]
    assert scores.pooled_rows == sum(nobody)


def test_a_partner_is_not_compared_with(make_signals):
    from dataclasses import replace

    signals = make_signals(models=6, rows=60)
    members = signals.members.copy()
    members[1] = ~members[0]
    paired = replace(signals, members=members, partner=np.array([1, 0, -1, -1, -1, -1]))
    changed = paired.probabilities.copy()
    changed[1] = changed[1, ::-1]
    other = replace(paired, probabilities=changed)
    for name in ("attack-r", "difficulty"):
        one, two = (score_target(attacks[name], s, 0).values for s in (paired, other))
        np.testing.assert_array_equal(one, two)


def test_equal_variances_make_a_linear_score(make_signals):
    signals = make_signals(models=17, rows=50)
    scores = score_target(attacks["lira.online.equal"], signals, 0).values
    phi, members = signals.logit_confidence, signals.members
    inside = np.concatenate([phi[1:][members[1:][:, r], r] for r in range(50)])
    sigma2 = inside.var()
    for row in range(50):
        ins, outs = phi[1:, row][members[1:, row]], phi[1:, row][~members[1:, row]]
        expected = stats.norm.logpdf(phi[0, row], np.median(ins), np.sqrt(sigma2))
        expected -= stats.norm.logpdf(phi[0, row], np.median(outs), np.sqrt(sigma2))
        assert scores[row] == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_the_predictive_is_a_student_t():
    rng = np.random.default_rng(0)
    samples, chosen, values = rng.normal(size=(7, 30)), rng.random((7, 30)) < 0.6, rng.normal(size=30)
    chosen[:, 0] = False
    density, none = student_log_density(values, samples, chosen)
    assert none.tolist() == [True] + [not chosen[:, r].any() for r in range(1, 30)]
    rows = [samples[chosen[:, r], r] for r in range(30)]
    within = sum(((x - x.mean()) ** 2).sum() for x in rows if len(x)) / sum(max(len(x) - 1, 0) for x in rows)
    for row in np.flatnonzero(~none):
        x, n = rows[row], len(rows[row])
        scale2 = (1 + 1 / n) * (6 * within + ((x - x.mean()) ** 2).sum()) / (6 + n)
        expected = stats.t.logpdf(values[row], 6 + n, x.mean(), np.sqrt(scale2))
        assert density[row] == pytest.approx(expected, abs=1e-9)


def test_with_few_shadows_shrinking_helps(make_signals):
    """Averaged over targets: five shadows a row say little of its variance."""
    signals = make_signals(models=6, rows=3000, gain=1.5)
    found = {
        name: np.mean(
            [
                roc_auc_score(signals.members[t], score_target(attacks[name], signals, t).values)
                for t in range(6)
            ]
        )
        for name in ("lira.online", "lira.online.shrunk")
    }
    assert found["lira.online.shrunk"] > found["lira.online"] + 0.01
