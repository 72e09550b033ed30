from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from edgeprivacy.attacks import (
    attacks,
    cross_fit,
    decide,
    score_target,
    scores_for_all_targets,
    shadow_calibration,
    transfer_threshold,
)
from edgeprivacy.attacks.calibration import without


def test_pairs_are_the_audited_rows_of_the_other_models(make_signals):
    signals = make_signals(models=4, rows=30)
    audited = np.random.default_rng(0).random((4, 30)) < 0.7
    signals = replace(signals, audited=audited)
    pairs = shadow_calibration(signals, 1)
    found = set(zip(pairs.models.tolist(), pairs.rows.tolist(), strict=True))
    assert found == {(m, r) for m in (0, 2, 3) for r in range(30) if audited[m, r]}
    assert len(pairs.rows) == len(found)
    assert np.array_equal(pairs.members, signals.members[pairs.models, pairs.rows])
    assert shadow_calibration(make_signals(models=1), 0) is None


@pytest.mark.parametrize("name", ["confidence", "lira.online", "rmia.offline", "attack-p", "gap"])
def test_all_targets_are_each_target_alone(name, make_signals):
    signals = make_signals(models=6)
    table = scores_for_all_targets(attacks[name], signals)
    for target in range(6):
        assert np.array_equal(table[target], score_target(attacks[name], signals, target).values)


def test_costly_fits_happen_twice_and_never_see_their_targets(make_signals, monkeypatch):
    from edgeprivacy.attacks import neural

    signals = make_signals(models=5, gain=3.0)
    seen = []
    fit = neural.Neural.score_many

    def spy(self, signals, targets, calibration, rng):
        seen.append((set(targets.tolist()), set(calibration.models.tolist())))
        return fit(self, signals, targets, calibration, rng)

    monkeypatch.setattr(neural.Neural, "score_many", spy)
    table = scores_for_all_targets(attacks["nn"], signals)
    assert len(seen) == 2
    assert all(not targets & fitted for targets, fitted in seen)
    assert set.union(*(targets for targets, _ in seen)) == set(range(5))
    for target in range(5):
        assert roc_auc_score(signals.members[target], table[target]) > 0.6


@pytest.mark.parametrize("name", ["confidence", "nn"])
def test_cross_fitted_scores_of_noise_find_nothing(name, make_signals):
    """200 classes of 20 rows: fitted on the measured rows, or on folds with equal shares of members in each
    class, both attacks would find members in noise."""
    signals = make_signals(models=1, rows=4000, classes=200, population=2)
    noise = np.random.default_rng(1).dirichlet(np.ones(200), (1, 4000)).astype(np.float32)
    scores = cross_fit(attacks[name], replace(signals, probabilities=noise)).values
    assert abs(roc_auc_score(signals.members[0], scores) - 0.5) < 4 * 0.0092


def test_cross_fit_covers_rows_that_are_not_audited(make_signals):
    signals = make_signals(models=1, rows=100)
    audited = np.ones((1, 100), dtype=bool)
    audited[0, :20] = False
    scores = cross_fit(attacks["confidence"], replace(signals, audited=audited))
    pairs = np.flatnonzero(audited[0])
    labels, p = signals.labels, signals.confidence[0]
    for r in range(20):
        of_class = pairs[labels[pairs] == labels[r]]
        best = max(
            (
                np.mean(p[of_class][signals.members[0, of_class]] >= t)
                - np.mean(p[of_class][~signals.members[0, of_class]] >= t),
                t,
            )
            for t in p[of_class]
        )
        assert scores.values[r] == pytest.approx(p[r] - best[1])


@pytest.mark.parametrize("name", attacks.names())
def test_decisions_ignore_the_target_s_membership(name, make_signals):
    signals = make_signals(models=7)
    flipped = signals.members.copy()
    flipped[3] = ~flipped[3]
    blind = replace(signals, members=flipped)
    scores = score_target(attacks[name], signals, 3).values
    first, second = (decide(attacks[name], s, 3, scores) for s in (signals, blind))
    assert first.threshold == second.threshold == "shadow"
    assert np.array_equal(first.members, second.members)


def test_without_shadows_thresholds_are_cross_fitted(make_signals):
    signals = make_signals(models=1, rows=2000, gain=3.0)
    for name in ("loss", "confidence", "attack-p"):
        scores = score_target(attacks[name], signals, 0).values
        decisions = decide(attacks[name], signals, 0, scores)
        assert decisions.threshold == "cross-fit"
        truth = signals.members[0]
        assert decisions.members[truth].mean() > decisions.members[~truth].mean() + 0.1
    assert decide(attacks["gap"], signals, 0, np.ones(2000)).members.all()


def test_transfer_threshold_is_that_of_the_shadows(make_signals):
    signals = make_signals(models=3, rows=200)
    threshold = transfer_threshold(attacks["loss"], signals, 0)
    loss = -np.log(
        np.take_along_axis(signals.probabilities, signals.labels[None, :, None], 2)[..., 0].astype(float)
    )
    scores, members = -loss[1:].ravel(), signals.members[1:].ravel()
    gains = [((scores[members] >= t).mean() - (scores[~members] >= t).mean()) for t in scores]
    assert threshold == pytest.approx(scores[int(np.argmax(gains))])
    assert transfer_threshold(attacks["loss"], make_signals(models=1), 0) is None


def test_signals_without_a_model_keep_what_was_computed(make_signals):
    signals = make_signals(models=4)
    before = signals.logit_confidence
    rest = without(signals, 1)
    assert np.array_equal(rest.__dict__["logit_confidence"], before[[0, 2, 3]])
    assert np.array_equal(rest.loss, signals.loss[[0, 2, 3]])
    assert np.array_equal(rest.population.loss, signals.population.loss[[0, 2, 3]])
