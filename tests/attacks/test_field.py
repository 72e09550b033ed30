"""The field's other attacks: parts against loops, and what each must see or must not."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from edgeprivacy.attacks import attacks, score_target
from edgeprivacy.attacks.quantile import hinge
from edgeprivacy.attacks.rmia import trimmed_mean
from edgeprivacy.attacks.salem import top_three
from edgeprivacy.errors import DataError


def test_trimmed_means_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    values, chosen = rng.normal(size=(13, 40)), rng.random((13, 40)) < 0.7
    chosen[:, 3] = False
    got = trimmed_mean(values, chosen)
    for row in range(40):
        kept = np.sort(values[chosen[:, row], row])
        cut = int(0.1 * len(kept))
        assert got[row] == pytest.approx(kept[cut : len(kept) - cut].mean() if len(kept) else 0.0)


def test_rmia_online_by_pairs(make_signals):
    signals = make_signals(models=9, rows=40, population=60)
    scores = score_target(attacks["rmia.online"], signals, 2)
    others = [m for m in range(9) if m != 2]
    p, z = signals.confidence, signals.population.confidence

    def trimmed(x):
        x = np.sort(x)
        cut = int(0.1 * len(x))
        return x[cut : len(x) - cut].mean()

    z_ratio = [z[2, k] / trimmed(z[others, k]) for k in range(60)]
    missing = 0
    for row in range(40):
        ins = [p[m, row] for m in others if signals.members[m, row]]
        outs = [p[m, row] for m in others if not signals.members[m, row]]
        sides = [trimmed(side) for side in (ins, outs) if side]
        missing += len(sides) < 2
        ratio = p[2, row] / np.mean(sides)
        assert scores.values[row] == pytest.approx(np.mean([ratio / r > 2.0 for r in z_ratio]))
    assert scores.pooled_rows == missing


def test_top_three_are_the_largest(make_signals):
    signals = make_signals(models=2, rows=6)
    got = top_three(signals, np.array([0, 1]), np.array([2, 5]))
    for features, (model, row) in zip(got, [(0, 2), (1, 5)], strict=True):
        np.testing.assert_allclose(features, sorted(signals.probabilities[model, row], reverse=True)[:3])


def test_salem_one_learns_from_one_shadow(make_signals):
    signals = make_signals(models=6, rows=200)
    changed = signals.probabilities.copy()
    changed[2:] = changed[2:, ::-1]  # of the shadows only number 1 is looked at
    for name in ("salem1", "salem2"):
        one, other = (
            score_target(attacks[name], s).values for s in (signals, replace(signals, probabilities=changed))
        )
        np.testing.assert_array_equal(one, other)


def test_salem_two_knows_nothing_of_the_row_s_own_class(make_signals):
    signals = make_signals(models=3, rows=200)
    even = signals.labels % 2 == 0
    changed = signals.probabilities.copy()
    changed[1][even] = changed[1][even][::-1]
    one, other = (
        score_target(attacks["salem2"], s).values for s in (signals, replace(signals, probabilities=changed))
    )
    np.testing.assert_array_equal(one[even], other[even])  # learned from odd classes
    assert not np.array_equal(one[~even], other[~even])
    # Classes are halved by their order: two of them are two halves, whatever their numbers.
    score_target(attacks["salem2"], replace(signals, labels=2 * (signals.labels % 2), versions=()))
    with pytest.raises(DataError, match="two classes"):
        score_target(attacks["salem2"], replace(signals, labels=np.zeros_like(signals.labels), versions=()))


def test_salem_three_is_the_largest_probability(make_signals):
    signals = make_signals(models=1, rows=30)
    np.testing.assert_allclose(
        score_target(attacks["salem3"], signals).values, [max(p) for p in signals.probabilities[0]], rtol=1e-6
    )


def test_shokri_keeps_classes_apart_and_counts_those_that_share(make_signals):
    signals = make_signals(models=4, rows=300)
    labels = signals.labels.copy()
    labels[:] = np.where(labels == 4, 0, labels)
    labels[:5] = 4  # three shadows show it 15 times: too few for a network of its own
    few = replace(signals, labels=labels, versions=())
    assert score_target(attacks["shokri"], few).pooled_rows == 5
    assert score_target(attacks["shokri"], replace(signals, versions=())).pooled_rows == 0
    # Another class's rows change nothing for a class that has a network of its own.
    ones = signals.labels == 1
    mixed = signals.probabilities.copy()
    mixed[1:][:, ones] = mixed[1:][:, ones][:, ::-1]
    same = [
        score_target(attacks["shokri"], replace(signals, probabilities=p, versions=())).values
        for p in (signals.probabilities, mixed)
    ]
    first = signals.labels == 0  # fitted before the changed class, with the same seeds
    np.testing.assert_array_equal(same[0][first], same[1][first])
    assert not np.array_equal(same[0][ones], same[1][ones])


def test_hinge_is_the_gap_of_logarithms():
    p = np.array([[0.7, 0.2, 0.1], [0.0, 0.4, 0.6]], np.float32)
    got = hinge(p, np.array([0, 0]), 1e-3)
    np.testing.assert_allclose(got, [np.log(0.7 / 0.2), np.log(1e-3 / 0.6)], rtol=1e-6)


def test_quantile_learns_from_the_population_alone(make_signals):
    signals = make_signals(models=5, rows=300)
    scores = score_target(attacks["quantile"], signals).values
    # Members are not what it is fitted to: the scores of the target's own outsiders are standard.
    outside = scores[~signals.members[0]]
    assert abs(np.median(outside)) < 0.8 and 0.5 < outside.std() < 3
    alone = replace(
        signals,
        versions=(),
        probabilities=signals.probabilities[:1],
        members=signals.members[:1],
        audited=signals.audited[:1],
        population=replace(signals.population, probabilities=signals.population.probabilities[:1]),
        gathered={},
    )
    one = score_target(attacks["quantile"], alone).values
    assert roc_auc_score(signals.members[0], scores) > roc_auc_score(signals.members[0], one) + 0.02


def test_the_ladder_sees_every_version(make_signals):
    signals = make_signals(models=5, rows=200, versions=2)
    for name in ("trajectory", "seqmia"):
        base = score_target(attacks[name], signals).values
        for number in range(2):
            versions = list(signals.versions)
            versions[number] = replace(
                versions[number], probabilities=versions[number].probabilities[:, ::-1].copy()
            )
            other = score_target(attacks[name], replace(signals, versions=tuple(versions))).values
            assert not np.array_equal(base, other)
    features = attacks["trajectory"].features(signals, np.array([1]), np.array([4]))
    expected = [v.loss[1, 4] for v in (*signals.versions, signals)]
    np.testing.assert_allclose(features[0], expected)
    assert attacks["seqmia"].features(signals, np.array([1]), np.array([4])).shape == (1, 15)
