"""Rows as a model file takes them: checked, cast, quantized once per input format. Shared by all runners."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.converters.facts import TensorFacts
from edgeprivacy.errors import ArtifactError, DataError

_FLOATS = ("float32", "float16", "float64")
_INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64")
_BLOCK = 1 << 16
"""Numbers encoded at a time: the passes over them stay in a core's cache."""


@dataclass(frozen=True)
class InputFormat:
    """What two files have in common that share prepared rows. `scale` is None where nothing is quantized."""

    dtype: str
    scale: float | None
    zero_point: int | None


def input_format(file: Path, tensor: TensorFacts | None, x: NDArray[Any]) -> InputFormat:
    """The format a file takes, after checking that rows `x` [rows, ...] fit it.

    A file that does not say what it takes (None, or a type "unknown", as of a .ptl) is given float32; its
    interpreter refuses rows that do not fit.

    Raises:
        DataError: The rows have another shape than the model's input.
        ArtifactError: The input is of a type or rank that rows cannot be given to.
    """
    if tensor is None or tensor.dtype == "unknown":
        return InputFormat("float32", None, None)
    if not tensor.shape or tensor.dtype not in (*_FLOATS, *_INTEGERS):
        raise ArtifactError(
            f"{file} cannot be given rows",
            got=f"an input of type {tensor.dtype} and shape {list(tensor.shape)}",
        )
    row, given = tensor.shape[1:], x.shape[1:]
    if len(row) != len(given) or any(m not in (-1, g) for m, g in zip(row, given, strict=True)):
        raise DataError(
            f"the rows do not fit {file}",
            got=f"rows of shape {list(given)}",
            allowed=f"rows of shape {list(row)}",
        )
    return InputFormat(tensor.dtype, tensor.scale, tensor.zero_point)


def check_rows(x: NDArray[Any], labels: NDArray[Any], row_ids: NDArray[Any]) -> None:
    """Raises DataError unless there is at least one row, of numbers, with one label and id each."""
    if x.ndim < 2 or len(x) == 0:
        raise DataError("there are no rows to run", got=f"shape {list(x.shape)}", allowed="[rows, ...]")
    if x.dtype.kind not in "fiub":
        raise DataError("rows must be numbers", got=str(x.dtype))
    if len(labels) != len(x) or len(row_ids) != len(x):
        raise DataError(
            "rows, labels and row ids must be equally many", got=f"{len(x)}, {len(labels)}, {len(row_ids)}"
        )


def encode(
    rows: NDArray[Any],
    format_: InputFormat,
    row_ids: NDArray[Any] | None = None,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Rows in the file's own type, C-contiguous.

    An integer input with a scale gets q = round(x / scale) + zero point in float32, halves to even, clipped
    to the type. An integer input without a scale takes whole numbers that fit it, as they are.

    Args:
        rows: [rows, ...] any numbers, in the units of the original model's input.
        row_ids: str [rows], to name a bad row.
        out: [rows, ...] of the file's type, to write into.

    Raises:
        DataError: NaN or infinity, or numbers an integer input without a scale cannot take.
    """
    target = np.dtype(format_.dtype)
    if format_.scale is None and target.kind in "iu":
        whole = _whole(rows, target)
        if out is None:
            return whole
        out[...] = whole
        return out
    if out is None:
        out = np.empty(rows.shape, target)
    kind = np.float64 if target == np.float64 else np.float32
    step = max(1, _BLOCK // max(1, math.prod(rows.shape[1:])))
    scratch = np.empty((min(step, len(rows)), *rows.shape[1:]), kind)
    for start in range(0, len(rows), step):
        part, to = rows[start : start + step], out[start : start + step]
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, and is reported below
            real = np.asarray(part, kind)
        low, high = real.min(initial=0), real.max(initial=0)  # NaN if there is one
        if not (np.isfinite(low) and np.isfinite(high)):
            _refuse_nonfinite(rows, kind, row_ids)
        if format_.scale is None:
            to[...] = real
        else:
            _quantize(real, (low, high), format_, scratch[: len(part)])
            to[...] = scratch[: len(part)]
    return out


def _quantize(
    real: NDArray[Any], ends: tuple[np.floating[Any], ...], format_: InputFormat, out: NDArray[Any]
) -> None:
    """Whole numbers of the format's type for reals whose smallest and largest are given, as floats."""

    def steps(x: Any, out: NDArray[Any] | None = None) -> Any:
        return np.add(
            np.rint(np.divide(x, np.float32(format_.scale or 1), out=out), out=out),
            np.float32(format_.zero_point or 0),
            out=out,
        )

    limits = np.iinfo(format_.dtype)
    with np.errstate(over="ignore"):  # beyond float32 is beyond the integers
        steps(real, out)
        low, high = (steps(end) for end in ends)
    if low < limits.min or high > limits.max:  # each step is monotonic
        np.clip(out, limits.min, limits.max, out=out)


def _whole(rows: NDArray[Any], target: np.dtype[Any]) -> NDArray[Any]:
    if rows.dtype == target:
        return np.ascontiguousarray(rows)
    limits = np.iinfo(target)
    ok = (rows >= limits.min) & (rows <= limits.max)
    if rows.dtype.kind == "f":
        ok &= np.rint(rows) == rows
    if not ok.all():
        raise DataError(
            f"the file takes {target.name} without a scale",
            got=str(rows[~ok].flat[0]),
            allowed="whole numbers",
        )
    return np.ascontiguousarray(rows, dtype=target)


def _refuse_nonfinite(rows: NDArray[Any], kind: type, row_ids: NDArray[Any] | None) -> NoReturn:
    with np.errstate(over="ignore"):
        bad = np.flatnonzero(~np.isfinite(rows.astype(kind).reshape(len(rows), -1)).all(axis=1))
    first = f"first: row {row_ids[bad[0]]}" if row_ids is not None else f"first at position {bad[0]}"
    raise DataError("inputs hold NaN or infinity", got=f"{len(bad)} such rows, {first}")
