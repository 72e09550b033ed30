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
    rows = int(known.sum())
    if rows == 0:
        raise DataError("accuracy needs rows with labels, there are none")
    correct = int((probabilities[known].argmax(axis=-1) == labels[known]).sum())
    return Metric(value=correct / rows, ci=binomial_interval(correct, rows, level))
