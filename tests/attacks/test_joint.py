"""Attacks on several versions: closed forms, naive loops, and what a version set must not change."""

import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.metrics import roc_auc_score

from edgeprivacy.attacks import attacks, score_target
from edgeprivacy.attacks.covariances import likeliest_shrinkage, shrunken_gaussians
from edgeprivacy.errors import DataError

JOINT = [
    *("joint.lira", "joint.rmia", "joint.difference", "joint.ratio", "joint.back-front", "joint.delta"),
    *("joint.mean", "joint.lira.global"),
]


def test_gaussians_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    values, chosen = rng.normal(size=(9, 12, 3)) @ rng.normal(size=(3, 3)), rng.random((9, 12)) < 0.6
    chosen[:, 0], chosen[1:, 1] = False, False
    chosen[0, 1] = True
    mean, covariance, pooled = shrunken_gaussians(values, chosen, 8.0)
    deviations = [values[chosen[:, r], r] - values[chosen[:, r], r].mean(axis=0) for r in range(1, 12)]
    freedom = [len(d) - 1 for d in deviations]
    pool = sum(d.T @ d for d in deviations) / sum(freedom)
    pool = pool + 1e-4 * np.diag(np.diag(pool))
    for row in range(2, 12):
        mine = values[chosen[:, row], row]
        weight = (len(mine) - 1) / (len(mine) - 1 + 8.0)
        expected = weight * np.cov(mine.T) + (1 - weight) * pool + 1e-4 * np.diag(np.diag(pool))
        np.testing.assert_allclose(covariance[row], expected, rtol=1e-9)
        np.testing.assert_allclose(mean[row], mine.mean(axis=0))
    assert pooled.tolist() == [True, True] + [False] * 10
    together = np.concatenate([values[chosen[:, r], r] for r in range(12)])
    np.testing.assert_allclose(mean[0], together.mean(axis=0))
    np.testing.assert_allclose(np.diag(covariance[0]), together.var(axis=0), rtol=1e-2)


def test_joint_lira_is_the_ratio_of_two_densities(make_signals):
    signals = make_signals(models=17, rows=40)
    scores = score_target(attacks["joint.lira"], signals, 3).values
    phi = np.stack([v.logit_confidence for v in (*signals.versions, signals)], axis=2)
    others = np.arange(17) != 3
    inside, outside = (
        shrunken_gaussians(phi[others], side, likeliest_shrinkage(phi[others], side))
        for side in (signals.members[others], ~signals.members[others])
    )
    for row in range(40):
        expected = multivariate_normal.logpdf(phi[3, row], inside[0][row], inside[1][row])
        expected -= multivariate_normal.logpdf(phi[3, row], outside[0][row], outside[1][row])
        assert scores[row] == pytest.approx(expected, rel=1e-8, abs=1e-8)


def test_rows_alike_are_pooled_and_rows_unlike_are_not():
    rng = np.random.default_rng(0)
    alike = rng.normal(size=(64, 200, 3))
    unlike = alike * rng.choice([0.1, 10.0], size=(1, 200, 3))
    everyone = np.ones((64, 200), dtype=bool)
    assert likeliest_shrinkage(alike, everyone) == 1024
    assert likeliest_shrinkage(unlike, everyone) == 4
    assert likeliest_shrinkage(alike[:1], everyone[:1]) == 1024  # nothing to judge by


def test_a_version_that_repeats_another_adds_next_to_nothing(make_signals):
    signals = make_signals(models=17, rows=400, versions=1)
    same = replace(
        signals,
        versions=(replace(signals.versions[0], probabilities=signals.probabilities),) * 3,
        has_original=False,
    )
    one = replace(same, versions=same.versions[:1])
    members = signals.members[0]
    few, many = (roc_auc_score(members, score_target(attacks["joint.lira"], s).values) for s in (one, same))
    assert many == pytest.approx(few, abs=0.01)
    single = roc_auc_score(members, score_target(attacks["lira.online"], signals).values)
    assert few == pytest.approx(single, abs=0.05)


def test_independent_looks_add_up(make_signals):
    """Two versions with noise of their own tell more than the best of them."""
    signals = make_signals(models=33, rows=2000, gain=1.0, versions=3)
    members = signals.members[0]

    def auc(name, of):
        return roc_auc_score(members, score_target(attacks[name], of).values)

    alone = replace(signals, versions=())
    assert auc("joint.lira", signals) > auc("lira.online", alone) + 0.01
    assert auc("joint.rmia", signals) > auc("rmia.offline", alone) + 0.005


def test_joint_rmia_with_the_same_version_twice_is_rmia(make_signals):
    signals = make_signals(models=5, rows=100, versions=1)
    own = replace(
        signals.versions[0], probabilities=signals.probabilities, population=signals.population, name="again"
    )
    twice = score_target(attacks["joint.rmia"], replace(signals, versions=(own,))).values
    once = score_target(attacks["rmia.offline"], signals).values
    np.testing.assert_allclose(twice, once, atol=1e-12)


