"""Data in a CSV file, with or without a header line."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.data.checks import as_ids, as_labels
from edgeprivacy.data.rows import Rows, as_side
from edgeprivacy.errors import DataError, did_you_mean

_BLOCK = 2000
_DELIMITERS = ",;\t"
_HOLDS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}


@dataclass(frozen=True)
class _Columns:
    """Positions of the columns with a meaning; all others are features."""

    label: tuple[int, ...]
    split: int | None
    ids: int | None
    names: list[str] | None
    count: int

    @property
    def features(self) -> list[int]:
        special = {*self.label, self.split, self.ids}
        return [column for column in range(self.count) if column not in special]

    def name(self, column: int) -> str:
        return f"'{self.names[column]}'" if self.names else f"{column} (counted from 0)"


def read_table(
    path: Path,
    label: str | None = None,
    header: bool = True,
    split_column: str | None = None,
    sides: Callable[[Any, str], NDArray[np.str_]] = as_side,
) -> Rows:
    """Rows of a CSV file: float32 [rows, features] in the order of the columns, values unchanged.

    Fields may be quoted; the delimiter is the comma, semicolon or tab that the first line has most of. With
    a header, a column named exactly `id` gives the row ids; no other column is ever taken for one. Labels
    may be names or numbers.

    Args:
        path: The file, UTF-8, any suffix.
        label: Name of the label column, or its index as text ("0" the first, "-1" the last). Default: the
            column named `label` if the header has one, else the last. Several with commas between them
            ("smiling,glasses") are independent labels of 0 and 1.
        header: Whether the first line holds column names.
        split_column: Name or index of a column of "train" and "holdout", or None.
        sides: Reads that column's cells: `sides(cells, where)` gives "train" or "holdout" a row.

    Raises:
        DataError: The file is missing, not text, ragged or empty; a named column is missing; a cell is empty,
            not a number, NaN or infinite (line and column named).
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist" if not path.exists() else f"{path} is not a file")
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            first = stream.readline()
            stream.seek(0)
            delimiter = max(_DELIMITERS, key=first.count)
            return _read(
                csv.reader(stream, delimiter=delimiter, strict=True), path, label, header, split_column, sides
            )
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path} is not a readable CSV file", got=error, hint="it must be text in UTF-8, one row a line"
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read", got=error.strerror) from None


def _read(
    reader: Iterator[list[str]],
    path: Path,
    label: str | None,
    header: bool,
    split: str | None,
    sides: Callable[[Any, str], NDArray[np.str_]],
) -> Rows:
    lines = _lines(reader)
    first = next(lines, None)
    if first is None:
        raise DataError(f"{path} is empty")
    names = None
    if header:
        names = [name.strip() for name in first[1]]
        _refuse_data_as_header(names, path)
        first = next(lines, None)
        if first is None:
            raise DataError(f"{path} has a header and no rows")
    columns = _columns(path, len(first[1]) if names is None else len(names), names, label, split)
    blocks: list[NDArray[np.float32]] = []
    texts: dict[int, list[str]] = {
        c: [] for c in (*columns.label, columns.split, columns.ids) if c is not None
    }
    pending: list[tuple[int, list[str]]] = [first]
    while pending:
        blocks.append(_block(pending, columns, path, header))
        for column, cells in texts.items():
            cells.extend(row[column].strip() for _, row in pending)
        pending = list(islice(lines, _BLOCK))
    x = np.concatenate(blocks)
    where = path.name
    return Rows(
        x=x,
        labels=_labels([texts[column] for column in columns.label], columns, where),
        where=where,
        stem=path.stem,
        ids=None if columns.ids is None else as_ids(texts[columns.ids], len(x), where),
        own_ids=columns.ids is not None,
        side=None if columns.split is None else sides(texts[columns.split], where),
        numbered=True,
        columns=None if names is None else tuple(names[column] for column in columns.features),
        class_names=tuple(names[column] for column in columns.label)
        if names is not None and len(columns.label) > 1
        else None,
    )


def _labels(texts: list[list[str]], columns: _Columns, where: str) -> NDArray[np.int64] | NDArray[np.str_]:
    """One column's labels as text [rows], or several columns' as 0 and 1 [rows, labels]."""
    if len(texts) == 1:
        return as_labels(np.array(texts[0], dtype=np.str_), len(texts[0]), where)
    for column, cells in zip(columns.label, texts, strict=True):
        for row, cell in enumerate(cells):
            if cell not in _HOLDS:
                raise DataError(
                    f"label {columns.name(column)} of {where}, one of several, holds another value",
                    got=f"'{cell[:40]}' in row {row} (counted from 0)",
                    allowed="0 or 1",
                )
    return np.array([[_HOLDS[cell] for cell in cells] for cells in texts], dtype=np.int64).T


