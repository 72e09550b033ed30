"""Numbers per row computed from confidence vectors (attacks.md section 4). All float64, any leading axes.

Shapes: probabilities [..., rows, classes], labels [rows], results [..., rows].
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def confidence(probabilities: NDArray[Any], labels: NDArray[np.int64]) -> Floats:
    """p_y, the probability of the true class."""
    rows = np.arange(len(labels))
    return np.asarray(probabilities[..., rows, labels], dtype=np.float64)


def cross_entropy(probabilities: NDArray[Any], labels: NDArray[np.int64], log_floor: float) -> Floats:
    """-log max(p_y, floor)."""
    return -np.log(np.maximum(confidence(probabilities, labels), log_floor))


def entropy(probabilities: NDArray[Any], log_floor: float) -> Floats:
    """-Σ p log max(p, floor)."""
    p = np.asarray(probabilities, dtype=np.float64)
    return np.asarray(-(p * np.log(np.maximum(p, log_floor))).sum(axis=-1))


def modified_entropy(probabilities: NDArray[Any], labels: NDArray[np.int64], log_floor: float) -> Floats:
    """-(1-p_y) log p_y - Σ_{k≠y} p_k log(1-p_k) (Song & Mittal, USENIX Security 2021)."""
    p = np.asarray(probabilities, dtype=np.float64)
    rows = np.arange(len(labels))
    p_y = p[..., rows, labels]
    others = p * np.log(np.maximum(1.0 - p, log_floor))
    return np.asarray(
        -(1.0 - p_y) * np.log(np.maximum(p_y, log_floor)) - (others.sum(axis=-1) - others[..., rows, labels])
    )


def logit_confidence(probabilities: NDArray[Any], labels: NDArray[np.int64], log_floor: float) -> Floats:
    """φ = log p_y - log Σ_{k≠y} p_k, both sums floored (Carlini et al., S&P 2022).

    The complement is summed over the other classes, not taken as 1 - p_y, which loses digits near one.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    rows = np.arange(len(labels))
    p_y = p[..., rows, labels]
    rest = p.copy()
    rest[..., rows, labels] = 0.0
    return np.asarray(np.log(np.maximum(p_y, log_floor)) - np.log(np.maximum(rest.sum(axis=-1), log_floor)))
