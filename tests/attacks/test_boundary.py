"""Distances to boundaries that have a closed form: a plane, a sphere, unequal units, a coarse grid."""

import numpy as np
import pytest

from edgeprivacy.attacks import attacks, score_target
from edgeprivacy.attacks.boundary import Effort, boundary_distance
from edgeprivacy.attacks.queries import InputSpace

D = 20
NORMAL = np.random.default_rng(7).normal(size=D)
NORMAL /= np.linalg.norm(NORMAL)
UNIT = InputSpace(0.0, np.ones(D, dtype=np.float32))


def by_sign(values):
    p = np.stack([values <= 0, values > 0], axis=1)
    return p.astype(np.float32)


def plane(x):
    return by_sign(x.reshape(len(x), -1).astype(np.float64) @ NORMAL)


@pytest.fixture
def rows():
    x = np.random.default_rng(0).normal(size=(120, D)).astype(np.float32)
    return x, (x @ NORMAL > 0).astype(np.int64)


def test_distance_to_a_plane(rows):
    x, labels = rows
    true = np.abs(x.astype(np.float64) @ NORMAL)
    found = boundary_distance(plane, x, labels, UNIT, np.random.default_rng(1))
    assert (found >= true - 1e-5).all()  # never nearer than the boundary
    assert np.median(found / true) < 1.15
    assert np.corrcoef(found, true)[0, 1] > 0.98
    more = boundary_distance(
        plane, x, labels, UNIT, np.random.default_rng(1), Effort(votes=400, rounds=6, bisection=12)
    )
    assert np.median(more / true) < 1.02


def test_distance_to_a_sphere_from_inside():
    x = np.random.default_rng(0).normal(size=(60, D)).astype(np.float32)
    x *= (np.random.default_rng(1).uniform(0.5, 2.5, 60) / np.linalg.norm(x, axis=1))[:, None]
    true = 3.0 - np.linalg.norm(x, axis=1)

    def ball(rows):
        return by_sign((rows.astype(np.float64) ** 2).sum(axis=1) - 9.0)

    found = boundary_distance(ball, x, np.zeros(60, np.int64), UNIT, np.random.default_rng(1))
    assert (found >= true - 1e-5).all()
    assert np.median(found / true) < 1.2


def test_units_of_columns_do_not_matter_and_constant_columns_stay(rows):
    x, _ = rows
    units = np.geomspace(1e-3, 1e3, D)
    units[3] = 0.0
    seen = []

    def scaled(rows):
        seen.append(rows[:, 3].copy())
        return plane(np.where(units > 0, rows / np.where(units > 0, units, 1), 0.0))

    def flat(rows):
        return plane(np.where(units > 0, rows, 0.0))

    narrow = InputSpace(0.0, (units > 0).astype(np.float32))
    wide = InputSpace(0.0, units.astype(np.float32))
    right = (np.where(units > 0, x, 0) @ NORMAL > 0).astype(np.int64)
    expected = boundary_distance(flat, x, right, narrow, np.random.default_rng(1))
    found = boundary_distance(scaled, (x * units).astype(np.float32), right, wide, np.random.default_rng(1))
    assert np.median(np.abs(found / expected - 1)) < 1e-3
    assert all((column == 0).all() for column in seen)


def test_constant_columns_add_nothing_to_a_distance(rows):
    x, _ = rows
    free = np.arange(D) < 5
    x = np.where(free, x, 0.0).astype(np.float32)
    space = InputSpace(0.0, free.astype(np.float32))
    found = boundary_distance(plane, x, (x @ NORMAL > 0).astype(np.int64), space, np.random.default_rng(1))
    assert np.median(found / (np.abs(x @ NORMAL) / np.linalg.norm(NORMAL[free]))) < 1.04


def test_a_coarse_input_is_still_measured(rows):
    x, labels = rows
    step = 0.2
    space = InputSpace(step, np.ones(D, dtype=np.float32))

    def rounding(rows):
        return plane(np.rint(rows / step) * step)

    found = boundary_distance(rounding, x, labels, space, np.random.default_rng(1))
    true = np.abs(x @ NORMAL)
    assert np.corrcoef(found, true)[0, 1] > 0.99


def test_whole_numbers_are_measured_as_they_were_asked():
    x = np.random.default_rng(0).integers(60, 190, (80, 4, 5)).astype(np.uint8)
    labels = ((x.reshape(80, -1) - 125.0) @ NORMAL > 0).astype(np.int64)
    asked = []

    def model(rows):
        assert rows.dtype == np.uint8
        asked.append(rows)
        return plane(rows.reshape(len(rows), -1) - 125.0)

    space = InputSpace.of(x)
    found = boundary_distance(model, x, labels, space, np.random.default_rng(1))
    true = np.abs((x.reshape(80, -1) - 125.0) @ NORMAL) / space.spread
    assert (found >= true - 1e-5).all() and np.median(found / true) < 1.25


def test_wrong_rows_score_nothing_and_rows_that_never_change_the_most(rows):
    x, labels = rows
    wrong = boundary_distance(plane, x, 1 - labels, UNIT, np.random.default_rng(1))
    assert (wrong == 0).all()

    def always(rows):
        return by_sign(np.ones(len(rows)))

    found = boundary_distance(always, x, np.ones(120, np.int64), UNIT, np.random.default_rng(1))
    np.testing.assert_allclose(found, 12 * np.sqrt(D))


def test_queries_are_as_many_as_announced_and_draws_do_not_hang_on_answers(rows):
    x, labels = rows
    counts = []

    def counting(rows):
        counts.append(len(rows))
        return plane(rows)

    attack, states = attacks["label-only.boundary"], []
    for model, truth in ((counting, labels), (plane, 1 - labels)):
        rng = np.random.default_rng(1)
        attack.gather(model, x, truth, UNIT, rng)
        states.append(rng.bit_generator.state["state"])
    assert 150 * len(x) < sum(counts) <= attack.queries * len(x)
    assert states[0] == states[1]


def test_scores_are_the_distances(make_signals):
    signals = make_signals()
    scores = score_target(attacks["label-only.boundary"], signals, 2)
    assert np.array_equal(scores.values, signals.gathered["label-only.boundary"][2])
    assert "299" in scores.notes[0]
