"""Parity by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprivacy.converters.parity import parity
from edgeprivacy.errors import DataError


def test_largest_difference_and_flips() -> None:
    ours = np.array([[0.6, 0.4], [0.1, 0.9], [0.51, 0.49]])
    theirs = np.array([[0.55, 0.45], [0.3, 0.7], [0.49, 0.51]])
    largest, flips = parity(ours, theirs)
    assert largest == pytest.approx(0.2) and flips == 1


def test_one_sigmoid_column_is_two_classes() -> None:
    assert parity(np.array([0.6, 0.2]), np.array([[0.3, 0.7], [0.9, 0.1]])) == (pytest.approx(0.1), 0)
    assert parity(np.array([[0.6], [0.2]]), np.array([[0.4], [0.2]]))[1] == 1


@pytest.mark.parametrize(
    "theirs", [np.ones((2, 3)), np.ones((3, 2)), np.full((2, 2), np.nan), np.ones((2, 2, 1))]
)
def test_what_cannot_be_compared_is_an_error(theirs: np.ndarray) -> None:
    with pytest.raises(DataError):
        parity(np.ones((2, 2)), theirs)
