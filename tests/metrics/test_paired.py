"""The paired bootstrap against a naive one, and what must hold for any two attacks."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from edgeprivacy.metrics.paired import _Sorted, paired_differences


def step_tpr(scores, members, fpr):
    """By trying every threshold."""
    best = 0.0
    for threshold in np.unique(scores):
        called = scores >= threshold
        if called[~members].sum() <= fpr * (~members).sum() + 1e-9:
            best = max(best, called[members].mean())
    return best


def rows(seed=0, count=160, ties=False):
    rng = np.random.default_rng(seed)
    members = np.arange(count) < count // 2
    common = rng.normal(size=count) + members
    first, second = (common + 0.5 * rng.normal(size=count) for _ in range(2))
    return (np.round(first), np.round(second), members) if ties else (first, second, members)


@pytest.mark.parametrize("ties", [False, True])
def test_each_resample_is_measured_as_a_loop_would(ties):
    first, _, members = rows(ties=ties)
    rng = np.random.default_rng(1)
    picks = np.stack([np.concatenate([rng.choice(80, 80), 80 + rng.choice(80, 80)]) for _ in range(5)])
    weights = np.stack([np.bincount(pick, minlength=160) for pick in picks]).astype(float)
    got = _Sorted(first, members).metrics(weights, np.array([8, 0]))
    for pick, values in zip(picks, got, strict=True):
        scores, inside = first[pick], members[pick]
        expected = [
            roc_auc_score(inside, scores),
            step_tpr(scores, inside, 0.1),
            step_tpr(scores, inside, 0.0),
        ]
        np.testing.assert_allclose(values, expected, atol=1e-12)


def test_the_interval_is_that_of_a_naive_bootstrap():
    first, second, members = rows(count=400)
    got = paired_differences(first, second, members, (0.1,), resamples=4000)
    rng, naive = np.random.default_rng(5), []
    for _ in range(1500):
        pick = np.concatenate([rng.choice(200, 200), 200 + rng.choice(200, 200)])
        naive.append(roc_auc_score(members[pick], first[pick]) - roc_auc_score(members[pick], second[pick]))
    np.testing.assert_allclose(got.auc.ci, np.quantile(naive, [0.025, 0.975]), atol=0.004)
    assert got.auc.value == pytest.approx(roc_auc_score(members, first) - roc_auc_score(members, second))


def test_an_attack_does_not_beat_itself():
    first, _, members = rows()
    got = paired_differences(first, 3 * first + 1, members, (0.01, 0.1))
    assert got.auc.value == 0 and got.auc.ci == (0, 0)
    assert all(entry.value == 0 and entry.ci == (0, 0) for entry in got.tpr)


def test_exchanging_the_two_changes_the_sign():
    first, second, members = rows()
    one, other = (
        paired_differences(first, second, members, (0.1,)),
        paired_differences(second, first, members, (0.1,)),
    )
    assert one.auc.value == -other.auc.value
    np.testing.assert_allclose(one.auc.ci, [-other.auc.ci[1], -other.auc.ci[0]], atol=1e-12)


def test_pairing_is_what_makes_it_sharp():
    first, second, members = rows(count=400)
    got = paired_differences(first, second, members, (0.1,))
    rng = np.random.default_rng(5)

    def one(scores):
        pick = np.concatenate([rng.choice(200, 200), 200 + rng.choice(200, 200)])
        return roc_auc_score(members[pick], scores[pick])

    apart = np.std([one(first) - one(second) for _ in range(300)])
    assert got.auc.ci[1] - got.auc.ci[0] < 0.8 * 2 * 1.96 * apart
