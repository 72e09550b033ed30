"""LiRA on several queries: φ and densities by hand, variations by hand, and what more looks are worth."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from edgeprivacy.attacks import attacks, score_target
from edgeprivacy.attacks.queries import InputSpace

ATTACK = attacks["lira.online.augmented"]


def ask(x):
    flat = x.reshape(len(x), -1)[:, :3].astype(np.float64)
    e = np.exp(flat - flat.max(axis=1, keepdims=True))
    return (e / e.sum(axis=1, keepdims=True)).astype(np.float32)


def test_images_are_shifted_by_a_pixel_each_way():
    images = np.random.default_rng(0).normal(size=(4, 5, 5)).astype(np.float32)
    labels = np.array([0, 1, 2, 0])
    found = ATTACK.gather(ask, images, labels, InputSpace.of(images), np.random.default_rng(0))
    assert found.shape == (4, ATTACK.queries, 2)
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)), mode="edge")
    windows = [padded[:, a : a + 5, b : b + 5] for a, b in ((2, 1), (1, 2), (1, 0), (0, 1))]
    expected = np.array([[ask(w)[row, labels[row]] for w in windows] for row in range(4)])
    np.testing.assert_allclose(np.sort(found[..., 0], axis=1), np.sort(expected, axis=1), rtol=1e-5)
    np.testing.assert_allclose(found.sum(axis=2), 1.0, rtol=1e-5)


@pytest.mark.parametrize(("quantum", "width"), [(0.0, 0.1), (0.4, 0.4)])
def test_vectors_are_moved_by_noise_that_the_file_can_see(quantum, width):
    x = np.zeros((300, 6), dtype=np.float32)
    seen = []
    space = InputSpace(quantum, np.ones(6, dtype=np.float32))
    labels = np.zeros(300, np.int64)
    ATTACK.gather(lambda rows: seen.append(rows) or ask(rows), x, labels, space, np.random.default_rng(0))
    assert len(seen) == 4 and not np.allclose(seen[0], seen[1])
    assert np.std(seen) == pytest.approx(width, rel=0.05)


def test_score_is_the_mean_ratio_of_two_densities(make_signals):
    signals = make_signals(models=17, rows=30)
    scores = score_target(ATTACK, signals, 3).values
    gathered = signals.gathered[ATTACK.name]
    phi = np.empty((17, 30, 5))
    for model in range(17):
        for row in range(30):
            p = signals.probabilities[model, row].astype(np.float64)
            y = signals.labels[row]
            phi[model, row, 0] = np.log(p[y]) - np.log(np.delete(p, y).sum())
            phi[model, row, 1:] = np.log(gathered[model, row, :, 0] / gathered[model, row, :, 1])
    others = np.arange(17) != 3
    for row in range(30):
        total = 0.0
        for look in range(5):
            for sign, side in ((1, signals.members[:, row]), (-1, ~signals.members[:, row])):
                seen = phi[others & side, row, look]
                total += sign * norm.logpdf(phi[3, row, look], np.median(seen), seen.std())
        assert scores[row] == pytest.approx(total / 5, rel=1e-6, abs=1e-6)


def test_more_looks_tell_more(make_signals):
    """The simulated variations have noise of their own."""
    signals = make_signals(models=33, rows=1500, gain=1.0, versions=0)
    gains = []
    for target in range(6):
        one, many = (
            roc_auc_score(signals.members[target], score_target(attacks[name], signals, target).values)
            for name in ("lira.online", ATTACK.name)
        )
        gains.append(many - one)
    assert np.mean(gains) > 0.01


def test_answers_of_zero_are_floored_as_the_output_says(make_signals):
    signals = make_signals(models=5, rows=20, step=1 / 256)
    nothing = np.zeros((5, 20, 4, 2))
    nothing[..., 0] = 1.0
    values = ATTACK.looks(replace(signals, gathered={ATTACK.name: nothing}))
    np.testing.assert_allclose(values[..., 1:], np.log(512.0))
