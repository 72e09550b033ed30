"""Outputs that somebody else collected: a CSV or .npz file of confidence vectors and labels."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.confidences import Confidences
from edgeprivacy.data.checks import as_ids, as_labels, is_label_sets
from edgeprivacy.data.rows import SPLIT_VALUES, Rows
from edgeprivacy.data.tables import read_table
from edgeprivacy.device_runner.outputs import OutputFormat, probabilities_of
from edgeprivacy.errors import DataError, did_you_mean
from edgeprivacy.files import read_npz, sha256_file
from edgeprivacy.multi_label import checked_sigmoids, confidences_of_label_sets

_MEMBER = {"member", "members", "train", "in", "1", "1.0", "true", "yes"}
_NONMEMBER = {"nonmember", "nonmembers", "non-member", "holdout", "test", "out", "0", "0.0", "false", "no"}
_NUMBERED = re.compile(r"(.*?)(\d+)")
_PLAIN = re.compile(r"p(\d+)")


def read_probabilities(
    path: Path, *, label: str | None = None, header: bool = True, logits: bool = False
) -> Confidences:
    """Confidence vectors and labels from what `Confidences.save` wrote, another .npz, or a CSV file.

    An .npz holds `probabilities` [rows, classes] and `labels` [rows], optionally `row_ids` (or `ids`). A CSV
    holds a column a class (named p0, p1, ...; or after the classes; or without names, in the order of the
    classes) and a label column. One column p of a binary model becomes two, 1-p and p.

    Args:
        path: The file.
        label: Label column of a CSV, by name or index; see `data.tables.read_table`.
        header: Whether a CSV begins with a line of column names.
        logits: The numbers are logits; the softmax is taken in float64.

    Raises:
        DataError: The file cannot be read, a row is no probability distribution, or a label is no class.
    """
    confidences, _ = _read(path, label, header, logits, None)
    return confidences


def read_probability_table(
    path: Path, member_column: str, *, label: str | None = None, header: bool = True, logits: bool = False
) -> tuple[Confidences, Confidences]:
    """Members and non-members out of one file, told apart by a column (of an .npz: an array).

    Its cells are 1 or 0, true or false, yes or no, member or nonmember, train or holdout.

    Raises:
        DataError: As `read_probabilities`, or a cell says neither, or one side has no row.
    """
    confidences, members = read_member_table(path, member_column, label=label, header=header, logits=logits)
    return confidences.take(members), confidences.take(~members)


def read_member_table(
    path: Path, member_column: str, *, label: str | None = None, header: bool = True, logits: bool = False
) -> tuple[Confidences, NDArray[np.bool_]]:
    """As `read_probability_table`, but all rows in the file's order, and which of them are members."""
    confidences, members = _read(path, label, header, logits, member_column)
    assert members is not None
    return confidences, members


def checked_probabilities(values: Any, where: Path, logits: bool = False, step: float = 0.0) -> NDArray[Any]:
    """Confidence vectors float32 [rows, classes] from numbers [rows, classes] or [rows].

    Args:
        values: Probabilities, or logits.
        where: Their source, for messages.
        logits: Take the softmax (one column: the sigmoid).
        step: Step of the grid that they lie on, if any: sums may then miss one by rounding.

    Raises:
        DataError: Not numbers, not finite, or rows that are no distributions.
    """
    array = np.asarray(values)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.dtype.kind not in "fiub" or array.size == 0:
        raise DataError(
            f"probabilities of {where} have the wrong shape",
            got=f"{array.shape} of {array.dtype}",
            allowed="numbers [rows, classes]",
        )
    floats = array.astype(np.float32)
    return probabilities_of(floats, OutputFormat(where, None, None, step, None), logits)


def labels_in_range(labels: NDArray[np.int64], classes: int, where: str) -> None:
    """Raises DataError unless every label is one of the classes 0..classes-1. Sets of independent labels are
    compared with the answers where these are read."""
    if labels.ndim == 2:
        return
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(outside):
        raise DataError(
            f"a label of {where} is out of range",
            got=f"{labels[outside[0]]} in row {outside[0]} (counted from 0)",
            allowed=f"0 to {classes - 1}, for {classes} classes",
        )


def _read(
    path: Path, label: str | None, header: bool, logits: bool, member_column: str | None
) -> tuple[Confidences, NDArray[np.bool_] | None]:
    if path.is_file() and (path.suffix.lower() == ".npz" or zipfile.is_zipfile(path)):
        return _read_npz(path, logits, member_column)
    return _read_csv(path, label, header, logits, member_column)


