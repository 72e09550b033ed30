"""Grids of few bits against rounding value by value, and against every other step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprivacy.compression.grid import grid_steps, largest_multiple, on_grid


@pytest.mark.parametrize(("bits", "levels"), [(2, 1), (3, 3), (4, 7), (6, 31), (8, 127)])
def test_a_grid_has_as_many_values_above_zero_as_below(bits: int, levels: int) -> None:
    assert largest_multiple(bits) == levels
    rounded = on_grid(np.linspace(-1, 1, 100_001), np.array(1 / levels), levels)
    assert len(np.unique(rounded.round(6))) == 2**bits - 1


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 2**32 - 1),
    bits=st.integers(2, 8),
    shape=st.sampled_from([(9, 4), (3, 3, 2, 5)]),
    axis=st.sampled_from([0, -1]),
)
def test_each_channel_is_rounded_by_a_step_of_its_own(seed: int, bits: int, shape, axis: int) -> None:
    kernel = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    steps, levels = grid_steps(kernel, bits, axis), largest_multiple(bits)
    rounded = on_grid(kernel, steps, levels)
    assert steps.size == kernel.shape[axis] and np.ndim(steps) == kernel.ndim
    for channel in range(kernel.shape[axis]):
        values, near = kernel.take(channel, axis).ravel(), rounded.take(channel, axis).ravel()
        step = float(steps.ravel()[channel])
        assert len(np.unique(near)) <= 2**bits - 1
        for value, found in zip(values, near, strict=True):
            nearest = min(range(-levels, levels + 1), key=lambda k: abs(k * step - value))
            assert abs(found - value) <= abs(nearest * step - value) + 1e-6

        def error(end: float, values=values) -> float:
            return float(((on_grid(values, np.array(end / levels), levels) - values) ** 2).sum())

        ends = np.abs(values).max() * np.linspace(0.2, 1.0, 33)
        assert error(step * levels) <= min(map(error, ends)) + 1e-5


def test_zeros_stay_zeros() -> None:
    kernel = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)
    kernel[kernel < 0.3] = 0
    kernel[:, 2] = 0
    rounded = on_grid(kernel, grid_steps(kernel, 3, -1), 3)
    assert not rounded[kernel == 0].any() and np.isfinite(rounded).all()
