from statistics import NormalDist, mean, stdev

import numpy as np
import pytest

from edgeprivacy.errors import DataError
from edgeprivacy.metrics.utility import accuracy, share_of_labels


def test_accuracy_counts_rows_with_labels():
    p = np.eye(4)[[0, 1, 2, 3, 0, 0]]
    metric = accuracy(p, np.array([0, 1, 2, 0, 1, -1]))
    assert metric.value == 0.6
    assert metric.ci == pytest.approx((0.1466, 0.9473), abs=1e-4)


def test_accuracy_without_labels_is_an_error():
    with pytest.raises(DataError):
        accuracy(np.eye(2), np.array([-1, -1]))


def test_share_of_labels_is_uncertain_by_rows():
    right = np.random.default_rng(0).random((200, 5)) < np.random.default_rng(1).random((200, 1))
    metric = share_of_labels(right)
    of_rows = [sum(map(float, row)) / 5 for row in right]
    reach = NormalDist().inv_cdf(0.975) * stdev(of_rows) / 200**0.5
    assert metric.value == pytest.approx(mean(of_rows))
    assert metric.ci == pytest.approx((mean(of_rows) - reach, mean(of_rows) + reach))
    # Labels that hang together say no more than one would.
    repeated = share_of_labels(np.repeat(right[:, :1], 5, axis=1))
    assert repeated.ci == pytest.approx(share_of_labels(right[:, :1]).ci)
    assert share_of_labels(np.ones((9, 2), dtype=bool)).ci == (1, 1)