def test_the_change_is_between_the_first_version_and_the_attacked_one(make_signals):
    signals = make_signals(models=9, rows=50)
    difference, ratio = attacks["joint.difference"], attacks["joint.ratio"]
    first = signals.versions[0]
    np.testing.assert_allclose(difference.change(signals), signals.logit_confidence - first.logit_confidence)
    p, q = signals.confidence, first.confidence
    np.testing.assert_allclose(ratio.change(signals), np.log(p / q), rtol=1e-6, atol=1e-9)


def test_the_mean_of_equal_versions_is_the_version(make_signals):
    signals = make_signals(models=9, rows=60, versions=1)
    own = replace(signals.versions[0], probabilities=signals.probabilities, name="again")
    twice = score_target(attacks["joint.mean"], replace(signals, versions=(own,))).values
    once = score_target(attacks["lira.online.global"], signals).values
    np.testing.assert_allclose(twice, once, rtol=1e-9, atol=1e-9)


def test_one_covariance_for_all_rows_is_that_of_a_loop(make_signals):
    signals = make_signals(models=9, rows=40, versions=2)
    scores = score_target(attacks["joint.lira.global"], signals, 2).values
    phi = np.stack([v.logit_confidence for v in (*signals.versions, signals)], axis=2)
    others = [model for model in range(9) if model != 2]
    sides = []
    for side in (signals.members, ~signals.members):
        groups = [phi[[m for m in others if side[m, row]], row] for row in range(40)]
        assert min(map(len, groups)) >= 2
        apart = np.concatenate([group - group.mean(axis=0) for group in groups])
        covariance = apart.T @ apart / sum(len(group) - 1 for group in groups)
        covariance[np.diag_indices(3)] *= 2
        sides.append(
            [multivariate_normal.logpdf(phi[2, r], g.mean(axis=0), covariance) for r, g in enumerate(groups)]
        )
    np.testing.assert_allclose(scores, np.subtract(*sides), rtol=1e-8, atol=1e-8)


def test_rows_without_two_shadows_take_the_mean_of_all(make_signals):
    signals = make_signals(models=9, rows=60, versions=2)
    members = signals.members.copy()
    members[1:, :5], members[1, :5] = False, True  # one model in, seven out
    few = replace(signals, members=members)
    for name in ("joint.mean", "joint.lira.global"):
        found = score_target(attacks[name], few)
        assert found.pooled_rows >= 5 and np.isfinite(found.values).all()


def test_few_shadows_carry_a_mean_where_they_cannot_carry_a_covariance(make_signals):
    """Ten versions that differ by noise alone, nine models."""
    signals = make_signals(models=9, rows=3000, gain=1.0, versions=9)
    members = signals.members[0]
    auc = {n: roc_auc_score(members, score_target(attacks[n], signals).values) for n in JOINT}
    alone = roc_auc_score(members, score_target(attacks["lira.online.global"], signals).values)
    assert min(auc["joint.mean"], auc["joint.lira.global"]) > max(auc["joint.lira"], alone)


def test_of_more_versions_the_whole_change_or_its_largest_step_counts(make_signals):
    signals = make_signals(models=9, rows=30, versions=3)
    back_front, delta = attacks["joint.back-front"], attacks["joint.delta"]
    phi = [v.logit_confidence for v in (*signals.versions, signals)]
    np.testing.assert_allclose(back_front.change(signals), phi[3] - phi[0])
    largest = delta.change(signals)
    for model in range(9):
        for row in range(30):
            steps = [phi[i + 1][model, row] - phi[i][model, row] for i in range(3)]
            assert largest[model, row] == pytest.approx(max(steps))
    two = replace(signals, versions=signals.versions[:1])
    for attack in (back_front, delta):
        assert "needs 3 versions" in attack.missing(two, None)
        assert np.isfinite(score_target(attack, signals).values).all()


@pytest.mark.parametrize("name", JOINT)
def test_a_single_version_is_refused(name, make_signals):
    signals = make_signals(versions=0)
    assert re.search("needs [23] versions", attacks[name].missing(signals, None))
    with pytest.raises(DataError, match="versions"):
        attacks[name](signals)


def test_versions_must_be_of_the_same_rows(make_signals):
    signals = make_signals()
    version = signals.versions[0]
    with pytest.raises(DataError, match="v0' did not see the same rows"):
        replace(signals, versions=(replace(version, labels=version.labels[::-1].copy()),))
    with pytest.raises(DataError, match="other models, rows or classes"):
        replace(signals, versions=(replace(version, probabilities=version.probabilities[1:]),))
