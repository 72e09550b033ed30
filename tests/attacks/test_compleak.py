"""CompLeak's attacks: features by a loop, learners by scikit-learn alone, honesty on nulls."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from edgeprivacy.attacks import attacks, score_target, scores_for_all_targets, shadow_calibration
from edgeprivacy.attacks.compleak import sorted_features
from edgeprivacy.attacks.compleak_mr import ManyVersions
from edgeprivacy.attacks.meta import balanced_pairs, fold_of_pairs, forest, out_of_fold

QUICK = [
    *("compleak.nr", "compleak.nr.lr", "compleak.nr.unlabelled", "compleak.nr.unlabelled.lr"),
    *("compleak.sr", "compleak.sr.lr", "compleak.sr.unlabelled", "compleak.sr.unlabelled.lr"),
    *("compleak.mr", "compleak.mr.nr", "compleak.mr.pairs"),
]


def test_features_are_sorted_by_the_original(make_signals):
    signals = make_signals(models=3, rows=30)
    original, models, rows = signals.versions[0], np.array([0, 2, 1, 1]), np.array([4, 9, 9, 29])
    got = sorted_features(original, signals, models, rows, labelled=True)
    for features, model, row in zip(got, models, rows, strict=True):
        triples = [
            (original.probabilities[model, row, k], k, signals.probabilities[model, row, k]) for k in range(5)
        ]
        triples.sort()  # ascending, ties by class
        expected = [t[0] for t in triples] + [t[2] for t in triples]
        expected += [float(t[1] == signals.labels[row]) for t in triples]
        np.testing.assert_array_equal(features, np.array(expected))


def test_ties_of_the_original_keep_the_order_of_the_classes(make_signals):
    signals = make_signals(models=2, rows=3)
    flat = replace(signals.versions[0], probabilities=np.full_like(signals.probabilities, 0.2))
    rows = np.arange(3)
    got = sorted_features(flat, signals, np.zeros(3, int), rows, labelled=False)
    np.testing.assert_array_equal(got[:, 5:], signals.probabilities[0])


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("compleak.nr.unlabelled.lr", lambda p, o, e: [p]),
        ("compleak.nr.lr", lambda p, o, e: [p, e]),
        (
            "compleak.sr.unlabelled.lr",
            lambda p, o, e: [np.sort(o, 1), np.take_along_axis(p, np.argsort(o, 1), 1)],
        ),
        (
            "compleak.sr.lr",
            lambda p, o, e: [np.take_along_axis(a, np.argsort(o, 1), 1) for a in (o, p, e)],
        ),
    ],
)
def test_logistic_regression_is_that_of_the_features(name, parts, make_signals):
    signals = make_signals(models=4, rows=120)
    eye = np.eye(5)[signals.labels]

    def features(model):
        p, o = (v.probabilities[model].astype(float) for v in (signals, signals.versions[0]))
        return np.concatenate(parts(p, o, eye), axis=1)

    x = np.concatenate([features(m) for m in (1, 2, 3)])
    y = signals.members[1:].ravel()
    scores = score_target(attacks[name], signals).values
    # The fit leaves out the surplus of the larger side: nearly the same numbers.
    scaler = StandardScaler().fit(x)
    model = LogisticRegression(max_iter=400).fit(scaler.transform(x), y)
    expected = model.predict_proba(scaler.transform(features(0)))[:, 1]
    assert np.corrcoef(scores, expected)[0, 1] > 0.97


def test_the_forest_has_the_released_leaves(make_signals):
    made = forest(7)(np.random.default_rng(0))
    assert isinstance(made, RandomForestClassifier)
    assert (made.n_estimators, made.min_samples_leaf) == (7, 30)


def test_the_published_sizes_are_those_of_the_released_code(monkeypatch):
    monkeypatch.undo()  # not the small forests of the other tests
    for name in ("compleak.nr.faithful", "compleak.sr.faithful", "compleak.mr.faithful"):
        assert attacks[name].learner(np.random.default_rng(0)).n_estimators == 500
        assert attacks[name].most_pairs is None


def test_pairs_are_balanced_and_bounded(make_signals):
    pairs = shadow_calibration(make_signals(models=5, rows=100), 0)
    few = balanced_pairs(pairs, 50, np.random.default_rng(0))
    assert few.members.sum() == 25 and len(few.rows) == 50
    every = balanced_pairs(pairs, None, np.random.default_rng(0))
    assert every.members.sum() * 2 == len(every.rows) == 2 * min(pairs.members.sum(), (~pairs.members).sum())
    keys = set(zip(pairs.models, pairs.rows, pairs.members, strict=True))
    assert keys.issuperset(zip(few.models, few.rows, few.members, strict=True))


def test_folds_keep_models_whole(make_signals):
    pairs = shadow_calibration(make_signals(models=8, rows=40), 0)
    fold = fold_of_pairs(pairs, np.random.default_rng(0))
    assert len(np.unique(fold)) == 3
    for model in np.unique(pairs.models):
        assert len(np.unique(fold[pairs.models == model])) == 1


def test_the_second_stage_sees_probabilities_of_rows_that_the_first_did_not():
    rng = np.random.default_rng(0)
    noise, members = rng.normal(size=(1200, 4)), rng.random(1200) < 0.5
    fold = np.arange(1200) % 3
    honest = out_of_fold(forest(30), noise, members, fold, np.random.default_rng(0))
    own = forest(30)(rng).fit(noise, members).predict_proba(noise)[:, 1]
    assert abs(roc_auc_score(members, honest) - 0.5) < 0.04 < roc_auc_score(members, own) - 0.6


def test_the_networks_losses_are_each_version_s_own(make_signals):
    signals = make_signals(models=3, rows=20)
    attack = attacks["compleak.mr"]
    models, rows = np.array([1, 2]), np.array([3, 7])
    got = attack._losses(signals, models, rows)
    assert len(got) == 2  # the original has none
    for values, version in zip(got, (signals.versions[1], signals), strict=True):
        expected = -np.log(version.probabilities[models, rows, signals.labels[rows]])
        np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_without_the_original_it_is_not_looked_at(make_signals):
    signals = make_signals(models=5, rows=150)
    other = replace(signals.versions[0], probabilities=signals.versions[0].probabilities[:, ::-1].copy())
    changed = replace(signals, versions=(other, *signals.versions[1:]))
    for name in ("compleak.mr.nr", "compleak.mr.pairs"):
        same = [score_target(attacks[name], s, seed=1).values for s in (signals, changed)]
        np.testing.assert_array_equal(same[0], same[1])
    different = [score_target(attacks["compleak.mr"], s, seed=1).values for s in (signals, changed)]
    assert not np.array_equal(different[0], different[1])


def test_two_compressed_versions_are_needed(make_signals):
    one = make_signals(versions=1)
    pairs = shadow_calibration(one, 0)
    for name in ("compleak.mr", "compleak.mr.nr"):
        assert "2 compressed versions" in attacks[name].missing(one, pairs)
    none = make_signals(versions=0)
    assert "needs the original" in attacks["compleak.sr"].missing(none, pairs)
    assert isinstance(attacks["compleak.mr"], ManyVersions)


@pytest.mark.parametrize("name", QUICK)
def test_no_leak_no_finding(name, make_signals):
    signals = make_signals(models=7, rows=400, gain=0.0)
    aucs = [
        roc_auc_score(members, values)
        for members, values in zip(
            signals.members, scores_for_all_targets(attacks[name], signals), strict=True
        )
    ]
    # Seven targets of 400 rows: the mean's standard deviation is about 0.011.
    assert abs(np.mean(aucs) - 0.5) < 0.035


def test_several_versions_tell_more_than_one(make_signals, monkeypatch):
    signals = make_signals(models=9, rows=600, gain=1.0, versions=3)
    alone = replace(signals, versions=(), has_original=False)

    def auc(name, of):
        return roc_auc_score(of.members[0], score_target(attacks[name], of).values)

    monkeypatch.undo()
    assert auc("compleak.mr", signals) > auc("compleak.nr", alone) + 0.02
