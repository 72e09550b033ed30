"""Weight clustering: the few values that a layer's weights share, written once for all backends."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FITTED_ON = 200_000
"""Weights that the centroids are sought on, at most, drawn at random: a layer of millions takes seconds."""


@dataclass(frozen=True)
class Palette:
    """The values of one layer.

    Attributes:
        centroids: float32 [values], ascending and different.
        assignment: int64 [weights], which value each weight has, in row-major order.
        zero: Position of the value that stands for pruned weights and stays 0; None where nothing is pruned.
    """

    centroids: NDArray[np.float32]
    assignment: NDArray[np.int64]
    zero: int | None = None


def kmeans_palette(weights: NDArray[Any], clusters: int, keep_zeros: bool, seed: int) -> Palette:
    """At most `clusters` values for a layer, by k-means (k-means++ start, one run).

    Args:
        weights: Of one layer, any shape, finite.
        clusters: At least 2.
        keep_zeros: Whether exact zeros are pruned weights: one of the values is then 0 and theirs alone.
        seed: Of the start.

    Source: Han et al., Deep Compression, ICLR 2016 (weights shared per layer, centroids trained on).
    """
    flat = np.asarray(weights, dtype=np.float32).ravel()
    pruned = flat == 0 if keep_zeros else np.zeros(flat.shape, dtype=bool)
    if not pruned.any():
        centroids = _centroids(flat, clusters, seed)
        return Palette(centroids, _nearest(flat, centroids))
    centroids = _centroids(flat[~pruned], clusters - 1, seed) if not pruned.all() else flat[:0]
    # A cluster at exactly 0 would be taken for the pruned weights' own.
    centroids = centroids[centroids != 0]
    both = np.sort(np.append(centroids, np.float32(0)))
    zero = int(np.searchsorted(both, 0.0))
    assignment = np.full(flat.shape, zero, dtype=np.int64)
    if len(centroids):
        nearest = _nearest(flat[~pruned], centroids)
        assignment[~pruned] = nearest + (nearest >= zero)
    return Palette(both, assignment, zero)


def palette_of(weights: NDArray[Any], keep_zeros: bool) -> Palette:
    """The palette that a layer already has: its different values."""
    flat = np.asarray(weights, dtype=np.float32).ravel()
    centroids, assignment = np.unique(flat, return_inverse=True)
    zero = np.flatnonzero(centroids == 0)
    return Palette(centroids, assignment.astype(np.int64), int(zero[0]) if keep_zeros and len(zero) else None)


def _centroids(values: NDArray[np.float32], clusters: int, seed: int) -> NDArray[np.float32]:
    different = np.unique(values)
    if len(different) <= clusters:
        return different
    from sklearn.cluster import KMeans

    if len(values) > _FITTED_ON:
        values = np.random.default_rng(seed).choice(values, _FITTED_ON, replace=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer different values than clusters, after all
        fitted = KMeans(clusters, n_init=1, random_state=seed % 2**32).fit(values[:, None].astype(np.float64))
    return np.unique(fitted.cluster_centers_.astype(np.float32))


def _nearest(values: NDArray[np.float32], centroids: NDArray[np.float32]) -> NDArray[np.int64]:
    borders = (centroids[1:] + centroids[:-1]) / 2
    return np.searchsorted(borders, values).astype(np.int64)
