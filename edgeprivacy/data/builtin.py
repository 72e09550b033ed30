"""The embedded default: scikit-learn's handwritten digits, there with nothing downloaded."""

from __future__ import annotations

import numpy as np

from edgeprivacy.data.rows import Rows


def read_digits() -> Rows:
    """1,797 digits of 8 x 8 pixels as flat vectors: float32 [1797, 64], raw values 0..16; classes 0..9.

    Source: UCI "Optical Recognition of Handwritten Digits" (Alpaydin & Kaynak 1998), test part, as shipped
    with scikit-learn.
    """
    from sklearn.datasets import load_digits  # half a second to import: only when it is asked for

    digits = load_digits()
    return Rows(
        x=np.ascontiguousarray(digits.data, dtype=np.float32),
        labels=np.asarray(digits.target, dtype=np.int64),
        where="digits",
        stem="digits",
        class_names=tuple(str(digit) for digit in range(10)),
    )
