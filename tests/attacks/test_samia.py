"""SAMIA's sensitivities against a derivative and a loop, and the noise that quantized inputs need."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from edgeprivacy.attacks import attacks, score_target
from edgeprivacy.attacks.queries import InputSpace, moved
from edgeprivacy.attacks.samia import sensitivities
from edgeprivacy.errors import DataError

WEIGHTS = np.array([[2.0, -1.0, 0.5], [0.3, 0.7, -1.2], [0.0, 1.0, 1.0], [-0.5, 0.2, 0.1]])


def ask(x):
    logits = x.astype(np.float64) @ WEIGHTS
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (e / e.sum(axis=1, keepdims=True)).astype(np.float32)


def test_sensitivity_is_the_mean_absolute_slope():
    """E|g·u| = |g| √(2/π) for the gradient g of a probability."""
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    found = sensitivities(ask, x, np.float32(0.01), 4000, np.random.default_rng(1))
    for row in range(5):
        p = ask(x[row : row + 1])[0].astype(np.float64)
        for k in range(3):
            gradient = p[k] * (WEIGHTS[:, k] - WEIGHTS @ p)
            expected = np.linalg.norm(gradient) * np.sqrt(2 / np.pi)
            assert found[row, k] == pytest.approx(expected, rel=0.06)


def test_gathered_is_what_a_loop_over_the_queries_finds():
    x = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    space = InputSpace.of(x)
    gathered = attacks["samia"].gather(ask, x, np.zeros(6, np.int64), space, np.random.default_rng(3))
    rng, width = np.random.default_rng(3), 1e-3 * x.std(axis=0)
    epsilon = np.sqrt((width**2).mean())
    total = np.zeros((6, 3))
    for _ in range(10):
        noise = rng.standard_normal((6, 4), dtype=np.float32)
        for row in range(6):
            total[row] += np.abs(ask((x[row] + width * noise[row])[None]) - ask(x[row][None]))[0]
    np.testing.assert_allclose(gathered[:, :3], total / 10 / epsilon, rtol=0.02, atol=1e-4)
    np.testing.assert_allclose(gathered[:, 3], epsilon, rtol=1e-5)


def test_a_quantized_input_gets_steps_that_it_can_see():
    x = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    step = 0.1

    def rounding(rows):
        return ask(np.rint(rows / step) * step)

    on_the_grid = np.rint(x / step).astype(np.float32) * step
    labels, blind, seeing = np.zeros(50, np.int64), InputSpace.of(x), InputSpace.of(x, step)
    samia = attacks["samia"]
    nothing = samia.gather(rounding, on_the_grid, labels, blind, np.random.default_rng(0))
    something = samia.gather(rounding, on_the_grid, labels, seeing, np.random.default_rng(0))
    assert (nothing[:, :3] == 0).all()
    assert (something[:, :3] > 0).mean() > 0.9
    np.testing.assert_allclose(something[:, 3], 2 * step)


def test_whole_numbers_stay_whole_and_in_range():
    x = np.array([[0, 255, 7]], dtype=np.uint8)
    assert InputSpace.of(x).quantum == 1.0
    shifted = moved(x, np.array([[-3.0, 3.0, 1.5]]))
    assert shifted.dtype == np.uint8 and shifted.tolist() == [[0, 255, 8]]
    assert moved(x.astype(np.float64), np.array([[0.5, 0.0, 0.0]])).dtype == np.float32


def test_images_have_one_spread_and_vectors_one_a_column():
    rng = np.random.default_rng(0)
    assert InputSpace.of(rng.normal(size=(5, 4, 4, 1))).spread.shape == ()
    assert InputSpace.of(rng.normal(size=(5, 4))).spread.shape == (4,)
    with pytest.raises(DataError, match="step"):
        InputSpace.of(rng.normal(size=(5, 4)), np.nan)


def test_sensitivity_alone_gives_members_away(make_signals):
    """All outputs alike: what is left to learn from is how they answered to noise."""
    signals = make_signals(models=5, rows=200)
    alike = np.full_like(signals.probabilities, 1 / signals.probabilities.shape[2])
    scores = score_target(attacks["samia"], replace(signals, probabilities=alike), 1)
    assert roc_auc_score(signals.members[1], scores.values) > 0.6
    assert "ε = 0.001" in scores.notes[0] and "transformer" in scores.notes[-1]


def test_without_queries_it_is_refused_with_the_reason(make_signals):
    signals = replace(make_signals(), gathered={})
    with pytest.raises(DataError, match="further queries to the files"):
        score_target(attacks["samia"], signals)
