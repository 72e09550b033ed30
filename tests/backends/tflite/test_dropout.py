"""Dropout by 16 random bits drops what it says, keeps the mean, and repeats."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprivacy.backends.tflite.dropout import random_generators, use_short_random_numbers
from edgeprivacy.backends.tflite.frameworks import keras, tf


def dropping(rate: float):
    model = keras.Sequential([keras.layers.InputLayer((1100,)), keras.layers.Dropout(rate)])
    use_short_random_numbers(model)
    return model


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_it_drops_its_rate_and_keeps_the_mean(rate: float) -> None:
    y = dropping(rate)(tf.ones((1000, 1100)), training=True).numpy()
    dropped = round(rate * 65536) / 65536
    assert np.unique(y) == pytest.approx([0, 1 / (1 - dropped)], abs=1e-6)
    # Six standard errors of a binomial share; no row and no column is treated otherwise.
    assert abs((y == 0).mean() - dropped) < 6 * np.sqrt(dropped * (1 - dropped) / y.size)
    for axis in (0, 1):
        shares = (y == 0).mean(axis)
        assert np.abs(shares - dropped).max() < 6.5 * np.sqrt(dropped * (1 - dropped) / y.shape[axis])


def test_the_same_seed_repeats_and_outside_of_training_nothing_drops() -> None:
    model, x = dropping(0.5), tf.ones((3, 1100))
    (random,) = random_generators(model)

    def drawn(seed: int) -> np.ndarray:
        random.reset_from_seed(seed)
        return model(x, training=True).numpy()

    assert np.array_equal(drawn(1), drawn(1))
    assert not np.array_equal(drawn(1), drawn(2))
    assert not np.array_equal(drawn(1)[0], drawn(1)[1])
    assert np.array_equal(model(x, training=False).numpy(), x.numpy())


@pytest.mark.parametrize(("rate", "kept"), [(0.0, 1.0), (1.0, 0.0)])
def test_the_ends(rate: float, kept: float) -> None:
    assert np.all(dropping(rate)(tf.ones((2, 1100)), training=True).numpy() == kept)


def test_what_has_a_noise_shape_of_its_own_stays() -> None:
    model = keras.Sequential([keras.layers.InputLayer((40, 5)), keras.layers.Dropout(0.5, (None, 1, 5))])
    use_short_random_numbers(model)
    y = model(tf.ones((20, 40, 5)), training=True).numpy()
    assert np.all((y == y[:, :1]) & np.isin(y, (0, 2)))
