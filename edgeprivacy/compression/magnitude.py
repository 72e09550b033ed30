"""Magnitude pruning masks and the sparsity schedule of iterative pruning (defenses.md 1.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def iterative_sparsity(final: float, iterations: int) -> tuple[float, ...]:
    """Sparsity of each pruning iteration, 0 in the first: s_t = 1 - (1 - s)^(t / (iterations - 1)).

    The lottery-ticket schedule of NNI 2.3, which WeMem uses with 5 iterations.
    """
    return tuple(1 - (1 - final) ** (t / (iterations - 1)) for t in range(iterations))


def magnitude_mask(weights: NDArray[Any], sparsity: float) -> Mask:
    """Which weights of one layer stay: all but the round(sparsity * size) smallest by magnitude.

    Ties are broken by position, so the number of zeros is exact. Weights already zero go first, hence masks
    of a rising schedule are nested.
    """
    flat = np.abs(np.asarray(weights)).ravel()
    mask = np.ones(flat.size, dtype=bool)
    mask[np.argsort(flat, kind="stable")[: round(sparsity * flat.size)]] = False
    return mask.reshape(np.shape(weights))


def polynomial_sparsity(final: float, step: int, end: int) -> float:
    """Sparsity before a step (from 1 on) of a cubic rise from 0, reached at step `end`.

    Zhu & Gupta, "To prune, or not to prune", 2017, as tfmot's PolynomialDecay has it.
    """
    return final * (1 - (1 - min(1.0, step / end)) ** 3)


def polynomial_end(steps_by_epoch: Sequence[int]) -> tuple[int, int]:
    """The step in which a polynomial schedule ends, after three fifths of all, and the epoch of that step."""
    end = max(1, round(0.6 * sum(steps_by_epoch)))
    return end, int(np.searchsorted(np.cumsum(steps_by_epoch), end))


def magnitude_masks(layers: Sequence[NDArray[Any]], sparsity: float) -> list[Mask]:
    """One mask a layer, each layer to the same sparsity."""
    return [magnitude_mask(weights, sparsity) for weights in layers]