def _read_npz(
    path: Path, logits: bool, member_column: str | None
) -> tuple[Confidences, NDArray[np.bool_] | None]:
    arrays = read_npz(path)
    for name in ("probabilities", "labels", *([member_column] if member_column else [])):
        if name not in arrays:
            raise DataError(
                f"{path} has no array '{name}'",
                got=f"arrays {', '.join(arrays) or '(none)'}",
                hint=did_you_mean(name, arrays)
                or "write it with numpy.savez(path, probabilities=..., labels=...)",
            )
    if "facts" in arrays:
        confidences = Confidences.load(path)
        if logits:
            raise DataError(
                f"{path} holds probabilities that were collected already", hint="leave out --logits"
            )
        step = confidences.grid.scale if confidences.grid is not None else 0.0
        checked_probabilities(confidences.probabilities, path, step=step)
    else:
        own = next((arrays[name] for name in ("row_ids", "ids") if name in arrays), None)
        rows = len(arrays["probabilities"])
        ids = _generated_ids(path, rows) if own is None else as_ids(own, rows, path.name)
        if is_label_sets(arrays["labels"]):
            answers = checked_sigmoids(arrays["probabilities"], path, logits)
            confidences = confidences_of_label_sets(answers, arrays["labels"], ids, path.name)
        else:
            values = checked_probabilities(arrays["probabilities"], path, logits)
            labels = as_labels(arrays["labels"], rows, path.name)
            if labels.dtype.kind == "U":
                raise DataError(f"labels of {path} are names", hint="give class indices 0, 1, 2, ...")
            confidences = Confidences(values, ids, labels.astype(np.int64))
    labels_in_range(confidences.labels, confidences.probabilities.shape[1], path.name)
    members = None
    if member_column:
        cells = arrays[member_column]
        if cells.shape != confidences.labels.shape:
            raise DataError(f"'{member_column}' of {path} must be one value a row", got=cells.shape)
        members = _sides(cells.tolist(), path.name) == SPLIT_VALUES[0]
    return confidences, members


def _read_csv(
    path: Path, label: str | None, header: bool, logits: bool, member_column: str | None
) -> tuple[Confidences, NDArray[np.bool_] | None]:
    rows = read_table(path, label, header, member_column, _sides)
    order = _class_columns(rows)
    members = rows.side == SPLIT_VALUES[0] if rows.side is not None else None
    ids = rows.ids if rows.ids is not None else _generated_ids(path, len(rows.x))
    if rows.labels.ndim == 2:
        answers = checked_sigmoids(rows.x[:, order], path, logits)
        return confidences_of_label_sets(answers, rows.labels, ids, path.name), members
    values = checked_probabilities(rows.x[:, order], path, logits)
    names = [rows.columns[column] for column in order] if rows.columns else []
    labels = _class_labels(rows, names if len(names) > 1 else [], values.shape[1])
    labels_in_range(labels, values.shape[1], path.name)
    return Confidences(values, ids, labels), members


def _class_columns(rows: Rows) -> list[int]:
    """Positions of the columns of class 0, 1, ...: those named p0, p1, ... if there are such, all of them
    otherwise; numbered names go by their number, whatever the order in the file."""
    names = rows.columns or ()
    plain = {int(match[1]): i for i, name in enumerate(names) if (match := _PLAIN.fullmatch(name))}
    if len(plain) > 1 and sorted(plain) == list(range(len(plain))):
        return [plain[number] for number in range(len(plain))]
    found = [_NUMBERED.fullmatch(name) for name in names]
    numbers = [int(match[2]) for match in found if match]
    same_prefix = len({match[1] for match in found if match}) == 1
    if same_prefix and sorted(numbers) == list(range(min(numbers), min(numbers) + len(names))):
        return sorted(range(len(names)), key=numbers.__getitem__)
    return list(range(rows.x.shape[1]))


def _class_labels(rows: Rows, names: list[str], classes: int) -> NDArray[np.int64]:
    """Labels as class indices: by the name of the class's column, by the number in that name, or as they are.

    Raises:
        DataError: A label is none of these.
    """
    texts = [_short(str(text)) for text in rows.labels.tolist()]
    numbered = [match[2] if (match := _NUMBERED.fullmatch(name)) else name for name in names]
    for known in (names, numbered):
        if set(texts) <= set(known) and len(set(known)) == classes:
            position = {name: index for index, name in enumerate(known)}
            return np.array([position[text] for text in texts], dtype=np.int64)
    strange = next((text for text in texts if not text.lstrip("-").isdigit()), None)
    if strange is not None:
        raise DataError(
            f"a label of {rows.where} is no class",
            got=strange[:40],
            allowed=", ".join(names[:10]) + (", ..." if len(names) > 10 else "") if names else None,
            hint=did_you_mean(strange, names) or "labels are class indices, or the names of their columns",
        )
    return np.array([int(text) for text in texts], dtype=np.int64)


def _short(text: str) -> str:
    """ "1.0" as "1"."""
    return text.removesuffix(".0") if text.removesuffix(".0").isdigit() else text


def _sides(cells: Any, where: str) -> NDArray[np.str_]:
    """A membership column as "train" or "holdout" a row."""
    words = [str(cell).strip().lower() for cell in cells]
    for row, word in enumerate(words):
        if word not in _MEMBER and word not in _NONMEMBER:
            raise DataError(
                f"the member column of {where} holds another value",
                got=f"'{word[:40]}' in row {row} (counted from 0)",
                allowed="1 or 0, true or false, member or nonmember, train or holdout",
            )
    side = np.array([SPLIT_VALUES[word in _NONMEMBER] for word in words], dtype=np.str_)
    for name, called in zip(SPLIT_VALUES, ("member", "non-member"), strict=True):
        if not (side == name).any():
            raise DataError(f"the member column of {where} has no {called}")
    return side


def _generated_ids(path: Path, rows: int) -> NDArray[np.str_]:
    """Ids that name a row within this very content, so that two files of one name do not seem to overlap."""
    stem = f"{path.stem}-{sha256_file(path)[:8]}"
    return np.array([f"{stem}:{row}" for row in range(rows)], dtype=np.str_)
