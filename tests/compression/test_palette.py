"""Palettes: few values, zeros of their own, near the weights; and the polynomial schedule."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprivacy.compression.magnitude import polynomial_end, polynomial_sparsity
from edgeprivacy.compression.palette import kmeans_palette, palette_of


@settings(deadline=None, max_examples=40)
@given(
    size=st.integers(1, 60),
    clusters=st.integers(2, 9),
    share=st.sampled_from([0.0, 0.5, 1.0]),
    keep=st.booleans(),
    seed=st.integers(0, 99),
)
def test_few_values_the_nearest_each_and_zeros_their_own(size, clusters, share, keep, seed) -> None:
    rng = np.random.default_rng(seed)
    weights = np.where(rng.random(size) < share, 0, rng.normal(size=size).round(1)).astype(np.float32)
    palette = kmeans_palette(weights, clusters, keep, seed)
    values = palette.centroids[palette.assignment]
    assert len(palette.centroids) <= clusters and values.shape == weights.shape
    assert np.all(np.diff(palette.centroids) > 0)
    if keep and (weights == 0).any():
        assert palette.centroids[palette.zero] == 0
        assert np.array_equal(values == 0, weights == 0)
        others, given_ = np.delete(palette.centroids, palette.zero), weights[weights != 0]
        found = values[weights != 0]
    else:
        assert palette.zero is None
        others, given_, found = palette.centroids, weights, values
    if len(given_):
        nearest = np.abs(given_[:, None] - others[None, :]).min(axis=1)
        np.testing.assert_allclose(np.abs(given_ - found), nearest, atol=1e-6)
    again = kmeans_palette(weights, clusters, keep, seed)
    assert np.array_equal(again.centroids, palette.centroids)


def test_the_values_are_those_of_k_means() -> None:
    """Three tight heaps: their means."""
    rng = np.random.default_rng(0)
    heaps = [rng.normal(centre, 0.01, 200).astype(np.float32) for centre in (-1, 0.5, 2)]
    palette = kmeans_palette(rng.permutation(np.concatenate(heaps)).reshape(20, 30), 3, False, 1)
    np.testing.assert_allclose(palette.centroids, [heap.mean() for heap in heaps], atol=1e-5)


def test_a_layer_too_large_to_fit_whole_is_assigned_whole(monkeypatch) -> None:
    weights = np.random.default_rng(0).normal(size=5000).astype(np.float32)
    whole = kmeans_palette(weights, 8, False, 0)
    monkeypatch.setattr("edgeprivacy.compression.palette._FITTED_ON", 2000)
    part = kmeans_palette(weights, 8, False, 0)
    errors = [np.mean((weights - p.centroids[p.assignment]) ** 2) for p in (whole, part)]
    assert part.assignment.shape == (5000,) and errors[1] < 1.05 * errors[0]


def test_a_palette_that_is_there_already_is_found_again() -> None:
    weights = np.array([[0, 1.5, -2], [1.5, 0, -2]], np.float32)
    palette = palette_of(weights, True)
    assert palette.centroids.tolist() == [-2, 0, 1.5] and palette.zero == 1
    assert np.array_equal(palette.centroids[palette.assignment].reshape(2, 3), weights)
    assert palette_of(weights, False).zero is None and palette_of(weights + 1, True).zero is None


def test_the_polynomial_rises_cubically_to_its_end() -> None:
    """As tfmot's PolynomialDecay(0, final, 0, end, power=3)."""
    assert polynomial_sparsity(0.6, 0, 10) == 0
    assert polynomial_sparsity(0.6, 5, 10) == pytest.approx(0.6 * (1 - 0.5**3))
    assert polynomial_sparsity(0.6, 10, 10) == polynomial_sparsity(0.6, 99, 10) == 0.6
    # 12 steps: the end is in step 7, which is in the third epoch of three steps
    assert polynomial_end([3, 3, 3, 3]) == (7, 2)
    assert polynomial_end([]) == (1, 0)
