"""What arrays must be before anything is trained or attacked, and rows that stand on both sides."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.data.dataset import Dataset
from edgeprivacy.errors import DataError

MOST_CLASSES = 100_000
"""Labels from here on are taken for something else than classes (ids, time stamps)."""

LABEL_SETS_NOTE = (
    "Rows have several independent labels. Attacked is what a model thinks of a row as a whole: the mean "
    "over its labels of the log odds that it gives to what is true. Accuracy is the share of rows of which "
    "every label is answered rightly."
)
"""What a reader of numbers about such rows must know."""


def as_inputs(x: Any, where: str) -> NDArray[np.float32]:
    """Inputs as float32 [rows, ...], values unchanged.

    Args:
        x: Anything numpy can read as a numeric array of two or more dimensions.
        where: Name of the source, for messages.

    Raises:
        DataError: Not numeric, fewer than two dimensions, empty, or NaN or infinity (row and column named).
    """
    try:
        array = np.asarray(x)
    except ValueError:  # rows of different lengths
        raise DataError(f"x of {where} is not an array: its rows differ in shape") from None
    if array.dtype == object:
        raise DataError(
            f"x of {where} holds Python objects, not numbers",
            hint="rows of different lengths or mixed types; convert with numpy.asarray(x, dtype='float32')",
        )
    if array.dtype.kind not in "fiub":
        raise DataError(f"x of {where} is not numeric", got=f"dtype {array.dtype}")
    if array.ndim < 2:
        raise DataError(
            f"x of {where} has the wrong shape",
            got=array.shape,
            allowed="[rows, features...]",
            hint=_one_row(array),
        )
    if array.size == 0:
        raise DataError(f"x of {where} is empty", got=f"shape {array.shape}")
    with np.errstate(over="ignore"):  # found as infinity below
        inputs = np.ascontiguousarray(array, dtype=np.float32)
    if array.dtype.kind == "f" and not np.isfinite(inputs).all():
        bad = np.argwhere(~np.isfinite(inputs))[0]
        row, column = int(bad[0]), ", ".join(str(axis) for axis in bad[1:])
        raise DataError(
            f"x of {where} holds NaN, infinity or a value beyond float32",
            got=f"{array[tuple(bad)]} in row {row}, column {column} (counted from 0)",
            hint="fill or drop such rows before",
        )
    return inputs


def _one_row(array: NDArray[Any]) -> str | None:
    return "for a single feature give x.reshape(-1, 1)" if array.ndim == 1 and array.size else None


def is_label_sets(y: Any) -> bool:
    """Whether labels are several a row: 0 and 1 [rows, labels], and not one-hot classes."""
    array = np.asarray(y)
    if array.ndim != 2 or array.shape[1] < 2 or array.dtype.kind not in "fiub" or not array.size:
        return False
    return bool(np.isin(array, (0, 1)).all()) and not bool((array.sum(axis=1) == 1).all())


def as_labels(y: Any, rows: int, where: str, sets: bool = False) -> NDArray[np.int64] | NDArray[np.str_]:
    """Labels as int64 or str [rows]; whole floats and booleans become integers, [rows, 1] is flattened.

    Args:
        sets: Whether several labels a row, 0 and 1 [rows, labels], may stay what they are.

    Raises:
        DataError: Not one label a row; or negative, fractional, not finite, or neither numbers nor strings.
    """
    array = np.asarray(y)
    if sets and len(array) == rows and is_label_sets(array):
        return array.astype(np.int64)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        hint = None
        if array.ndim == 2 and len(array) == rows:
            hint = "one-hot labels become class indices with y.argmax(axis=1)"
            if is_label_sets(array):
                hint = (
                    "several labels a row (multi-label) are not trained here: train and convert the model "
                    "yourself, then `edgeprivacy audit` its file with these labels, or `attack` its outputs"
                )
        raise DataError(f"y of {where} has the wrong shape", got=array.shape, allowed="[rows]", hint=hint)
    if len(array) != rows:
        raise DataError(f"x and y of {where} differ in length", got=f"{rows} rows of x, {len(array)} labels")
    if array.dtype == object:
        if not all(isinstance(label, str) for label in array):
            raise DataError(f"y of {where} holds Python objects", allowed="integers or strings")
        array = array.astype(np.str_)
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8")
    if array.dtype.kind == "U":
        empty = np.flatnonzero(np.char.str_len(np.char.strip(array)) == 0)
        if len(empty):
            raise DataError(f"a label of {where} is empty", got=f"row {empty[0]} (counted from 0)")
        return array
    if array.dtype.kind not in "fiub":
        raise DataError(f"y of {where} is neither numbers nor strings", got=f"dtype {array.dtype}")
    if array.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            fractional = np.flatnonzero(~np.isfinite(array) | (array != np.floor(array)))
        if len(fractional):
            raise DataError(
                f"a label of {where} is not a whole number",
                got=f"{array[fractional[0]]} in row {fractional[0]} (counted from 0)",
                hint="labels are classes 0, 1, 2, ...; check that the right column is named as the label",
            )
    outside = np.flatnonzero((array < 0) | (array >= MOST_CLASSES))
    if len(outside):
        raise DataError(
            f"a label of {where} is out of range",
            got=f"{array[outside[0]]} in row {outside[0]} (counted from 0)",
            allowed=f"0 to {MOST_CLASSES - 1}",
            hint="number the classes from 0, or give their names as strings",
        )
    return array.astype(np.int64)


def as_ids(ids: Any, rows: int, where: str) -> NDArray[np.str_]:
    """Row identities as str [rows].

    Raises:
        DataError: Not one id a row, an empty id, or an id that stands twice.
    """
    array = np.asarray(ids)
    if array.shape != (rows,):
        raise DataError(f"ids of {where} must be one a row", got=f"shape {array.shape} for {rows} rows")
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8")
    names: NDArray[np.str_] = np.array([str(row_id).strip() for row_id in array.tolist()], dtype=np.str_)
    if (names == "").any():
        raise DataError(
            f"an id of {where} is empty", got=f"row {int(np.argmax(names == ''))} (counted from 0)"
        )
    unique_ids(names, where)
    return names


def unique_ids(ids: NDArray[np.str_], where: str) -> None:
    """Raises DataError, naming one, when an id stands twice."""
    values, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        example = values[np.argmax(counts > 1)]
        raise DataError(
            f"row ids of {where} are not unique",
            got=f"{int((counts - 1).sum())} repeated, such as '{example}'",
            hint="every row needs an id of its own",
        )


def row_digests(x: NDArray[Any]) -> NDArray[np.void]:
    """A 16-byte digest of every row's content, void [rows]; -0.0 counts as 0.0, labels do not count."""
    digests = bytearray()
    rows = max(1, (1 << 22) // max(1, x[0].nbytes)) if len(x) else 1
    for start in range(0, len(x), rows):
        block = x[start : start + rows]
        block = np.ascontiguousarray(block + x.dtype.type(0)).reshape(len(block), -1).view(np.uint8)
        for row in block:
            digests += hashlib.blake2b(row.data, digest_size=16).digest()
    return np.frombuffer(bytes(digests), dtype="V16")


@dataclass(frozen=True)
class Overlap:
    """Rows that stand in two sets.

    Attributes:
        by_id: Rows of the second set whose id is in the first.
        by_content: Rows of the second set whose inputs equal those of a row of the first.
        example: One such pair in words, or None.
        rows: bool [rows of the second set], overlapping by either.
    """

    by_id: int
    by_content: int
    example: str | None
    rows: NDArray[np.bool_]

    def __bool__(self) -> bool:
        return bool(self.rows.any())


def overlap(a: Dataset, b: Dataset) -> Overlap:
    """Rows of `b` that are also in `a`, by id or by equal inputs."""
    same_id = np.isin(b.ids, a.ids)
    if a.input_shape == b.input_shape:
        digests_a, digests_b = row_digests(a.x), row_digests(b.x)
        same_content = np.isin(digests_b, digests_a)
    else:
        same_content = np.zeros(len(b), dtype=bool)
    example = None
    if same_id.any():
        example = f"id '{b.ids[np.argmax(same_id)]}' is in both"
    elif same_content.any():
        row = int(np.argmax(same_content))
        twin = int(np.flatnonzero(digests_a == digests_b[row])[0])
        example = f"'{b.ids[row]}' has the inputs of '{a.ids[twin]}'"
    return Overlap(int(same_id.sum()), int(same_content.sum()), example, same_id | same_content)


def refuse_overlap(members: Dataset, nonmembers: Dataset) -> None:
    """Raises DataError with counts and an example when a row is on both sides, by id or by content."""
    found = overlap(members, nonmembers)
    if found:
        raise DataError(
            f"{int(found.rows.sum())} of {len(nonmembers)} rows stand among both members and non-members",
            got=f"{found.by_id} with the same id, {found.by_content} with the same content; {found.example}",
            hint="a row cannot be both; take them out, or let --drop-overlap drop them from the non-members",
        )


def drop_overlap(members: Dataset, nonmembers: Dataset) -> tuple[Dataset, Overlap]:
    """The non-members without the rows that are also members, and what was dropped.

    The members stay whole: such a row did train the model.

    Raises:
        DataError: No non-member is left.
    """
    found = overlap(members, nonmembers)
    if not found:
        return nonmembers, found
    if found.rows.all():
        raise DataError("every non-member is also a member", got=found.example)
    return nonmembers.take(nonmembers.ids[~found.rows]), found


def repeated_rows(x: NDArray[Any]) -> int:
    """How many rows repeat the inputs of an earlier row of the same set."""
    return len(x) - len(np.unique(row_digests(x)))
