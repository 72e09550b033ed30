"""Shadows that somebody else trained: what they answered to the target's rows, and what trained them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgeprivacy.confidences import FLOAT_LOG_FLOOR
from edgeprivacy.data.checks import as_ids
from edgeprivacy.errors import DataError, did_you_mean
from edgeprivacy.files import read_npz, sha256_arrays, sha256_file
from edgeprivacy.probabilities import checked_probabilities

LEAST_ROWS = 8
"""Rows that a shadow trained on, and rows that it did not, from which its own leakage is measured."""

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class GivenShadows:
    """What shadows answered to the rows that the target is attacked on.

    Attributes:
        probabilities: float32 [shadows, rows, classes].
        members: bool [shadows, rows], whether a row trained the shadow.
        population: float32 [shadows, population rows, classes]; None where the target has no population.
        log_floor: The largest of the shadows' own; see `Confidences.log_floor`.
        about: Where they came from, for audit.json: JSON values only.
        notes: Sentences for the report.
    """

    probabilities: NDArray[np.float32]
    members: Bools
    population: NDArray[np.float32] | None
    log_floor: float
    about: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    def take(self, rows: NDArray[Any], population: NDArray[Any] | None = None) -> GivenShadows:
        """These rows (positions or a mask), and these of the population's (None: all)."""
        others = self.population
        if others is not None and population is not None:
            others = others[:, population]
        return replace(
            self, probabilities=self.probabilities[:, rows], members=self.members[:, rows], population=others
        )

    @property
    def sha256(self) -> str:
        """Hex hash of answers and membership."""
        others = () if self.population is None else (self.population,)
        return sha256_arrays(self.probabilities, self.members, *others)


def usable_models(members: Bools) -> NDArray[np.intp]:
    """Positions of the target (model 0) and of the shadows whose membership does not give its own away: a
    shadow trained on exactly the rows that the target did not is put aside.

    Args:
        members: bool [models, rows], the target first.

    Raises:
        DataError: A shadow trained on exactly the target's members.
    """
    same = np.flatnonzero((members[1:] == members[0]).all(axis=1))
    if len(same):
        raise DataError(
            f"shadow {same[0]} trained on exactly the target's members among these rows",
            got="the same membership",
            hint="its membership would give the target's away; is it the target itself? Shadows are drawn "
            "without looking at the target",
        )
    opposite = (members[1:] != members[0]).all(axis=1)
    return np.concatenate([[0], 1 + np.flatnonzero(~opposite)]).astype(np.intp)


def fit_beside(
    shadows: GivenShadows, target: NDArray[np.float32], members: Bools, log_floor: float
) -> GivenShadows:
    """The shadows that can stand beside a target, with what is to be said of them in their notes.

    Args:
        shadows: As given.
        target: float32 [rows, classes], what the target answered to the same rows.
        members: bool [rows], what trained the target.
        log_floor: Of the target's outputs.

    Raises:
        DataError: A shadow is the target itself, trained on its very members, or trained on too few or on
            nearly all of the rows.
    """
    for number, trained in enumerate(shadows.members):
        inside = int(trained.sum())
        if min(inside, len(trained) - inside) < LEAST_ROWS:
            raise DataError(
                f"shadow {number} trained on too few or too many of the rows",
                got=f"{inside} that trained it and {len(trained) - inside} that did not",
                allowed=f"{LEAST_ROWS} or more of each",
                hint="a shadow is trained on a part of the very rows that the target is attacked on",
            )
        if np.array_equal(shadows.probabilities[number], target) and np.ptp(target) > 0:
            raise DataError(
                f"shadow {number} is the target itself: it answers every row alike",
                hint="give shadows that were trained anew",
            )
    kept = usable_models(np.concatenate([members[None], shadows.members]))[1:] - 1
    notes, aside = list(shadows.notes), len(shadows.members) - len(kept)
    if aside:
        notes.append(
            f"{aside} of {len(shadows.members)} shadows trained on exactly the rows that the target did not: "
            "put aside, their membership would give the target's away."
        )
    if shadows.log_floor > 10 * log_floor:
        notes.append(
            "The shadows' outputs lie on a coarser grid than the target's: they were not exported as it was, "
            "and attacks find less."
        )
    others = None if shadows.population is None else shadows.population[kept]
    return replace(
        shadows,
        probabilities=shadows.probabilities[kept],
        members=shadows.members[kept],
        population=others,
        notes=tuple(notes),
    )


def read_shadows(
    path: Path,
    row_ids: NDArray[np.str_],
    classes: int,
    population_ids: NDArray[np.str_] | None = None,
    *,
    logits: bool = False,
    step: float = 0.0,
) -> GivenShadows:
    """Shadows out of an .npz: `probabilities` [shadows, rows, classes] and `members` bool [shadows, rows].

    Its rows are those of the target, in the same order; with an array `row_ids` (or `ids`) they are found by
    id, in any order and among others. `population` [shadows, population rows, classes] holds the answers to
    the target's population, with `population_ids` likewise, and `population_members` where it is known that
    no shadow trained on them.

    Args:
        path: The file.
        row_ids: str [rows] of the target's rows, in the order that rows without ids are taken to have.
        classes: Number of classes that the target answers.
        population_ids: str [population rows] of the target's population; None where it has none.
        logits: The numbers are logits.
        step: Step of the grid that the target's probabilities lie on, if any.

    Raises:
        DataError: An array is missing, has another shape than the target's rows and classes ask for, holds no
            distributions, or the shadows trained on rows of the population.
    """
    arrays = read_npz(path)
    for name in ("probabilities", "members"):
        if name not in arrays:
            raise DataError(
                f"{path} has no array '{name}'",
                got=f"arrays {', '.join(arrays) or '(none)'}",
                hint=did_you_mean(name, arrays)
                or "write it with numpy.savez(path, probabilities=..., members=...)",
            )
    about = {"file": path.name, "sha256": sha256_file(path)}
    return shadows_from_arrays(arrays, path.name, row_ids, classes, population_ids, about, logits, step)


