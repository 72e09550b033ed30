"""From what the user named to rows: which loader reads it, and how it is read again later."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.data.builtin import read_digits
from edgeprivacy.data.checks import as_ids, as_inputs, as_labels, drop_overlap, refuse_overlap
from edgeprivacy.data.dataset import Dataset, PathError, Source
from edgeprivacy.data.factories import call_factory, is_factory, load_factory, parameters
from edgeprivacy.data.images import read_images
from edgeprivacy.data.npz import read_npz_rows
from edgeprivacy.data.rows import SPLIT_VALUES, Rows, assemble, concatenate
from edgeprivacy.data.tables import read_table
from edgeprivacy.errors import DataError, did_you_mean

BUILTIN = ("digits",)


@dataclass(frozen=True)
class DataSpec:
    """Where the rows come from.

    Attributes:
        source: "digits", an .npz file, a CSV file (any other file), a folder of images, or a factory
            "file.py:function" / "module:function". Ignored where `train` and `holdout` are given.
        label: Label column of a CSV, by name or index; see `read_table`.
        header: Whether CSV files begin with a line of column names.
        train: The rows the model is trained on, any of the kinds above; goes with `holdout`.
        holdout: Rows it is not trained on.
        split_column: CSV column or npz array that says "train" or "holdout" for every row of `source`.
        classes: Number of classes where it is known (a given model's outputs); labels in 0..classes-1 are
            then indices of its outputs. None: found from the labels.
        drop_overlap: Drop hold-out rows that are also train rows instead of refusing them.
        label_sets: Whether labels may be several a row, 0 and 1 [rows, labels] (not in a folder).
    """

    source: str = "digits"
    label: str | None = None
    header: bool = True
    train: str | None = None
    holdout: str | None = None
    split_column: str | None = None
    classes: int | None = None
    drop_overlap: bool = False
    label_sets: bool = False


@dataclass(frozen=True)
class Side:
    """One set of rows and the way to load its inputs again.

    Attributes:
        data: The rows.
        read_again: `read_again(ids)` loads the source anew and gives the inputs [rows, ...] of these ids, as
            a query through this side's path sees them.
        path: What its rows came through; sides with equal paths are loaded by the same code.
    """

    data: Dataset
    read_again: Callable[[NDArray[np.str_]], NDArray[Any]]
    path: str


@dataclass(frozen=True)
class _Reader:
    """A loader bound to its source; `read(only)` may leave out rows whose loader's id is not in `only`."""

    path: str
    read: Callable[[Collection[str] | None], Rows]


def load_source(spec: DataSpec) -> Source:
    """Load the data of a recipe.

    Returns:
        One pool, or train and hold-out rows (`train_ids` set) if the spec has `train` and `holdout`, a split
        column, or a factory that takes a parameter `part`.

    Raises:
        DataError: The data cannot be read or does not fit; a row is on both sides.
        MissingDependency: A folder of images without Pillow.
    """
    if (spec.train is None) != (spec.holdout is None):
        given, missing = ("--train", "--holdout") if spec.holdout is None else ("--holdout", "--train")
        raise DataError(f"{given} is given without {missing}", hint="train and hold-out rows go together")
    if spec.train is not None and spec.holdout is not None:
        if spec.split_column is not None:
            raise DataError("a split column and --train/--holdout exclude each other")
        return _two_sides({"train": spec.train, "holdout": spec.holdout}, spec)
    if is_factory(spec.source) and not Path(spec.source).exists():
        function = load_factory(spec.source, "data")
        if "part" in parameters(function):
            return _two_sides({"train": spec.source, "holdout": spec.source}, spec)
    return _one_pool(spec)


def load_sides(
    references: Mapping[str, str],
    spec: DataSpec | None = None,
    through: Mapping[str, str] | None = None,
) -> dict[str, Side]:
    """Load several sets of rows whose classes mean the same in all: members, non-members, ...

    Generated row ids begin with the name of the side. Overlap is not looked for; see
    `checks.refuse_overlap` and `checks.drop_overlap`.

    Args:
        references: Side name to a source, of the kinds of `DataSpec.source`. A factory that takes a parameter
            `part` is called with the side's name.
        spec: Label column, header, number of classes.
        through: Side name to the side whose path its rows must come through (null test (a)); a factory that
            takes `path` beside `part` is told.

    Raises:
        PathError: Rows cannot come through the path that `through` asks for.
        DataError: A source cannot be read or does not fit the others.
        MissingDependency: A folder of images without Pillow.
    """
    spec, through = spec or DataSpec(), through or {}
    readers = {
        name: _reader(reference, spec, part=name, path=through.get(name))
        for name, reference in references.items()
    }
    for name, other in through.items():
        if readers[name].path != readers[other].path:
            raise _no_path(other, name, references[name])
    rows = {name: reader.read(None) for name, reader in readers.items()}
    data, _ = assemble(rows, spec.classes, prefixed=True)
    return {
        name: Side(data[name], partial(_again, reader, name), reader.path) for name, reader in readers.items()
    }


def _one_pool(spec: DataSpec) -> Source:
    reader = _reader(spec.source, spec)
    rows = reader.read(None)
    parts, notes = assemble({"pool": rows}, spec.classes, prefixed=False)
    pool, train_ids = parts["pool"], None
    if rows.side is not None:
        train_ids, holdout_ids = (pool.ids[rows.side == side] for side in SPLIT_VALUES)
        kept, dropped = _apart(pool.take(train_ids), pool.take(holdout_ids), spec)
        if dropped:
            pool = pool.take(pool.ids[np.isin(pool.ids, train_ids) | np.isin(pool.ids, kept.ids)])
            notes += dropped

    def reload(ids: NDArray[np.str_], path: str) -> NDArray[Any]:
        _known_side(path)
        return _again(reader, None, ids)

    return Source(pool, train_ids, reload, one_path=True, notes=notes)


def _two_sides(references: dict[str, str], spec: DataSpec) -> Source:
    readers = {name: _reader(reference, spec, part=name) for name, reference in references.items()}
    rows = {name: reader.read(None) for name, reader in readers.items()}
    sides, notes = assemble(rows, spec.classes, prefixed=True)
    train = sides["train"]
    holdout, dropped = _apart(train, sides["holdout"], spec)
    pool = concatenate({"train": train, "holdout": holdout})
    origin = {str(row_id): name for name, side in sides.items() for row_id in side.ids.tolist()}
    one_path = readers["train"].path == readers["holdout"].path

    def reload(ids: NDArray[np.str_], path: str) -> NDArray[Any]:
        _known_side(path)
        owners = np.array([_origin(origin, str(row_id)) for row_id in ids])
        inputs = np.empty((len(ids), *pool.input_shape), dtype=np.float32)
        for name in SPLIT_VALUES:
            mine = owners == name
            if mine.any():
                through = _through(references[name], readers, name, path, spec, one_path)
                inputs[mine] = _again(through, name, np.asarray(ids)[mine])
        return inputs

    return Source(pool, train.ids, reload, one_path=one_path, notes=notes + dropped)


def _apart(train: Dataset, holdout: Dataset, spec: DataSpec) -> tuple[Dataset, tuple[str, ...]]:
    """Hold-out rows none of which is a train row: such rows are refused, or dropped where that is asked."""
    if not spec.drop_overlap:
        refuse_overlap(train, holdout)
        return holdout, ()
    kept, _ = drop_overlap(train, holdout)
    gone = len(holdout) - len(kept)
    return kept, (f"{gone} hold-out rows that are also train rows were dropped",) if gone else ()


def _through(
    reference: str, readers: dict[str, _Reader], side: str, path: str, spec: DataSpec, one_path: bool
) -> _Reader:
    """The reader that takes the rows of one side through the path of another."""
    if one_path or side == path:
        return readers[side]
    if is_factory(reference) and not Path(reference).exists():
        if "path" in parameters(load_factory(reference, "data")):
            return _reader(reference, spec, part=side, path=path)
    raise _no_path(path, side, reference)


def _no_path(path: str, side: str, reference: str) -> PathError:
    if is_factory(reference) and not Path(reference).exists():
        hint = f'let one factory take `part` and `path`: load(part="{side}", path="{path}")'
    else:
        hint = "give both sides as files of the same kind, or by one factory that takes `part` and `path`"
    return PathError(f"the {path} side's loader cannot be applied to {side} rows of {reference}", hint=hint)


def _origin(origin: dict[str, str], row_id: str) -> str:
    try:
        return origin[row_id]
    except KeyError:
        raise DataError("a row id is not in the data", got=row_id) from None


def _known_side(path: str) -> None:
    if path not in SPLIT_VALUES:
        raise DataError("there is no such path", got=path, allowed=" or ".join(SPLIT_VALUES))


def _again(reader: _Reader, prefix: str | None, ids: NDArray[np.str_]) -> NDArray[Any]:
    """Inputs of these ids, read from the source anew."""
    bare = {str(row_id) for row_id in ids}
    only = bare if prefix is None else bare | {row_id.removeprefix(f"{prefix}:") for row_id in bare}
    rows = reader.read(only)
    position = {row_id: index for index, row_id in enumerate(rows.row_ids(prefix).tolist())}
    try:
        return rows.x[[position[str(row_id)] for row_id in ids]]
    except KeyError as error:
        raise DataError(
            f"{rows.where} no longer holds a row that was read from it",
            got=error.args[0],
            hint="the data must not change while it is audited; a factory must return the same ids each time",
        ) from None


def _reader(reference: str, spec: DataSpec, part: str | None = None, path: str | None = None) -> _Reader:
    """The loader for a reference.

    Raises:
        DataError: Nothing of this name, or a factory that cannot be imported.
    """
    place = Path(reference)
    if reference in BUILTIN and not place.exists():
        _no_split_column(spec, reference)
        return _Reader("digits", lambda only: read_digits())
    if place.is_dir():
        _no_split_column(spec, reference)
        return _Reader("images", lambda only: read_images(place, only))
    if place.is_file() and (place.suffix.lower() == ".npz" or zipfile.is_zipfile(place)):
        return _Reader("npz", lambda only: read_npz_rows(place, spec.split_column, spec.label_sets))
    if place.exists():
        return _Reader("csv", lambda only: _table(place, spec))
    if is_factory(reference):
        _no_split_column(spec, reference)
        return _factory_reader(reference, part, path, spec.label_sets)
    raise _nothing_there(reference)


def _table(place: Path, spec: DataSpec) -> Rows:
    rows = read_table(place, spec.label, spec.header, spec.split_column)
    if rows.labels.ndim == 2 and not spec.label_sets:
        raise DataError(f"{place} is to have one label a row here", got=f"label columns {spec.label}")
    return rows


def _factory_reader(reference: str, part: str | None, path: str | None, label_sets: bool) -> _Reader:
    function = load_factory(reference, "data")
    takes = parameters(function)
    arguments: dict[str, Any] = {}
    if "part" in takes and part is not None:
        arguments["part"] = part
        if "path" in takes:
            arguments["path"] = path or part

    def read(only: Collection[str] | None) -> Rows:
        returned = call_factory(function, reference, "data", **arguments)
        return _returned(returned, reference, label_sets)

    # Each part of a factory is a path of its own, unless it is told which one to take: nothing says that it
    # treats both alike.
    taken = arguments.get("path", arguments.get("part", ""))
    return _Reader(f"{reference} {taken}".strip(), read)


def _returned(returned: Any, reference: str, label_sets: bool) -> Rows:
    """Rows from what a factory gave back: (x, y), (x, y, ids), a dict with these keys, or a Dataset."""
    stem = reference.rpartition(":")[2]
    names: tuple[str, ...] | None = None
    ids: Any
    if isinstance(returned, Dataset):
        names = tuple(returned.class_names)
        x, y, ids = returned.x, returned.y, returned.ids
    elif isinstance(returned, Mapping):
        for key in ("x", "y"):
            if key not in returned:
                raise DataError(
                    f"the dict of the data factory {reference} has no '{key}'",
                    got=", ".join(map(str, returned)),
                )
        x, y, ids = returned["x"], returned["y"], returned.get("ids")
    elif isinstance(returned, tuple | list) and len(returned) in (2, 3):
        x, y, ids = (*returned, None)[:3]
    else:
        raise DataError(
            f"the data factory {reference} returned something else than data",
            got=type(returned).__name__,
            allowed="(x, y), (x, y, ids), a dict with these keys, or edgeprivacy.data.dataset.Dataset",
        )
    inputs = as_inputs(x, reference)
    labels = as_labels(y, len(inputs), reference, label_sets)
    own = None if ids is None else as_ids(ids, len(inputs), reference)
    return Rows(inputs, labels, reference, stem, ids=own, own_ids=own is not None, class_names=names)


def _no_split_column(spec: DataSpec, reference: str) -> None:
    if spec.split_column is not None:
        raise DataError(
            f"{reference} has no split column",
            got=spec.split_column,
            allowed="a CSV or npz file",
            hint="use --train/--holdout",
        )


def _nothing_there(reference: str) -> DataError:
    place = Path(reference)
    known = [*BUILTIN]
    if place.parent.is_dir():
        known += [str(place.parent / entry.name) for entry in sorted(place.parent.iterdir())[:1000]]
    return DataError(
        f"{reference} does not exist",
        allowed="digits, an .npz or CSV file, a folder of images, file.py:function, module:function",
        hint=did_you_mean(reference, known),
    )
