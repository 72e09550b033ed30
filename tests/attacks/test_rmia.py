from dataclasses import replace

import numpy as np
import pytest

from edgeprivacy.attacks import attacks
from edgeprivacy.attacks.rmia import rmia_scores
from edgeprivacy.errors import DataError


@pytest.mark.parametrize(("gamma", "expected"), [(1.0, 1.0), (2.0, 0.25)])
def test_published_toy(gamma, expected):
    z_target, z_out = np.array([0.9, 0.5, 0.2, 0.99]), np.array([0.9, 0.5, 0.4, 0.97])
    scores = rmia_scores(np.array([0.95]), np.array([0.6]), z_target, z_out, 0.3, gamma)
    assert scores[0] == expected


@pytest.mark.parametrize("a", [0.0, 0.4, 1.0])
def test_matches_every_pair(a):
    rng = np.random.default_rng(0)
    # Values of a coarse grid make many exact ties.
    x, x_out, z, z_out = (np.round(rng.uniform(0.05, 1, size), 1) for size in (300, 300, 170, 170))
    r_x = x / (0.5 * ((1 + a) * x_out + (1 - a)))
    r_z = z / (0.5 * ((1 + a) * z_out + (1 - a)))
    pairs = r_x[:, None] / 2.0 > r_z[None, :]
    assert np.array_equal(rmia_scores(x, x_out, z, z_out, a), pairs.mean(axis=1))


def test_whole_attack_matches_its_definition(make_signals):
    signals = make_signals(models=5, rows=80, population=60)
    target, others = 2, [0, 1, 3, 4]
    scores = attacks["rmia.offline"](signals, target)
    a = float(scores.notes[0].split("=")[1])
    p, z = signals.confidence, signals.population.confidence
    everywhere = [p[m, r] for m in others for r in range(80) if not signals.members[m, r]]
    expected, pooled = [], 0
    for r in range(80):
        out = [p[m, r] for m in others if not signals.members[m, r]]
        pooled += not out
        mean = np.mean(out or everywhere)
        x = p[target, r] / (0.5 * ((1 + a) * mean + 1 - a))
        wins = sum(
            x / (z[target, k] / (0.5 * ((1 + a) * z[others, k].mean() + 1 - a))) > 2 for k in range(60)
        )
        expected.append(wins / 60)
    np.testing.assert_allclose(scores.values, expected, atol=1e-12)
    assert scores.pooled_rows == pooled


def test_tuning_takes_the_best_a_of_the_shadows(make_signals):
    """With the target's own outputs replaced by noise the same a is found: it is tuned on shadows alone."""
    signals = make_signals(models=7, rows=200)
    noise = signals.probabilities.copy()
    noise[0] = np.random.default_rng(5).dirichlet(np.ones(5), 200)
    tuned = [attacks["rmia.offline"](s, 0).notes[0] for s in (signals, replace(signals, probabilities=noise))]
    assert tuned[0] == tuned[1]


def test_one_shadow_takes_the_stated_default(make_signals):
    assert attacks["rmia.offline"](make_signals(models=2), 0).notes[0] == "a = 0.3"


def test_no_out_shadow_anywhere_is_an_error(make_signals):
    signals = make_signals(models=3)
    with pytest.raises(DataError, match="did not train on"):
        attacks["rmia.offline"](replace(signals, members=np.ones_like(signals.members)), 0)
