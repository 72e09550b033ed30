"""Several tests at once: one level for the whole family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from edgeprivacy.errors import DataError


class Holm(NamedTuple):
    """Adjusted p-values and what is rejected, in the order of the tests."""

    adjusted: tuple[float, ...]
    rejected: tuple[bool, ...]


def holm(p_values: Sequence[float], level: float = 0.01) -> Holm:
    """Holm's step-down procedure (Scandinavian Journal of Statistics, 1979): holds under any dependence.

    Args:
        p_values: One a test, each in [0, 1].
        level: Probability of any false rejection in the family.

    Raises:
        DataError: A p-value lies outside [0, 1].
    """
    p = np.asarray(p_values, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise DataError("p-values must lie in [0, 1]", got=list(p_values))
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)) if len(p) else p
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1.0)
    return Holm(tuple(map(float, adjusted)), tuple(bool(value <= level) for value in adjusted))
