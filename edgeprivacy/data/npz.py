"""Data in an .npz file: arrays `x`, `y`, optionally `ids`, and a split array where one is named."""

from __future__ import annotations

from pathlib import Path

from edgeprivacy.data.checks import as_ids, as_inputs, as_labels
from edgeprivacy.data.rows import Rows, as_side
from edgeprivacy.errors import DataError, did_you_mean
from edgeprivacy.files import read_npz


def read_npz_rows(path: Path, split_column: str | None = None, label_sets: bool = False) -> Rows:
    """Rows of an .npz file.

    `x` is [rows, ...] of numbers, taken as float32 without scaling; `y` is [rows] of class indices or names;
    `ids` is [rows], a string or an integer a row.

    Args:
        path: The file.
        split_column: Name of an array [rows] of "train" and "holdout", or None.
        label_sets: Whether `y` may be 0 and 1 [rows, labels].

    Raises:
        DataError: The file is missing or damaged, an array is missing or does not fit.
    """
    arrays = read_npz(path)
    where = path.name
    for name in ("x", "y", *([split_column] if split_column else [])):
        if name not in arrays:
            raise DataError(
                f"{path} has no array '{name}'",
                got=f"arrays {', '.join(arrays) or '(none)'}",
                hint=did_you_mean(name, arrays) or "write it with numpy.savez(path, x=..., y=..., ids=...)",
            )
    x = as_inputs(arrays["x"], where)
    labels = as_labels(arrays["y"], len(x), where, label_sets)
    ids = as_ids(arrays["ids"], len(x), where) if "ids" in arrays else None
    side = None
    if split_column:
        if arrays[split_column].shape != (len(x),):
            raise DataError(
                f"'{split_column}' of {path} must be one value a row", got=arrays[split_column].shape
            )
        side = as_side(arrays[split_column], where)
    return Rows(x, labels, where, path.stem, ids=ids, own_ids=ids is not None, side=side)
