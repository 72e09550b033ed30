import numpy as np
import pytest

from edgeprivacy.attacks import Calibration, Population, Signals, attacks, score_target
from edgeprivacy.metrics.roc import Roc

P = (0.7, 0.2, 0.1)


def one_row(label):
    flags = np.zeros((1, 1), dtype=bool)
    return Signals(np.array([[P]], dtype=np.float32), np.array([label]), flags, ~flags, 1e-30)


@pytest.mark.parametrize(
    ("name", "label", "expected"),
    [
        ("loss", 0, -0.356675),
        ("entropy.global", 0, -0.801819),
        ("entropy.global", 1, -0.801819),
        ("modified-entropy.global", 0, -0.162167),
        ("modified-entropy.global", 1, -2.140867),
        ("confidence.global", 2, 0.1),
        ("gap", 0, 1.0),
        ("gap", 1, 0.0),
    ],
)
def test_published_values(name, label, expected):
    assert attacks[name](one_row(label)).values[0] == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize(("label", "phi"), [(0, 0.847298), (1, -1.386294)])
def test_logit_scaled_confidence(label, phi):
    assert one_row(label).logit_confidence[0, 0] == pytest.approx(phi, abs=1e-6)


def test_class_thresholds_by_exhaustive_search(make_signals):
    signals = make_signals(models=4, rows=120, classes=4)
    target, others = 1, [0, 2, 3]
    which, rows = np.nonzero(np.ones((3, 120), dtype=bool))
    models = np.array(others)[which]
    calibration = Calibration(models, rows, signals.members[models, rows])
    scores = attacks["confidence"](signals, target, calibration)
    p = signals.probabilities.astype(float)
    expected = np.empty(120)
    for label in range(4):
        values = [
            (p[m, r, label], signals.members[m, r])
            for m in others
            for r in range(120)
            if signals.labels[r] == label
        ]
        inside = [v for v, member in values if member]
        outside = [v for v, member in values if not member]
        best = max(
            (np.mean([v >= t for v in inside]) - np.mean([v >= t for v in outside]), t) for t, _ in values
        )
        of_class = signals.labels == label
        expected[of_class] = p[target, of_class, label] - best[1]
    np.testing.assert_allclose(scores.values, expected, atol=1e-12)
    assert scores.notes == ()


def test_class_without_nonmembers_takes_the_global_threshold():
    labels = np.array([0, 0, 0, 0, 1, 1])
    p_y = np.array([0.9, 0.8, 0.3, 0.2, 0.95, 0.99])
    p = np.empty((2, 6, 2), dtype=np.float32)
    p[:, np.arange(6), labels], p[:, np.arange(6), 1 - labels] = p_y, 1 - p_y
    members = np.array([[0] * 6, [1, 1, 0, 0, 1, 1]], dtype=bool)
    signals = Signals(p, labels, members, np.ones_like(members), 1e-30)
    calibration = Calibration(np.ones(6, dtype=int), np.arange(6), members[1])
    scores = attacks["confidence"](signals, 0, calibration)
    np.testing.assert_allclose(scores.values, p_y - 0.8, atol=1e-6)
    assert "1 classes" in scores.notes[0]


def test_attack_p_is_the_mid_rank():
    def outputs(p_y):
        return np.array([[[p, 1 - p] for p in p_y]], dtype=np.float32)

    flags = np.zeros((1, 4), dtype=bool)
    population = Population(outputs([0.2, 0.5, 0.5, 0.9]), np.zeros(4, dtype=int), 1e-30)
    signals = Signals(
        outputs([0.1, 0.5, 0.7, 0.95]), np.zeros(4, dtype=int), flags, ~flags, 1e-30, population
    )
    np.testing.assert_allclose(attacks["attack-p"](signals).values, [0.0, 0.5, 0.75, 1.0])


def test_the_loss_indicator_is_the_share_of_outsiders_beyond_every_member(make_signals):
    signals = make_signals(models=1, rows=500, gain=2.0)
    scores = score_target(attacks["loss-tnr"], signals).values
    np.testing.assert_array_equal(scores, score_target(attacks["loss"], signals).values)
    members = signals.members[0]
    inside, outside = np.sort(scores[members]), scores[~members]
    threshold = inside[int(0.01 * len(inside))]  # at most 1 % of the members lie below it
    expected = 100 * np.mean(outside < threshold)
    (said,) = attacks["loss-tnr"].conclusions(Roc.from_scores(scores, members))
    assert said == f"TNR at 1% FNR: {expected:.1f}%"
