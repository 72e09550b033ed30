"""The rows of an audit: members, non-members to score, a population apart from them, and null members."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgeprivacy.data.checks import (
    as_ids,
    as_inputs,
    as_labels,
    drop_overlap,
    overlap,
    refuse_overlap,
    repeated_rows,
)
from edgeprivacy.data.dataset import Dataset, PathError
from edgeprivacy.data.loading import DataSpec, load_sides
from edgeprivacy.data.rows import Rows, assemble
from edgeprivacy.errors import DataError
from edgeprivacy.files import sha256_json
from edgeprivacy.seeding import generator
from edgeprivacy.shadow_membership import ShadowMembership, choose_population

RowsLike = str | Path | Dataset | tuple[ArrayLike, ArrayLike] | tuple[ArrayLike, ArrayLike, ArrayLike]
"""A file, folder or factory; (x, y); (x, y, ids); or a data set."""

POPULATION_SHARE = 0.25
POPULATION_LEAST = 50
WORDS = {"members": "members", "nonmembers": "non-members", "null_members": "null members"}


@dataclass(frozen=True)
class AuditSide:
    """Rows, and how their inputs are loaded again (`read_again(ids)`); None for rows given as arrays."""

    data: Dataset
    read_again: Callable[[NDArray[np.str_]], NDArray[Any]] | None


@dataclass(frozen=True)
class AuditData:
    """Rows by what they are for; no row stands twice.

    Attributes:
        members: Rows that trained the model.
        nonmembers: All non-members (scored and population).
        scored: Non-members that are attacked.
        population: Non-members that attacks compare against; never scored. None where shadows trained on
            all rows that could be one.
        null_members: Rows to pass off as members, through the members' path, or None.
        no_null_members: Why there are none.
        split: What audit.json says about them.
        notes: Sentences for the report.
        shadows: What trained the shadows that were given, by the ids of these rows.
    """

    members: AuditSide
    nonmembers: AuditSide
    scored: Dataset
    population: Dataset | None
    null_members: AuditSide | None
    no_null_members: str
    split: dict[str, Any]
    notes: tuple[str, ...]
    shadows: ShadowMembership | None = None


def load_audit_data(
    members: RowsLike,
    nonmembers: RowsLike,
    null_members: RowsLike | None = None,
    *,
    classes: int | None = None,
    label: str | None = None,
    header: bool = True,
    drop_overlap: bool = False,
    seed: int = 0,
    shadows: ShadowMembership | None = None,
) -> AuditData:
    """Load, check and part the rows of an audit.

    Args:
        classes: Number of classes that the model answers, if known.
        label: Label column of CSV files.
        header: Whether they begin with column names.
        drop_overlap: Drop rows that stand on two sides instead of refusing them; the members stay whole.
        seed: Of the choice of the population.
        shadows: What trained the shadows; the population is then of rows that trained none of them.

    Raises:
        DataError: Rows cannot be read, do not fit each other, or stand on two sides; or it is not said of
            all of them whether they trained the shadows.
    """
    given: dict[str, RowsLike] = {"members": members, "nonmembers": nonmembers}
    if null_members is not None:
        given["null_members"] = null_members
    spec = DataSpec(label=label, header=header, classes=classes, label_sets=True)
    sides, reason = _load(given, spec)
    if shadows is not None:
        shadows = shadows.bound(sides["members"].data.ids, sides["nonmembers"].data.ids)
    dropped, notes = _part(sides, drop_overlap)
    outside = sides["nonmembers"].data
    drawn = _drawn(len(outside), seed)
    population: Dataset | None
    which = "of the non-members, drawn at random,"
    if shadows is None:
        scored, population = outside.take(outside.ids[~drawn]), outside.take(outside.ids[drawn])
    else:
        choice = choose_population(shadows, sides["members"].data.ids, outside.ids, drawn)
        scored, which = outside.take(outside.ids[choice.scored]), choice.text
        population = outside.take(outside.ids[choice.population]) if choice.population.any() else None
    null = sides.get("null_members")
    for name, side in sides.items():
        if repeated := repeated_rows(side.data.x):
            notes.append(
                f"{repeated} of the {len(side.data)} {WORDS[name]} repeat the inputs of another one."
            )
    roles = {"members": sides["members"].data, "nonmembers": scored}
    if population is not None:
        roles["population"] = population
    if null is not None:
        roles["null_members"] = null.data
    counts = {name: len(rows) for name, rows in roles.items()}
    split = {
        "design": "foreign",
        "seed": seed,
        "sha256": sha256_json({name: rows.sha256 for name, rows in roles.items()}),
        "text": _text(counts, len(outside), which),
        "counts": counts,
        "population_share": POPULATION_SHARE,
        "sources": {
            name: {"file": side.data.source, "rows": len(side.data), "sha256": side.data.sha256}
            for name, side in sides.items()
        },
        "dropped": dropped,
    }
    return AuditData(
        sides["members"],
        sides["nonmembers"],
        scored,
        population,
        null,
        reason,
        split,
        (str(split["text"]), *notes),
        shadows,
    )


def _text(counts: dict[str, int], outside: int, which: str) -> str:
    given = f"{counts['members']} members and {outside} non-members as given; "
    if "population" not in counts:
        return given + (
            "there is no population: shadows trained on the non-members, too few are left that trained none."
        )
    aside = outside - counts["population"] - counts["nonmembers"]
    return given + (
        f"{counts['population']} {which} are the population and are never scored, the other "
        f"{counts['nonmembers']} are."
        + (f" {aside} were drawn with it and put aside: shadows trained on them." if aside else "")
    )


def _load(given: dict[str, RowsLike], spec: DataSpec) -> tuple[dict[str, AuditSide], str]:
    """The sides, and why there are no null members."""
    files = {name: str(rows) for name, rows in given.items() if isinstance(rows, str | Path)}
    arrays = {name: rows for name, rows in given.items() if not isinstance(rows, str | Path)}
    reason = "no rows were given to pass off as members (--null-members)"
    if "null_members" in given and ("null_members" in files) != ("members" in files):
        reason = "members and null members are not loaded in the same way: one is a file, the other arrays"
        files.pop("null_members", None)
        arrays.pop("null_members", None)
    sides: dict[str, AuditSide] = {}
    if files:
        through = {"null_members": "members"} if "null_members" in files else {}
        try:
            loaded = load_sides(files, spec, through)
        except PathError as error:
            reason = str(error)
            del files["null_members"]
            loaded = load_sides(files, spec)
        sides |= {name: AuditSide(side.data, side.read_again) for name, side in loaded.items()}
    if arrays:
        parts = {name: _rows(name, rows) for name, rows in arrays.items()}
        data, _ = assemble(parts, spec.classes, prefixed=True)
        sides |= {name: AuditSide(rows, None) for name, rows in data.items()}
    first = sides["members"].data
    for name, side in sides.items():
        if side.data.input_shape != first.input_shape:
            raise DataError(
                f"{WORDS[name]} and members differ in shape",
                got=f"{side.data.input_shape} and {first.input_shape}",
            )
        if files and arrays and side.data.class_names != first.class_names:
            raise DataError(
                f"classes of the {WORDS[name]} and of the members are not the same",
                hint="give class indices 0, 1, 2, ..., or all sides in the same way",
            )
    return sides, reason


def _rows(name: str, given: Any) -> Rows:
    if isinstance(given, Dataset):
        x, y, ids, names = given.x, given.y, given.ids, tuple(given.class_names)
        where = given.source
    elif isinstance(given, tuple | list) and len(given) in (2, 3):
        (x, y, ids), names, where = (*given, None)[:3], None, f"the {WORDS[name]}"
    else:
        raise DataError(
            f"the {WORDS[name]} are something else than rows",
            got=type(given).__name__,
            allowed="a file, (x, y), (x, y, ids) or edgeprivacy.Dataset",
        )
    inputs = as_inputs(x, where)
    labels = as_labels(y, len(inputs), where, sets=True)
    own = None if ids is None else as_ids(ids, len(inputs), where)
    return Rows(inputs, labels, where, name, ids=own, own_ids=own is not None, class_names=names)


def _part(sides: dict[str, AuditSide], drop: bool) -> tuple[dict[str, int], list[str]]:
    """Take rows that stand on two sides out of the later side (in place), or refuse them."""
    notes, members = [], sides["members"].data
    dropped = {"nonmembers": 0}
    if drop:
        kept, _ = drop_overlap(members, sides["nonmembers"].data)
        dropped["nonmembers"] = len(sides["nonmembers"].data) - len(kept)
        sides["nonmembers"] = AuditSide(kept, sides["nonmembers"].read_again)
    else:
        refuse_overlap(members, sides["nonmembers"].data)
    null = sides.get("null_members")
    if null is not None:
        both = np.zeros(len(null.data), dtype=np.bool_)
        for name in ("members", "nonmembers"):
            found = overlap(sides[name].data, null.data)
            if found and not drop:
                raise DataError(
                    f"{int(found.rows.sum())} of {len(null.data)} null members also stand among the "
                    f"{WORDS[name]}",
                    got=found.example,
                    hint="null members trained nothing and are rows of their own; take them out, or let "
                    "--drop-overlap drop them",
                )
            both |= found.rows
        if both.all():
            raise DataError("every null member is also a member or a non-member")
        dropped["null_members"] = int(both.sum())
        sides["null_members"] = AuditSide(null.data.take(null.data.ids[~both]), null.read_again)
    notes += [
        f"{count} {WORDS[name]} that stand on another side too were dropped."
        for name, count in dropped.items()
        if count
    ]
    return dropped, notes


def _drawn(rows: int, seed: int) -> NDArray[np.bool_]:
    """The non-members drawn for the population: a quarter, at least 50 rows, at most half."""
    size = min(max(round(POPULATION_SHARE * rows), POPULATION_LEAST), rows // 2)
    chosen = np.zeros(rows, dtype=np.bool_)
    chosen[generator(seed, "audit", "population").permutation(rows)[:size]] = True
    return chosen
