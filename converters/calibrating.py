"""Representative rows, checked before a quantizer sees them. Framework-free."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.errors import DataError


def calibration_rows(rows: NDArray[Any] | None, input_shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Calibration rows as float32 [rows, *input_shape].

    Raises:
        DataError: None given, of another shape, or not finite.
    """
    if rows is None or len(rows) == 0:
        raise DataError(
            "int8 needs calibration rows", hint="give representative rows, or use format 'dynamic'"
        )
    if tuple(rows.shape[1:]) != tuple(input_shape):
        raise DataError(
            "calibration rows do not fit the model's input", got=rows.shape[1:], allowed=str(input_shape)
        )
    rows = np.ascontiguousarray(rows, dtype=np.float32)
    if not np.isfinite(rows).all():
        raise DataError("calibration rows hold NaN or infinity")
    return rows
