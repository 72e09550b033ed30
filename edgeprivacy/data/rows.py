"""What a loader hands over, and how labels become classes and rows get their names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.data.checks import LABEL_SETS_NOTE, unique_ids
from edgeprivacy.data.dataset import Dataset
from edgeprivacy.errors import DataError

SPLIT_VALUES = ("train", "holdout")


@dataclass(frozen=True)
class Rows:
    """Rows as one loader found them, before labels are turned into classes.

    Attributes:
        x: float32 [rows, ...].
        labels: int64 [rows] (class indices), str [rows] (names, as in the file), or 0 and 1
            [rows, labels] where a row has several.
        where: The file or factory, for messages and reports.
        stem: Short name that row ids begin with.
        ids: str [rows] or None; then rows are numbered from 0.
        own_ids: Whether the ids were given by the user, and so name a row wherever it stands. Generated ids
            (row numbers, relative paths) name it within its source only.
        side: str [rows] of "train" or "holdout", from a split column, or None.
        class_names: Names of the classes 0, 1, ... where the source declares them.
        numbered: Whether string labels may be numbers (CSV) and then sort and count as such.
        columns: Names of the feature columns where a CSV has a header.
    """

    x: NDArray[np.float32]
    labels: NDArray[np.int64] | NDArray[np.str_]
    where: str
    stem: str
    ids: NDArray[np.str_] | None = None
    own_ids: bool = False
    side: NDArray[np.str_] | None = None
    class_names: tuple[str, ...] | None = None
    numbered: bool = False
    columns: tuple[str, ...] | None = None

    def row_ids(self, prefix: str | None = None) -> NDArray[np.str_]:
        """The id of every row; a prefix ("train") replaces the stem and leaves the user's own ids alone."""
        if self.ids is None:
            return np.array([f"{prefix or self.stem}:{row}" for row in range(len(self.x))], dtype=np.str_)
        if self.own_ids or prefix is None:
            return self.ids
        return np.array([f"{prefix}:{row_id}" for row_id in self.ids.tolist()], dtype=np.str_)


def as_side(values: Any, where: str) -> NDArray[np.str_]:
    """A split column as "train" or "holdout" a row.

    Raises:
        DataError: Another value, or one side has no row.
    """
    side = np.array([str(value).strip().lower() for value in np.asarray(values).tolist()], dtype=np.str_)
    strange = ~np.isin(side, SPLIT_VALUES)
    if strange.any():
        row = int(np.argmax(strange))
        raise DataError(
            f"the split column of {where} holds another value",
            got=f"'{np.asarray(values)[row]}' in row {row} (counted from 0)",
            allowed=" or ".join(SPLIT_VALUES),
        )
    for name in SPLIT_VALUES:
        if not (side == name).any():
            raise DataError(f"the split column of {where} has no '{name}' row")
    return side


def assemble(
    parts: Mapping[str, Rows], classes: int | None = None, *, prefixed: bool
) -> tuple[dict[str, Dataset], tuple[str, ...]]:
    """One data set a part, with classes that mean the same in all of them, and notes for the report.

    Class indices stay as they are. Names become classes in sorted order over all parts; numbers in a CSV are
    sorted as numbers, and are kept as indices where `classes` is declared and all lie in 0..classes-1.

    Args:
        parts: Rows by side ("train", "holdout"; "members", ...).
        classes: Number of classes if it is known (a given model's outputs), else found from the labels.
        prefixed: Whether generated ids begin with the name of the part instead of the source's stem.

    Raises:
        DataError: Inputs of the parts differ in shape, labels are out of range or cannot be joined.
    """
    first = next(iter(parts.values()))
    for rows in parts.values():
        if rows.x.shape[1:] != first.x.shape[1:]:
            raise DataError(
                f"rows of {rows.where} and {first.where} differ in shape",
                got=f"{rows.x.shape[1:]} and {first.x.shape[1:]}",
            )
    labels, names, notes = _encode(parts, classes)
    data = {
        name: Dataset(
            x=rows.x,
            y=labels[name],
            ids=rows.row_ids(name if prefixed else None),
            classes=len(names),
            class_names=names,
            source=rows.where,
        )
        for name, rows in parts.items()
    }
    return data, notes


def concatenate(parts: Mapping[str, Dataset]) -> Dataset:
    """All rows as one data set.

    Raises:
        DataError: An id stands in two parts.
    """
    data = list(parts.values())
    source = " + ".join(dict.fromkeys(part.source for part in data))
    ids = np.array([row_id for part in data for row_id in part.ids.tolist()], dtype=np.str_)
    unique_ids(ids, source)
    return Dataset(
        x=np.concatenate([part.x for part in data]),
        y=np.concatenate([part.y for part in data]),
        ids=ids,
        classes=data[0].classes,
        class_names=data[0].class_names,
        source=source,
    )


