"""The file against the framework model it came from, on the same real rows. Framework-free."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.errors import DataError


def parity(framework_probabilities: NDArray[Any], file_probabilities: NDArray[Any]) -> tuple[float, int]:
    """Largest |Δp| over all rows and classes, and the number of rows whose top-1 class differs.

    Args:
        framework_probabilities: [rows, classes], or [rows, 1] or [rows] for one sigmoid output.
        file_probabilities: [rows, classes] of the same rows in the same order, or one sigmoid column.

    Raises:
        DataError: Different shapes, no rows, or values that are not finite.
    """
    ours, theirs = _columns(framework_probabilities), _columns(file_probabilities)
    if ours.shape != theirs.shape or ours.size == 0:
        raise DataError(
            "parity needs the same rows and classes from model and file",
            got=f"{ours.shape} and {theirs.shape}",
        )
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        raise DataError("parity needs finite probabilities")
    flips = int((ours.argmax(axis=1) != theirs.argmax(axis=1)).sum())
    return float(np.abs(ours - theirs).max()), flips


def _columns(probabilities: NDArray[Any]) -> NDArray[np.float64]:
    p = np.asarray(probabilities, np.float64)
    if p.ndim == 1:
        p = p[:, None]
    if p.ndim != 2:
        raise DataError("probabilities must be [rows, classes]", got=p.shape)
    return np.hstack([1 - p, p]) if p.shape[1] == 1 else p
