"""The iterative schedule as published, and masks counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprivacy.compression.magnitude import iterative_sparsity, magnitude_mask, magnitude_masks


@pytest.mark.parametrize(
    ("final", "published"),
    [
        (0.5, [0, 0.159, 0.293, 0.405, 0.5]),
        (0.6, [0, 0.205, 0.368, 0.497, 0.6]),
        (0.7, [0, 0.260, 0.452, 0.595, 0.7]),
    ],
)
def test_the_schedule_is_the_published_table(final: float, published: list[float]) -> None:
    assert [round(value, 3) for value in iterative_sparsity(final, 5)] == published


@settings(deadline=None, max_examples=40)
@given(final=st.floats(0.01, 0.99), iterations=st.integers(2, 12))
def test_the_schedule_takes_the_same_share_of_what_is_left_each_time(final: float, iterations: int) -> None:
    schedule = iterative_sparsity(final, iterations)
    assert len(schedule) == iterations and schedule[0] == 0
    assert schedule[-1] == pytest.approx(final)
    left = 1 - np.array(schedule)
    np.testing.assert_allclose(left[1:] / left[:-1], (1 - final) ** (1 / (iterations - 1)))


@settings(deadline=None, max_examples=60)
@given(
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    sparsity=st.floats(0, 0.99),
    levels=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_masks_take_exactly_the_smallest(shape, sparsity, levels, seed) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.integers(-levels, levels + 1, shape).astype(np.float32)  # many ties
    mask = magnitude_mask(weights, sparsity)
    assert mask.shape == weights.shape and mask.dtype == np.bool_
    assert int((~mask).sum()) == round(sparsity * weights.size)
    if mask.any() and not mask.all():
        assert np.abs(weights[~mask]).max() <= np.abs(weights[mask]).min()
    assert np.array_equal(mask, magnitude_mask(weights.copy(), sparsity))


def test_ties_go_by_position() -> None:
    assert magnitude_mask(np.array([1.0, -1.0, 1.0, 2.0]), 0.5).tolist() == [False, False, True, True]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 999), noise=st.floats(0, 1))
def test_masks_of_a_rising_schedule_are_nested_though_weights_move(seed: int, noise: float) -> None:
    rng = np.random.default_rng(seed)
    weights, before = rng.normal(size=(7, 13)), np.ones((7, 13), bool)
    for sparsity in iterative_sparsity(0.7, 5):
        mask = magnitude_mask(weights, sparsity)
        assert not (mask & ~before).any()
        weights, before = mask * (weights + noise * rng.normal(size=weights.shape)), mask


def test_each_layer_reaches_the_sparsity_by_itself() -> None:
    small, large = np.full((10, 10), 1e-6), np.arange(1, 41.0)
    masks = magnitude_masks([small, large], 0.3)
    assert [int((~mask).sum()) for mask in masks] == [30, 12]