def _encode(
    parts: Mapping[str, Rows], classes: int | None
) -> tuple[dict[str, NDArray[np.int64]], tuple[str, ...], tuple[str, ...]]:
    """Class indices by part, class names, notes."""
    wheres = ", ".join(dict.fromkeys(rows.where for rows in parts.values()))
    if any(rows.labels.ndim == 2 for rows in parts.values()):
        return _label_sets(parts, classes, wheres)
    strings = [rows.labels.dtype.kind == "U" for rows in parts.values()]
    if all(strings):
        merged = {name: np.array(rows.labels, dtype=np.str_) for name, rows in parts.items()}
        as_numbers = all(rows.numbered for rows in parts.values())
        return _encode_names(merged, classes, as_numbers, wheres)
    if any(strings):
        raise DataError(f"labels of {wheres} are numbers in one and names in the other")
    indices = {name: np.asarray(rows.labels, dtype=np.int64) for name, rows in parts.items()}
    declared = next((rows.class_names for rows in parts.values() if rows.class_names), None)
    found = 1 + max(int(labels.max()) for labels in indices.values())
    count = classes or (len(declared) if declared else found)
    if found > count:
        raise DataError(f"a label of {wheres} is out of range", got=found - 1, allowed=f"0 to {count - 1}")
    _two_classes(indices, count if classes or declared else None, wheres)
    if declared and len(declared) == count:
        return indices, declared, ()
    return indices, tuple(str(label) for label in range(count)), ()


def _label_sets(
    parts: Mapping[str, Rows], classes: int | None, wheres: str
) -> tuple[dict[str, NDArray[np.int64]], tuple[str, ...], tuple[str, ...]]:
    """Several labels a row: as many in every part as the model answers."""
    shapes = {rows.labels.shape[1:] for rows in parts.values()}
    if len(shapes) > 1:
        raise DataError(f"rows of {wheres} have different numbers of labels")
    count = next(iter(shapes))[0]
    if classes is not None and classes != count:
        raise DataError(
            f"rows of {wheres} have another number of labels than the model answers",
            got=f"{count} labels",
            allowed=str(classes),
        )
    labels = {name: np.asarray(rows.labels, dtype=np.int64) for name, rows in parts.items()}
    declared = next((rows.class_names for rows in parts.values() if rows.class_names), None)
    return labels, declared or tuple(str(label) for label in range(count)), (LABEL_SETS_NOTE,)


def _encode_names(
    labels: dict[str, NDArray[np.str_]], classes: int | None, numbered: bool, where: str
) -> tuple[dict[str, NDArray[np.int64]], tuple[str, ...], tuple[str, ...]]:
    names: list[str] = sorted({name for part in labels.values() for name in np.unique(part).tolist()})
    numbers = [_whole(name) for name in names] if numbered else []
    whole = [number for number in numbers if number is not None]
    if numbered and len(whole) == len(names):
        # "1", "01" and "1.0" are one class; the order is that of the numbers.
        if classes is not None and min(whole) >= 0 and max(whole) < classes:
            order = list(range(classes))
        else:
            order = sorted(set(whole))
        position = {number: index for index, number in enumerate(order)}
        lookup = {name: position[number] for name, number in zip(names, whole, strict=True)}
        class_names = tuple(str(number) for number in order)
    else:
        if numbered:
            _refuse_fractions(names, where)
        lookup = {name: index for index, name in enumerate(names)}
        class_names = tuple(names)
    if classes is not None and len(class_names) > classes:
        raise DataError(
            f"{where} has more classes than declared", got=f"{len(class_names)} classes", allowed=f"{classes}"
        )
    encoded = {
        part: np.array([lookup[name] for name in values.tolist()], dtype=np.int64)
        for part, values in labels.items()
    }
    _two_classes(encoded, classes, where)
    notes: tuple[str, ...] = ()
    if classes is not None and len(class_names) < classes:
        raise DataError(
            f"{where} names fewer classes than declared, so they cannot be matched to the model's outputs",
            got=f"{len(class_names)} names for {classes} outputs",
            hint="give the labels as class indices 0, 1, 2, ...",
        )
    if numbered and whole and class_names != tuple(str(index) for index in range(len(class_names))):
        notes = (
            f"labels {class_names[0]} to {class_names[-1]} of {where} are, sorted, "
            f"classes 0 to {len(class_names) - 1}",
        )
    return encoded, class_names, notes


def _whole(text: str) -> int | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if np.isfinite(number) and number == np.floor(number) else None


def _refuse_fractions(names: list[str], where: str) -> None:
    """Labels that are all numbers but not all whole are measurements, not classes."""
    try:
        numbers = {name: float(name) for name in names}
    except ValueError:
        return
    example = next(name for name in numbers if _whole(name) is None)
    raise DataError(
        f"a label of {where} is not a whole number",
        got=example,
        hint="labels are classes; name the right column with --label",
    )


def _two_classes(labels: Mapping[str, NDArray[np.int64]], declared: int | None, where: str) -> None:
    found = len(np.unique(np.concatenate(list(labels.values()))))
    if (declared or found) < 2:
        raise DataError(f"{where} has fewer than 2 classes", got=f"{found} class")
