"""What `edgeprivacy attack` is given, as the sides of one target: outputs in files, and shadows."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.confidences import Confidences, LabelSets
from edgeprivacy.data.checks import as_ids, as_labels, is_label_sets
from edgeprivacy.errors import DataError, UsageError
from edgeprivacy.files import read_npz, sha256_file
from edgeprivacy.given_shadows import as_membership, read_shadows, shadows_from_arrays
from edgeprivacy.multi_label import as_two_classes, checked_sigmoids
from edgeprivacy.probabilities import (
    checked_probabilities,
    labels_in_range,
    read_member_table,
    read_probabilities,
)
from edgeprivacy.sides import Sides


def read_sides(
    members: Path | None,
    nonmembers: Path | None,
    table: Path | None,
    *,
    population: Path | None = None,
    shadows: Path | None = None,
    member_column: str = "member",
    label: str | None = None,
    header: bool = True,
    logits: bool = False,
) -> tuple[Sides, str, dict[str, str]]:
    """The sides of an attack, the target's name, and the file that each side came from.

    Args:
        members, nonmembers: Outputs on rows that trained the target and on rows that did not.
        table: Both in one file, instead; an .npz of `probabilities` [models, rows, classes], `labels` [rows]
            and `members` bool [models, rows] holds the target and, after it, its shadows.
        population: Outputs on further rows that trained no model.
        shadows: An .npz of shadows, see `given_shadows.read_shadows`.
        member_column: Column or array of the table that tells members.
        label, header, logits: See `read_probabilities`.

    Raises:
        UsageError: Nothing to attack, or it is given twice.
        DataError: A file cannot be read or does not fit the others.
    """

    def read(path: Path) -> Confidences:
        return read_probabilities(path, label=label, header=header, logits=logits)

    others = None if population is None else read(population)
    if table is not None:
        if members is not None or nonmembers is not None:
            raise UsageError("--table stands instead of --members and --nonmembers")
        name, sources = table.stem, {"members": table.name, "nonmembers": table.name}
        if (arrays := _several_models(table)) is not None:
            if shadows is not None or others is not None:
                raise UsageError(
                    f"{table} holds its shadows already, leave out --shadows and --population",
                    hint="a population stands in it as `population` and `population_labels`",
                )
            return _sides_of_models(arrays, table, member_column, logits), name, sources
        every, inside = read_member_table(table, member_column, label=label, header=header, logits=logits)
        sides = Sides(every.take(inside), every.take(~inside), others)
        ids, order = every.row_ids, _members_first(inside)
    elif members is not None and nonmembers is not None:
        sides = Sides(read(members), read(nonmembers), others)
        sources = {"members": members.name, "nonmembers": nonmembers.name}
        name = Path((sides.members.facts.get("artifact") or {}).get("file", members.name)).stem
        ids = np.concatenate([sides.members.row_ids, sides.nonmembers.row_ids])
        order = np.arange(len(ids))
    else:
        raise UsageError("there is nothing to attack", hint="give --members and --nonmembers, or --table")
    if population is not None:
        sources["population"] = population.name
    if shadows is None:
        return sides, name, sources
    sources["shadows"] = shadows.name
    if sides.members.sets is not None:
        _two_classes_of_sets(shadows, sides.members.sets)
    given = read_shadows(
        shadows,
        ids,
        sides.members.probabilities.shape[1],
        None if others is None else others.row_ids,
        logits=logits,
        step=sides.members.grid.scale if sides.members.grid is not None else 0.0,
    )
    return replace(sides, shadows=given.take(order)), name, sources


def _two_classes_of_sets(shadows: Path, sets: LabelSets) -> None:
    """Raises DataError for shadows' answers label by label: what is true stands beside the target's alone."""
    shape = read_npz(shadows).get("probabilities", np.empty(0)).shape
    labels = sets.truth.shape[1]
    if len(shape) == 3 and shape[2] == labels != 2:
        raise DataError(
            f"the shadows of {shadows} answered labels, and this wants what they think of rows as a whole",
            got=shape,
            allowed="[shadows, rows, 2], as `audit --shadow-files` writes it",
            hint="or give the target and its shadows as one --table: `probabilities` [models, rows, labels]",
        )


def _members_first(inside: NDArray[np.bool_]) -> NDArray[np.intp]:
    return np.concatenate([np.flatnonzero(inside), np.flatnonzero(~inside)])


def _several_models(path: Path) -> dict[str, NDArray[Any]] | None:
    """The arrays of an .npz of a target and its shadows; None of any other table."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return None
    arrays = read_npz(path)
    return arrays if "probabilities" in arrays and arrays["probabilities"].ndim == 3 else None


