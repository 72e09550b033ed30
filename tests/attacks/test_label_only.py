"""Label-only attacks against closed forms of a linear model, and against pixels moved by hand."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from edgeprivacy.attacks import attacks, score_target
from edgeprivacy.attacks.label_only import shifted, translations, turned, variations
from edgeprivacy.attacks.queries import InputSpace
from edgeprivacy.errors import DataError

NORMAL = np.array([3.0, -4.0])
"""Class 1 where this times x is positive."""


def ask(x):
    p = 1 / (1 + np.exp(-(x.reshape(len(x), -1)[:, :2].astype(np.float64) @ NORMAL)))
    return np.stack([1 - p, p], axis=1).astype(np.float32)


def test_noise_finds_the_share_of_the_bell_on_the_right_side(monkeypatch):
    attack = attacks["label-only.noise"]
    monkeypatch.setattr(attack, "queries", 4000)
    x = np.array([[0.0, 0.0], [0.1, 0.0], [-0.2, 0.1], [0.0, -0.3]], dtype=np.float32)
    labels = np.array([1, 1, 0, 0])
    space = InputSpace(0.0, np.float32(1.0))
    right = attack.gather(ask, x, labels, space, np.random.default_rng(0))
    margins = np.where(labels == 1, 1, -1) * (x @ NORMAL) / 5
    np.testing.assert_allclose(right.mean(axis=1), norm.cdf(margins / 0.3), atol=0.025)


def test_noise_is_as_wide_as_two_steps_of_a_coarse_input():
    x = np.full((200, 2), 0.0, dtype=np.float32)
    seen = []
    space = InputSpace(0.5, np.float32(1.0))
    rng = np.random.default_rng(0)
    attacks["label-only.noise"].gather(lambda r: seen.append(r) or ask(r), x, np.zeros(200), space, rng)
    assert len(seen) == attacks["label-only.noise"].queries == 16
    assert np.std(seen) == pytest.approx(1.0, rel=0.05)


def test_shifts_are_all_of_one_distance_and_move_every_pixel():
    assert sorted(translations(1)) == [(-1, 0), (0, -1), (0, 1), (1, 0)]
    assert len(set(translations(3))) == 12 and all(abs(a) + abs(b) == 3 for a, b in translations(3))
    images = np.arange(2 * 4 * 5 * 3).reshape(2, 4, 5, 3)
    for dy, dx in translations(2):
        found = shifted(images, dy, dx)
        for row in range(4):
            for column in range(5):
                source = images[:, min(max(row - dy, 0), 3), min(max(column - dx, 0), 4)]
                assert np.array_equal(found[:, row, column], source)


def test_turns_keep_type_and_middle_and_go_round():
    images = np.zeros((1, 9, 9), dtype=np.uint8)
    images[0, 4, 4], images[0, 4, 6] = 200, 100
    quarter = turned(images, 90.0)
    assert quarter.dtype == np.uint8 and quarter[0, 4, 4] == 200
    assert {quarter[0, 2, 4], quarter[0, 6, 4]} == {0, 100}
    back = turned(turned(images.astype(np.float32), 8.0), -8.0)
    assert back[0, 4, 4] > 150 and back.shape == images.shape


@pytest.mark.parametrize("shape", [(6, 8, 8, 3), (6, 7, 9)])
def test_augmentation_counts_the_right_answers_of_every_variation(shape):
    x = np.random.default_rng(0).random(shape).astype(np.float32)
    attack, labels = attacks["label-only.augment"], np.array([0, 1, 0, 1, 0, 1])
    assert attack.usable(x)
    bits = attack.gather(ask, x, labels, InputSpace.of(x), np.random.default_rng(0))
    assert bits.shape == (6, attack.queries) == (6, 9)
    for number, varied in enumerate(variations(x)):
        for row in range(6):
            flat = varied[row].ravel()[:2]
            assert bits[row, number] == ((3 * flat[0] - 4 * flat[1] > 0) == labels[row])


def test_vectors_cannot_be_shifted_and_the_reason_is_told(make_signals):
    assert not attacks["label-only.augment"].usable(np.zeros((5, 20)))
    assert not attacks["label-only.augment"].usable(np.zeros((5, 1, 20)))
    signals = make_signals()
    nothing = {"label-only.augment": np.zeros((signals.models, len(signals.labels), 0))}
    with pytest.raises(DataError, match="needs images"):
        score_target(attacks["label-only.augment"], replace(signals, gathered=nothing))


def test_scores_are_shares_of_right_answers_and_nothing_else(make_signals):
    signals = make_signals()
    scores = score_target(attacks["label-only.noise"], signals, 3)
    assert np.array_equal(scores.values, signals.gathered["label-only.noise"][3].mean(axis=1))
    assert scores.notes == ("scores move in steps of 1/16",)