def shadows_from_arrays(
    arrays: Mapping[str, NDArray[Any]],
    where: str,
    row_ids: NDArray[np.str_],
    classes: int,
    population_ids: NDArray[np.str_] | None,
    about: Mapping[str, Any],
    logits: bool = False,
    step: float = 0.0,
) -> GivenShadows:
    """As `read_shadows`, of arrays that were read already; `where` names their source in messages."""
    own = next((arrays[name] for name in ("row_ids", "ids") if name in arrays), None)
    found = None if own is None else positions(own, row_ids, where, "rows")
    rows = len(row_ids) if own is None else len(own)
    values = _answers(arrays["probabilities"], rows, classes, f"probabilities of {where}", logits, step)
    members = as_membership(arrays["members"], len(values), rows, where)
    if found is not None:
        values, members = values[:, found], members[:, found]
    others, notes = _population(arrays, where, len(values), classes, population_ids, logits, step)
    notes = (f"{len(values)} shadows were given ({where}); that they were trained as the target was is taken "
             "on trust: shadows of another recipe find less.", *notes)  # fmt: skip
    return GivenShadows(values, members, others, FLOAT_LOG_FLOOR, about, notes)


def positions(own: ArrayLike, wanted: NDArray[np.str_], where: str, what: str) -> NDArray[np.intp]:
    """Where the wanted ids stand among a file's own.

    Raises:
        DataError: An id stands twice, or a wanted one is not there.
    """
    ids = as_ids(own, len(np.asarray(own)), where)
    place = {row_id: index for index, row_id in enumerate(ids.tolist())}
    missing = [row_id for row_id in wanted.tolist() if row_id not in place]
    if missing:
        raise DataError(
            f"{where} lacks {len(missing)} of the {len(wanted)} {what}, by id",
            got=f"ids like '{ids[0]}'" if len(ids) else "no ids",
            allowed=f"ids like '{missing[0]}'",
            hint="without ids, rows are taken in the order of the target's: members, then non-members (of a "
            "table: its own order)",
        )
    return np.array([place[row_id] for row_id in wanted.tolist()], dtype=np.intp)


def as_membership(values: Any, shadows: int, rows: int, where: str) -> Bools:
    """Membership as bool [shadows, rows].

    Raises:
        DataError: Another shape, or values that are neither true nor false.
    """
    array = np.asarray(values)
    if array.shape != (shadows, rows):
        raise DataError(
            f"members of {where} have the wrong shape",
            got=array.shape,
            allowed=f"[shadows, rows] = {(shadows, rows)}",
        )
    if array.dtype.kind not in "biuf" or not np.isin(array, (0, 1)).all():
        raise DataError(f"members of {where} must be true or false", got=str(array.dtype))
    return array.astype(np.bool_)


def _answers(
    values: Any, rows: int, classes: int, what: str, logits: bool, step: float
) -> NDArray[np.float32]:
    array = np.asarray(values)
    if array.ndim == 2 and classes == 2:
        array = array[:, :, None]  # p of class 1, as one sigmoid answers
    columns = (classes, 1) if classes == 2 else (classes,)
    if array.ndim != 3 or not len(array) or array.shape[1] != rows or array.shape[2] not in columns:
        raise DataError(
            f"{what} do not fit the target's",
            got=array.shape,
            allowed=f"[shadows, {rows} rows, {classes} classes]",
        )
    return np.stack(
        [
            checked_probabilities(model, Path(f"{what}, shadow {number}"), logits, step)
            for number, model in enumerate(array)
        ]
    )


def _population(
    arrays: Mapping[str, NDArray[Any]],
    where: str,
    shadows: int,
    classes: int,
    wanted: NDArray[np.str_] | None,
    logits: bool,
    step: float,
) -> tuple[NDArray[np.float32] | None, Sequence[str]]:
    """The shadows' answers to the population, and what is to be said of it."""
    if wanted is None:
        if "population" in arrays:
            raise DataError(
                f"the shadows of {where} answered a population, but the target's answers to it are not there",
                hint="give them with --population, or leave `population` out",
            )
        return None, ()
    if "population" not in arrays:
        raise DataError(
            f"the shadows of {where} did not answer the target's population",
            got=f"{len(wanted)} rows of the target's",
            hint="add an array `population` [shadows, population rows, classes], or leave out --population",
        )
    own = arrays.get("population_ids")
    rows = len(wanted) if own is None else len(own)
    values = _answers(arrays["population"], rows, classes, f"population of {where}", logits, step)
    found = np.arange(rows) if own is None else positions(own, wanted, where, "population rows")
    if "population_members" not in arrays:
        return values[:, found], ("That no shadow trained on a population row is taken on trust.",)
    known = as_membership(arrays["population_members"], shadows, rows, where)
    trained = np.asarray(known[:, found].any(axis=0))
    if trained.any():
        raise DataError(
            f"shadows of {where} trained on rows of the population",
            got=f"{int(trained.sum())} of {len(trained)} rows",
            allowed="rows that trained no model",
        )
    return values[:, found], ()
