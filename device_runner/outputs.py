"""Output tensors as probabilities: dequantized, checked to be distributions. Shared by all runners."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.errors import ArtifactError, DataError

_BLOCK = 1 << 17
"""Numbers converted at a time: the temporaries stay in a core's cache."""
_FLOAT_TOLERANCE = 1e-3
_QUANTIZED_TOLERANCE = 0.02


@dataclass(frozen=True)
class OutputFormat:
    """How to read an output tensor.

    Attributes:
        file: For messages.
        scale, zero_point: Of an integer tensor; None for a float one.
        step: Step of the grid that the values lie on (also of a float output behind DEQUANTIZE), or 0.
        ends_in: Name of the file's last computing operator, if known.
    """

    file: Path
    scale: float | None
    zero_point: int | None
    step: float
    ends_in: str | None


def probabilities_of(raw: NDArray[Any], format_: OutputFormat, logits: bool) -> NDArray[np.float32]:
    """float32 [rows, classes] from the output tensor [rows, columns]; one column p becomes two, 1-p and p.

    Integers are dequantized as (q - zero point) * scale. With `logits`, softmax (one column: sigmoid) in
    float64.

    Raises:
        DataError: The outputs are not finite or no distributions, or logits are claimed of a file that ends
            in a softmax (where the file does not tell: whose first rows all sum to one).
        ArtifactError: An integer output without a scale.
    """
    file = format_.file
    if raw.dtype.kind in "iu" and not format_.scale:
        raise ArtifactError(f"{file} answers integers without a scale", got=raw.dtype.name)
    if logits and format_.ends_in in ("SOFTMAX", "LOGISTIC"):
        raise DataError(
            f"{file} ends in {format_.ends_in}: it answers probabilities, no logits",
            hint="leave out --logits",
        )
    rows, columns = raw.shape
    as_it_is = raw.dtype == np.float32 and columns > 1 and not logits
    result = raw if as_it_is else np.empty((rows, max(2, columns)), np.float32)
    step = max(1, _BLOCK // columns)
    for start in range(0, rows, step):
        real = _real(raw[start : start + step], format_)
        low, high = float(real.min()), float(real.max())  # NaN if there is one
        if not (np.isfinite(low) and np.isfinite(high)):
            raise DataError(f"{file} answered NaN or infinity", hint="the file or its inputs may be damaged")
        p = _squash(real) if logits else real
        if not logits:
            _check(p, low, high, format_)
        elif start == 0 and format_.ends_in is None and columns > 1 and _sums_to_one(real, low):
            raise DataError(
                f"{file} answers probabilities, no logits: all its rows sum to one", hint="leave out --logits"
            )
        if columns == 1:
            result[start : start + step, 0] = 1.0 - p[:, 0]
            result[start : start + step, 1] = p[:, 0]
        elif not as_it_is:
            result[start : start + step] = p
    return result


def _real(block: NDArray[Any], format_: OutputFormat) -> NDArray[Any]:
    if block.dtype.kind not in "iu":
        return np.asarray(block, np.float32)
    shifted = np.subtract(block, np.int32(format_.zero_point or 0), dtype=np.int32)
    return np.asarray(np.multiply(shifted, np.float32(format_.scale or 0), dtype=np.float32))


def _squash(logits: NDArray[Any]) -> NDArray[np.float64]:
    z = logits.astype(np.float64)
    if z.shape[1] == 1:
        z = np.hstack([np.zeros_like(z), z])
        return _softmax(z)[:, 1:]
    return _softmax(z)


def _softmax(z: NDArray[np.float64]) -> NDArray[np.float64]:
    z = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(z / z.sum(axis=1, keepdims=True))


def _sums_to_one(p: NDArray[Any], low: float) -> bool:
    return low >= 0 and bool((np.abs(p.sum(axis=1) - 1) <= _FLOAT_TOLERANCE).all())


def _check(p: NDArray[Any], low: float, high: float, format_: OutputFormat) -> None:
    columns = p.shape[1]
    slack = _QUANTIZED_TOLERANCE + columns * format_.step / 2 if format_.step else _FLOAT_TOLERANCE
    if columns == 1:
        if low < -slack or high > 1 + slack:
            raise _no_distribution(format_, low, high, f"one column with values from {low:.4g} to {high:.4g}")
        return
    sums = p @ np.ones(columns, p.dtype)  # a product: ten times as fast as sums over short rows
    if low < -1e-6 or not np.abs(sums - 1).max() <= slack:
        raise _no_distribution(
            format_,
            low,
            high,
            f"row sums from {sums.min():.4g} to {sums.max():.4g}, smallest value {low:.4g}",
        )


def _no_distribution(format_: OutputFormat, low: float, high: float, got: str) -> DataError:
    if format_.ends_in == "LOGISTIC":
        hint = (
            "it ends in LOGISTIC with several columns: if its labels are independent (multi-label), give "
            "them as 0 and 1 [rows, labels]"
        )
    elif format_.ends_in is None and 0 <= low and high <= 1:
        hint = (
            "if they are logits, pass --logits; if they are independent labels (multi-label), give these as "
            "0 and 1 [rows, labels]"
        )
    else:
        hint = "they look like logits: pass --logits to apply a softmax"
    return DataError(f"the outputs of {format_.file} are no probability distributions", got=got, hint=hint)
