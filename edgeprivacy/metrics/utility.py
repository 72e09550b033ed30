"""What a model is still good for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.errors import DataError
from edgeprivacy.metrics.intervals import binomial_interval
from edgeprivacy.results import Metric


def accuracy(probabilities: NDArray[Any], labels: NDArray[np.int64], level: float = 0.95) -> Metric:
    """Top-1 accuracy with its Clopper-Pearson interval. Equal outputs go to the first class, as argmax does.

    Args:
        probabilities: [rows, classes].
        labels: int [rows]; rows with label -1 (unknown) do not count.

    Raises:
        DataError: No row has a label.
    """
    known = labels >= 0
    if not known.any():
        raise DataError("accuracy needs rows with labels, there are none")
    return share_right(probabilities[known].argmax(axis=-1) == labels[known], level)


def share_right(right: NDArray[np.bool_], level: float = 0.95) -> Metric:
    """Share of rows [rows] that are answered rightly, with its Clopper-Pearson interval."""
    correct = int(right.sum())
    return Metric(value=correct / len(right), ci=binomial_interval(correct, len(right), level))
