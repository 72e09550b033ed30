"""What a model is still good for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

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


def share_of_labels(right: NDArray[np.bool_], level: float = 0.95) -> Metric:
    """Share of independent labels [rows, labels] that are answered rightly.

    The labels of a row hang together: the interval is Wald's over the rows' own shares.
    """
    shares = right.mean(axis=1)
    value = float(shares.mean())
    reach = float(ndtri(0.5 + level / 2)) * float(shares.std(ddof=1)) / math.sqrt(len(shares))
    return Metric(value=value, ci=(max(0.0, value - reach), min(1.0, value + reach)))
