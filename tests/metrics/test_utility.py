import numpy as np
import pytest

from edgeprivacy.errors import DataError
from edgeprivacy.metrics.utility import accuracy


def test_accuracy_counts_rows_with_labels():
    p = np.eye(4)[[0, 1, 2, 3, 0, 0]]
    metric = accuracy(p, np.array([0, 1, 2, 0, 1, -1]))
    assert metric.value == 0.6
    assert metric.ci == pytest.approx((0.1466, 0.9473), abs=1e-4)


def test_accuracy_without_labels_is_an_error():
    with pytest.raises(DataError):
        accuracy(np.eye(2), np.array([-1, -1]))