def _lines(reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    """Line number (from 1) and cells of every line that is not blank."""
    for row in reader:
        if row:
            yield getattr(reader, "line_num", 0), row


def _columns(
    path: Path, count: int, names: list[str] | None, label: str | None, split: str | None
) -> _Columns:
    targets: tuple[int, ...]
    if label is None:
        targets = (names.index("label") if names and "label" in names else count - 1,)
    elif "," in label and label not in (names or ()):
        targets = tuple(_find(one.strip(), "label", path, count, names) for one in label.split(","))
        if len(set(targets)) < len(targets):
            raise DataError(f"a label column of {path} is named twice", got=label)
    else:
        targets = (_find(label, "label", path, count, names),)
    side = None if split is None else _find(split, "split", path, count, names)
    ids = names.index("id") if names and "id" in names else None
    if label is None and targets[0] in (side, ids):
        raise DataError(
            f"the last column of {path} is not the label",
            got=names[targets[0]] if names else targets[0],
            hint="name --label",
        )
    if side in targets:
        raise DataError(f"label and split of {path} are the same column", got=label)
    columns = _Columns(targets, side, ids if ids not in targets else None, names, count)
    if not columns.features:
        raise DataError(f"{path} has no feature column", got=f"{count} column{'s' if count > 1 else ''}")
    return columns


def _find(wanted: str, role: str, path: Path, count: int, names: list[str] | None) -> int:
    """Position of a column by its name, else by its index."""
    if names and wanted in names:
        if names.count(wanted) > 1:
            raise DataError(f"{path} has two columns named '{wanted}'", hint="name the column by its index")
        return names.index(wanted)
    try:
        index = int(wanted)
    except ValueError:
        hint = did_you_mean(wanted, names) if names else "without a header, columns go by index"
        raise DataError(f"{path} has no {role} column '{wanted}'", hint=hint) from None
    if not -count <= index < count:
        raise DataError(f"{path} has no column {index}", allowed=f"{-count} to {count - 1}")
    return index % count


def _refuse_data_as_header(names: list[str], path: Path) -> None:
    """A first line of numbers would be lost as a header, and one row with it."""
    if all(_number(name) for name in names) and names not in (
        [str(index) for index in range(len(names))],
        [str(index) for index in range(1, len(names) + 1)],
    ):
        raise DataError(
            f"the first line of {path} holds numbers, not column names",
            got=",".join(names[:5]) + (",..." if len(names) > 5 else ""),
            hint="if the file has no header, say --no-header",
        )


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _block(
    lines: list[tuple[int, list[str]]], columns: _Columns, path: Path, header: bool
) -> NDArray[np.float32]:
    for number, row in lines:
        if len(row) != columns.count:
            raise DataError(f"line {number} of {path} has {len(row)} cells, others {columns.count}")
    features = columns.features
    try:
        with np.errstate(over="ignore"):  # found as infinity below
            # Converting whole rows is the fast way where only the first or last column is not a feature.
            begin, end = features[0], features[-1] + 1
            if end - begin == len(features):
                values = np.array([row[begin:end] for _, row in lines], dtype=np.float32)
            else:
                values = np.array([[row[c] for c in features] for _, row in lines], dtype=np.float32)
    except ValueError:
        values = None
    if values is None or not np.isfinite(values).all():
        raise _bad_cell(lines, columns, path, header)
    return values


def _bad_cell(lines: list[tuple[int, list[str]]], columns: _Columns, path: Path, header: bool) -> DataError:
    """The first cell that is not a finite number, in words."""
    for number, row in lines:
        for column in columns.features:
            cell = row[column].strip()
            place = f"line {number}, column {columns.name(column)} of {path}"
            if not cell:
                return DataError(f"{place} is empty", hint="fill or drop rows with missing values")
            if not _number(cell):
                hint = "code categories as numbers; the label column is named with --label"
                if not header and number == 1:
                    hint = "if the first line holds column names, leave out --no-header"
                return DataError(f"{place} is not a number", got=repr(cell[:40]), hint=hint)
            with np.errstate(over="ignore"):
                finite = np.isfinite(np.float32(cell))
            if not finite:
                return DataError(f"{place} is NaN, infinite or beyond float32", got=cell[:40])
    return DataError(
        f"{path} holds cells that are not numbers"
    )  # unreachable unless numpy and float() disagree
