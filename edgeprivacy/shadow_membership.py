"""Which rows trained which of the shadows that an audit is given, and which are left for a population."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgeprivacy.data.checks import as_ids
from edgeprivacy.errors import DataError, did_you_mean
from edgeprivacy.files import read_npz, sha256_arrays, sha256_file
from edgeprivacy.given_shadows import LEAST_ROWS, Bools, as_membership

LEAST_POPULATION = 20
"""Rows below which a population is not worth its name: scores would move in steps of a twentieth."""

Strings = NDArray[np.str_]


@dataclass(frozen=True)
class ShadowMembership:
    """What trained each shadow.

    Attributes:
        members: bool [shadows, rows].
        ids: str [rows]; None where the rows are the members', then the non-members', in their order.
        reserved: bool [rows], marked as the population; None where nothing is marked.
        files: Names of the shadows' files, in the order of `members`; None where the file does not say.
        source: Name of the file.
        sha256: Of the file, or of the arrays.
    """

    members: Bools
    ids: Strings | None
    reserved: Bools | None
    files: tuple[str, ...] | None
    source: str
    sha256: str
    _place: dict[str, int] = field(default_factory=dict, repr=False, compare=False)

    @property
    def shadows(self) -> int:
        """Number of shadows."""
        return len(self.members)

    def bound(self, members: Strings, nonmembers: Strings) -> ShadowMembership:
        """With the ids of the rows of an audit, where the file has none of its own.

        Raises:
            DataError: Another number of rows, or a row of the audit is not among the file's.
        """
        wanted = np.concatenate([members, nonmembers])
        if self.ids is None:
            if len(wanted) != self.members.shape[1]:
                raise DataError(
                    f"{self.source} does not say what trained the shadows of every row",
                    got=f"{self.members.shape[1]} rows",
                    allowed=f"{len(members)} members, then {len(nonmembers)} non-members",
                    hint="or name the rows in an array `ids`",
                )
            return replace(self, ids=wanted, _place={})
        own = {str(row_id) for row_id in self.ids}
        missing = [row_id for row_id in wanted.tolist() if row_id not in own]
        if missing:
            raise DataError(
                f"{self.source} lacks {len(missing)} of the {len(wanted)} members and non-members, by id",
                got=f"ids like '{self.ids[0]}'" if len(self.ids) else "no ids",
                allowed=f"ids like '{missing[0]}'",
                hint="give members and non-members with `ids` of their own, or leave `ids` out: rows are "
                "then the members, then the non-members",
            )
        return self

    def of(self, ids: Strings) -> Bools:
        """bool [shadows, rows] of rows of the audit, after `bound`."""
        return self.members[:, self._positions(ids)]

    def marked(self, ids: Strings) -> Bools:
        """bool [rows], which of these are marked as the population."""
        if self.reserved is None:
            return np.zeros(len(ids), dtype=np.bool_)
        return self.reserved[self._positions(ids)]

    def _positions(self, ids: Strings) -> NDArray[np.intp]:
        if not self._place:
            assert self.ids is not None
            self._place.update((str(row_id), index) for index, row_id in enumerate(self.ids))
        return np.array([self._place[row_id] for row_id in ids.tolist()], dtype=np.intp)


def read_membership(given: str | Path | Mapping[str, ArrayLike], shadows: int) -> ShadowMembership:
    """Membership out of an .npz, or a mapping of the same arrays.

    `members` bool [shadows, rows]; optionally `ids` [rows] of the rows, `files` [shadows] with the names of
    the shadows' files, and `population` bool [rows] with the non-members that trained no shadow and are to be
    the population.

    Args:
        given: The file or the arrays.
        shadows: Number of the shadows' files.

    Raises:
        DataError: The file cannot be read, or its arrays do not fit each other or the number of shadows.
    """
    if isinstance(given, str | Path):
        path = Path(given)
        arrays, source = read_npz(path), path.name
        digest = sha256_file(path)
    else:
        arrays, source = (
            {name: np.asarray(values) for name, values in given.items()},
            "the shadows' membership",
        )
        digest = sha256_arrays(*(arrays[name] for name in sorted(arrays)))
    if "members" not in arrays:
        raise DataError(
            f"{source} has no array 'members'",
            got=f"arrays {', '.join(arrays) or '(none)'}",
            hint=did_you_mean("members", arrays) or "write it with numpy.savez(path, members=..., ids=...)",
        )
    members = arrays["members"]
    if members.ndim != 2 or len(members) != shadows:
        raise DataError(
            f"members of {source} do not fit the shadows' files",
            got=members.shape,
            allowed=f"[{shadows} shadows, rows]",
        )
    rows = members.shape[1]
    marked, names = arrays.get("population"), arrays.get("files")
    if marked is not None and (marked.shape != (rows,) or marked.dtype.kind != "b"):
        raise DataError(f"population of {source} must be bool [rows]", got=f"{marked.shape} {marked.dtype}")
    if names is not None and names.shape != (shadows,):
        raise DataError(f"files of {source} must be [shadows] names", got=names.shape)
    return ShadowMembership(
        as_membership(members, shadows, rows, source),
        as_ids(arrays["ids"], rows, source) if "ids" in arrays else None,
        marked,
        None if names is None else tuple(str(name) for name in names.tolist()),
        source,
        digest,
    )


@dataclass(frozen=True)
class PopulationChoice:
    """Masks [non-members] of the rows that are scored and of the population, and what that is, in words.

    A row may be neither. No population has more than zero and fewer than `LEAST_POPULATION` rows, unless
    that is what was marked.
    """

    scored: Bools
    population: Bools
    text: str


def choose_population(
    membership: ShadowMembership, members: Strings, nonmembers: Strings, drawn: Bools
) -> PopulationChoice:
    """The population among non-members where shadows trained on some of them: rows that trained none.

    Which rows are scored must not depend on how many shadows trained on them, else that number would give
    membership away. Rows are therefore the population where they are marked, or where they are the only rows
    that trained no shadow (no member is without one); else those of a random draw that trained none, and the
    rest of the draw is put aside.

    Args:
        membership: Bound to the audit's rows.
        members: Ids of the members.
        nonmembers: Ids of the non-members.
        drawn: bool [non-members], a random draw.

    Raises:
        DataError: A shadow trained on a marked row, or a marked row is a member.
    """
    never = np.asarray(~membership.of(nonmembers).any(axis=0))
    marked = membership.marked(nonmembers)
    if membership.marked(members).any():
        raise DataError(f"{membership.source} marks members as population", allowed="non-members")
    if (marked & ~never).any():
        raise DataError(
            f"shadows trained on rows that {membership.source} marks as population",
            got=f"{int((marked & ~never).sum())} of {int(marked.sum())} rows",
            allowed="rows that trained no model",
        )
    nobody = np.zeros_like(never)
    if marked.any():
        return PopulationChoice(~marked, marked, "non-members marked as such, which trained no shadow")
    in_one = membership.of(members).any(axis=0)
    if in_one.all() and never.sum() >= LEAST_POPULATION and (~never).sum() >= LEAST_ROWS:
        return PopulationChoice(~never, never, "non-members that trained no shadow")
    if (drawn & never).sum() >= LEAST_POPULATION:
        return PopulationChoice(
            ~drawn, drawn & never, "of those drawn at random, the ones no shadow trained on"
        )
    return PopulationChoice(~nobody, nobody, "")