def _sides_of_models(arrays: dict[str, NDArray[Any]], path: Path, member_column: str, logits: bool) -> Sides:
    values = arrays["probabilities"]
    column = "members" if "members" in arrays else member_column
    for name in (column, "labels"):
        if name not in arrays:
            raise DataError(
                f"{path} has no array '{name}'",
                got=f"arrays {', '.join(arrays)}",
                hint="write it with numpy.savez(path, probabilities=..., labels=..., members=...)",
            )
    models, rows = values.shape[:2]
    if not models:
        raise DataError(f"{path} holds no model", got=f"probabilities {values.shape}")
    known = as_membership(arrays[column], models, rows, path.name)
    sets: dict[str, LabelSets] = {}
    if is_label_sets(arrays["labels"]):
        sets = _label_sets(arrays, path, logits)
        arrays, logits = _as_two_classes(arrays, path, logits), False
        values = arrays["probabilities"]
    target = _answers(values[0], arrays, ("labels", ("row_ids", "ids")), path, logits)
    target = replace(target, sets=sets.get("probabilities"))
    others = None
    if "population" in arrays:
        answered = arrays["population"]
        if answered.ndim != 3 or len(answered) != models or "population_labels" not in arrays:
            raise DataError(
                f"the population of {path} does not fit its models",
                got=answered.shape,
                allowed=f"population [{models} models, rows, classes] and population_labels [rows]",
            )
        others = _answers(answered[0], arrays, ("population_labels", ("population_ids",)), path, logits)
        others = replace(others, sets=sets.get("population"))
    inside = known[0]
    sides = Sides(target.take(inside), target.take(~inside), others)
    if models == 1:
        return sides
    about = {"file": path.name, "sha256": sha256_file(path)}
    given = shadows_from_arrays(
        {
            "probabilities": values[1:],
            "members": known[1:],
            **({} if others is None else {"population": arrays["population"][1:]}),
            **(
                {}
                if "population_members" not in arrays
                else {"population_members": arrays["population_members"][1:]}
            ),
        },
        path.name,
        target.row_ids,
        target.probabilities.shape[1],
        None if others is None else others.row_ids,
        about,
        logits,
    )
    return replace(sides, shadows=given.take(_members_first(inside)))


_LABELS_OF = {"probabilities": "labels", "population": "population_labels"}


def _label_sets(arrays: dict[str, NDArray[Any]], path: Path, logits: bool) -> dict[str, LabelSets]:
    """What the first model, the target, answered label by label, by the array's name."""
    return {
        name: LabelSets(checked_sigmoids(arrays[name][0], path, logits), arrays[truth].astype(np.uint8))
        for name, truth in _LABELS_OF.items()
        if name in arrays and truth in arrays
    }


def _as_two_classes(arrays: dict[str, NDArray[Any]], path: Path, logits: bool) -> dict[str, NDArray[Any]]:
    """The arrays of models of independent labels as those of models of two classes."""
    changed = dict(arrays)
    for name, truth in _LABELS_OF.items():
        if name in arrays and truth in arrays:
            changed[name] = np.stack(
                [
                    as_two_classes(checked_sigmoids(model, path, logits), arrays[truth], path.name)
                    for model in arrays[name]
                ]
            )
            changed[truth] = np.ones(len(arrays[truth]), dtype=np.int64)
    return changed


def _answers(
    values: NDArray[Any],
    arrays: dict[str, NDArray[Any]],
    names: tuple[str, tuple[str, ...]],
    path: Path,
    logits: bool,
) -> Confidences:
    """The target's answers with the labels and ids of these names."""
    labels_name, id_names = names
    checked = checked_probabilities(values, path, logits)
    labels = as_labels(arrays[labels_name], len(checked), path.name)
    if labels.dtype.kind == "U":
        raise DataError(f"{labels_name} of {path} are names", hint="give class indices 0, 1, 2, ...")
    whole = labels.astype(np.int64)
    labels_in_range(whole, checked.shape[1], path.name)
    own = next((arrays[name] for name in id_names if name in arrays), None)
    ids = (
        np.array([f"{path.stem}:{labels_name}:{row}" for row in range(len(checked))], dtype=np.str_)
        if own is None
        else as_ids(own, len(checked), path.name)
    )
    return Confidences(checked, ids, whole)
