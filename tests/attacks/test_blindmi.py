"""BlindMI: its moves against a loop, rows alike, and what must not depend on the order of rows."""

import time
from dataclasses import replace

import numpy as np
import pytest

from edgeprivacy.attacks import attacks, score_target
from edgeprivacy.attacks import blindmi as module
from edgeprivacy.attacks.blindmi import differential_comparison


def kernels(points, width):
    """Five Gaussian kernels, pair by pair."""
    total = np.zeros((len(points), len(points)))
    for i, x in enumerate(points):
        for j, y in enumerate(points):
            d = float(np.sum((x - y) ** 2))
            total[i, j] = sum(np.exp(-d / (width * factor)) for factor in (0.25, 0.5, 1.0, 2.0, 4.0))
    return total


def mean_distance(points):
    return np.mean([[np.sum((x - y) ** 2) for y in points] for x in points])


def mmd(kernel, member):
    a, b = np.flatnonzero(member), np.flatnonzero(~member)
    return kernel[np.ix_(a, a)].mean() + kernel[np.ix_(b, b)].mean() - 2 * kernel[np.ix_(a, b)].mean()


def by_moving_each(features, known, rounds=100):
    """The comparison as the paper tells it: move one row, look, move it back."""
    every = np.concatenate([features, known])
    kernel = kernels(every, mean_distance(every))
    member = np.append(np.ones(len(features), bool), np.zeros(len(known), bool))
    for _ in range(rounds):
        raise_it = []
        for row in np.flatnonzero(member):
            moved = member.copy()
            moved[row] = False
            if mmd(kernel, moved) > mmd(kernel, member):
                raise_it.append(row)
        if not raise_it or len(raise_it) == member.sum():
            break
        member[raise_it] = False
    return member[: len(features)]


def test_kernels_are_those_of_a_loop():
    points = np.random.default_rng(0).normal(size=(9, 3))
    weights = np.array([1.0, 2, 1, 1, 3, 1, 1, 1, 1])
    width = mean_distance(np.repeat(points, weights.astype(int), axis=0))
    np.testing.assert_allclose(module._kernel(points, weights), kernels(points, width), rtol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_moves_are_those_of_a_loop(seed):
    rng = np.random.default_rng(seed)
    features = np.concatenate([rng.normal(1.5, 0.5, (9, 3)), rng.normal(0, 0.5, (8, 3))])
    known = rng.normal(0, 0.5, (7, 3))
    expected = by_moving_each(features, known)
    assert 0 < expected.sum() < 17
    np.testing.assert_array_equal(differential_comparison(features, known), expected)


def test_separate_sides_are_told_apart():
    rng = np.random.default_rng(0)
    features = np.concatenate([rng.normal(3, 0.3, (30, 3)), rng.normal(0, 0.3, (30, 3))])
    stays = differential_comparison(features, rng.normal(0, 0.3, (25, 3)))
    assert stays[:30].all() and stays[30:].mean() < 0.1


def test_a_weight_is_that_many_rows():
    rng = np.random.default_rng(1)
    points, known = rng.normal(0.5, 1, (40, 3)), rng.normal(0, 1, (20, 3))
    weights = rng.integers(1, 6, 40)
    expanded = differential_comparison(np.repeat(points, weights, axis=0), known)
    first = np.cumsum(weights) - weights
    weighted = differential_comparison(points, known, weights.astype(float))
    np.testing.assert_array_equal(weighted, expanded[first])
    assert not np.array_equal(weighted, differential_comparison(points, known))


def test_batches_are_samples_of_all_points_and_share_a_heavy_one(monkeypatch):
    monkeypatch.setattr(module, "BATCH", 13)
    rng = np.random.default_rng(3)
    points, known = np.sort(rng.normal(1, 1, (27, 1)), axis=0), rng.normal(0, 0.7, (9, 1))
    weights = np.ones(27)
    weights[20] = 8  # in two batches: four rows of it in each
    calls = []

    def one_batch(numbers):
        rows = np.concatenate([points[numbers], np.repeat(points[[20]], 4, axis=0)])
        return by_moving_each(rows, known)

    expected = np.zeros(27, bool)
    for start in (0, 1):
        numbers = np.delete(np.arange(27), 20)[start::2]
        calls.append(one_batch(numbers))
        expected[numbers] = calls[-1][:13]
    assert calls[0][13] == calls[1][13]
    expected[20] = calls[0][13]
    assert 3 < expected.sum() < 24
    np.testing.assert_array_equal(module._in_batches(points, weights, known), expected)


def test_rows_alike_are_called_alike_across_batches_and_in_any_order(make_signals, reordered, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 25)
    signals = make_signals(models=2, rows=900, versions=0)
    coarse = replace(signals, probabilities=np.round(signals.probabilities * 64) / np.float32(64))
    scores = score_target(attacks["blindmi"], coarse).values
    p = coarse.probabilities[0]
    seen = np.column_stack([coarse.confidence[0], -np.sort(-p, axis=1)[:, :2]])
    kinds, kind = np.unique(seen, axis=0, return_inverse=True)
    assert len(kinds) > 4 * 25
    for number in range(len(kinds)):
        assert np.ptp(scores[kind.ravel() == number]) == 0
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(900)
        np.testing.assert_array_equal(
            score_target(attacks["blindmi"], reordered(coarse, order)).values, scores[order]
        )


def test_what_shadows_say_changes_nothing(make_signals):
    signals = make_signals(models=4)
    other = signals.probabilities.copy()
    other[1:] = other[1:, ::-1]
    base, same = (
        score_target(attacks["blindmi"], s).values for s in (signals, replace(signals, probabilities=other))
    )
    np.testing.assert_array_equal(base, same)
    assert set(base) == {0.0, 1.0}


def test_ten_thousand_rows_take_seconds(make_signals):
    signals = make_signals(models=1, rows=10_000, versions=0)
    signals.confidence, signals.population.confidence  # noqa: B018
    began = time.process_time()
    score_target(attacks["blindmi"], signals)
    assert time.process_time() - began < 10
