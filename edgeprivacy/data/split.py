"""The split as an object: roles, members, hash, file. `splits.make_split` makes it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.data.dataset import Dataset
from edgeprivacy.data.streams import stream
from edgeprivacy.errors import DataError, UsageError
from edgeprivacy.files import sha256_json, write_json

Bools = NDArray[np.bool_]

ROLES = ("pool", "test", "validation", "reference", "calibration")
SCHEMA = "edgeprivacy.split/1"


@dataclass(frozen=True)
class Split:
    """Which row plays which part. Rows are named by id everywhere; model 0 is the target, 1..n the shadows.

    Attributes:
        design: "half", "given" or "disjoint".
        seed: What it was drawn with.
        roles: Role ("pool", "test", "validation", "reference", "calibration") to ids, str [rows], disjoint.
        membership: bool [models, pool rows], columns in the order of `roles["pool"]`.
        target_half: bool [pool rows], the target's half under `disjoint`; None else.
        shares: Shares asked for, by role.
        data_sha256: Hash of the data it was made from.
        duplicates: Rows whose inputs stand in two parts, by "part also in other part"; absent means none.
        canary_ids: Pool rows that are canaries (see `canaries`), str [canaries]; independent coins say which
            of them train a model, the target's half or the train rows as given notwithstanding.
        canary_kind: Of which kind they are; None without canaries.
    """

    design: str
    seed: int
    roles: dict[str, NDArray[np.str_]]
    membership: Bools
    target_half: Bools | None
    shares: dict[str, float]
    data_sha256: str
    duplicates: dict[str, int] = field(default_factory=dict)
    canary_ids: NDArray[np.str_] = field(default_factory=lambda: np.array([], dtype=np.str_))
    canary_kind: str | None = None

    @property
    def models(self) -> int:
        """Number of models, the target included."""
        return len(self.membership)

    def members(self, model: int) -> Bools:
        """Whether each pool row trains a model, bool [pool rows].

        Raises:
            UsageError: No such model.
        """
        self._check(model)
        members: Bools = self.membership[model].copy()
        return members

    def audited(self, model: int) -> Bools:
        """The pool rows on which a model's leakage is measured, bool [pool rows]; never canaries.

        All others, except under `disjoint`: there the half that the model's members were drawn from.

        Raises:
            UsageError: No such model.
        """
        self._check(model)
        if self.target_half is None:
            return ~self.canaries
        half: Bools = self.target_half if model == 0 else ~self.target_half
        return half & ~self.canaries

    @cached_property
    def canaries(self) -> Bools:
        """Which pool rows are canaries, bool [pool rows]."""
        return np.isin(self.roles["pool"], self.canary_ids)

    def train_ids(self, model: int) -> NDArray[np.str_]:
        """Ids of the rows that train a model, in the order of the pool."""
        return self.roles["pool"][self.members(model)]

    def test_halves(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Positions in `roles["test"]`: the attacker's population, and rows held out for the null test.

        Drawn at random: rows of a role lie in the order of the data, which often is that of the classes.
        """
        rows = len(self.roles["test"])
        order = stream(self.seed, "test halves").permutation(rows)
        return np.sort(order[: rows // 2]), np.sort(order[rows // 2 :])

    def partner(self, model: int) -> int | None:
        """The shadow whose members are the complement of this one's; None for the target and an odd last.

        When a shadow is taken as the target in turn, its partner among its shadows would make a row's count
        of IN shadows tell its membership; without the partner the remaining pairs say nothing about it.

        Raises:
            UsageError: No such model.
        """
        self._check(model)
        if model == 0:
            return None
        partner = model + 1 if model % 2 else model - 1
        return partner if partner < self.models else None

    def _check(self, model: int) -> None:
        if not 0 <= model < self.models:
            raise UsageError("the split has no such model", got=model, allowed=f"0 to {self.models - 1}")

    def release_sha256(self, model: int) -> str:
        """Hash of the ids that can shape one release: its members, validation, reference, calibration.

        Independent of all other models, so that more shadows, or another target, leave it as it is.
        """
        used = {role: self.roles[role].tolist() for role in ("validation", "reference", "calibration")}
        return sha256_json({"members": self.train_ids(model).tolist(), **used})

    @cached_property
    def sha256(self) -> str:
        """Hash of design, seed, roles and members: the identity of the split."""
        return sha256_json(self._content())

    def _content(self) -> dict[str, Any]:
        canaries = {"canaries": {"kind": self.canary_kind, "ids": self.canary_ids.tolist()}}
        return {
            "design": self.design,
            "seed": self.seed,
            "shares": self.shares,
            "roles": {role: ids.tolist() for role, ids in self.roles.items()},
            "members": [_to_hex(row) for row in self.membership],
            "target_half": None if self.target_half is None else _to_hex(self.target_half),
            **(canaries if len(self.canary_ids) else {}),
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready content. Members are bits over the pool, one hex string a model, first row first."""
        return {
            "schema": SCHEMA,
            "sha256": self.sha256,
            "data_sha256": self.data_sha256,
            "duplicates": self.duplicates,
            **self._content(),
        }

    @classmethod
    def from_dict(cls, content: Any) -> Split:
        """Inverse of `to_dict`.

        Raises:
            DataError: Not a split, or changed since it was written.
        """
        if not isinstance(content, dict) or content.get("schema") != SCHEMA:
            raise DataError("this is not a saved split", allowed=f"schema {SCHEMA}")
        try:
            roles = {role: np.array(content["roles"][role], dtype=np.str_) for role in ROLES}
            pool, half = len(roles["pool"]), content["target_half"]
            canaries = content.get("canaries", {"kind": None, "ids": []})
            split = cls(
                design=content["design"],
                seed=content["seed"],
                roles=roles,
                membership=np.array([_from_hex(text, pool) for text in content["members"]], dtype=bool),
                target_half=None if half is None else _from_hex(half, pool),
                shares=content["shares"],
                data_sha256=content["data_sha256"],
                duplicates=content["duplicates"],
                canary_ids=np.array(canaries["ids"], dtype=np.str_),
                canary_kind=canaries["kind"],
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError("this saved split is damaged", got=error) from None
        if split.sha256 != content["sha256"]:
            raise DataError("this saved split was changed after it was written: its hash does not fit")
        return split

    def save(self, path: Path) -> None:
        """Write the split as JSON, whole or not at all."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: Path) -> Split:
        """Read what `save` wrote.

        Raises:
            DataError: The file is missing, not JSON, not a split, or was changed.
        """
        try:
            content = json.loads(path.read_text())
        except FileNotFoundError:
            raise DataError(f"{path} does not exist") from None
        except (ValueError, OSError) as error:
            raise DataError(f"{path} is not readable JSON", got=error) from None
        return cls.from_dict(content)

    def check(self, data: Dataset) -> None:
        """Raises DataError when the data is not the data that the split was made from."""
        if data.sha256 != self.data_sha256:
            raise DataError(
                f"the data of {data.source} is not what the split was made from",
                hint="use the same files, or make the split anew in another output folder",
            )

    def describe(self) -> dict[str, Any]:
        """What audit.json says about the split: counts, shares, hashes, overlaps, and one line of text."""
        audited, target = self.audited(0), self.members(0)
        counts = {role: len(ids) for role, ids in self.roles.items()}
        counts |= {"members": int((audited & target).sum()), "nonmembers": int((audited & ~target).sum())}
        canaries = {"kind": self.canary_kind, "number": len(self.canary_ids)}
        canaries |= {"members": int((self.canaries & target).sum())}
        shadow_members = [int(row.sum()) for row in self.membership[1:]]
        rows = sum(len(ids) for ids in self.roles.values())
        return {
            "design": self.design,
            "seed": self.seed,
            "sha256": self.sha256,
            "data_sha256": self.data_sha256,
            "text": self._sentence(counts, shadow_members),
            "shares": self.shares,
            "counts": counts,
            **({"canaries": canaries} if len(self.canary_ids) else {}),
            "shadows": len(shadow_members),
            "shadow_members": {"least": min(shadow_members), "most": max(shadow_members)}
            if shadow_members
            else None,
            "overlaps": {
                "by_id": rows - len({row_id for ids in self.roles.values() for row_id in ids.tolist()}),
                "by_content": self.duplicates,
            },
        }

    def _sentence(self, counts: dict[str, int], shadow_members: list[int]) -> str:
        text = self._population_sentence(counts, shadow_members)
        if not len(self.canary_ids):
            return text
        inside = int((self.canaries & self.members(0)).sum())
        return (
            f"{text} Beside these, {len(self.canary_ids)} training rows were turned into canaries "
            f"({self.canary_kind}); a fair coin for each and each model put {inside} of them into this file."
        )

    def _population_sentence(self, counts: dict[str, int], shadow_members: list[int]) -> str:
        members, nonmembers = counts["members"], counts["nonmembers"]
        pool = counts["pool"] - len(self.canary_ids)
        file = "The audit file" if len(self.canary_ids) else "The shipped file"
        train = "other train rows" if len(self.canary_ids) else "train rows"
        if self.design == "half":
            return (
                f"{file} was trained on half of the pool: {members} of {pool} rows, by a fair coin "
                f"a row; the other {nonmembers} are the non-members."
            )
        if self.design == "given":
            text = (
                f"{file} was trained on all {members} {train} as given; {nonmembers} of the "
                "hold-out rows are the non-members."
            )
            if shadow_members:
                typical = round(sum(shadow_members) / len(shadow_members))
                text += (
                    f" Shadows are trained on half of the union of both, about {typical} rows each, "
                    f"so they differ from the target in size ({members})."
                )
            return text
        return (
            f"{file} was trained on {members} rows of the target's half of the pool "
            f"({members + nonmembers} of {pool} rows); shadows are drawn from the other half alone."
        )


def _to_hex(bits: Bools) -> str:
    return np.packbits(bits).tobytes().hex()


def _from_hex(text: str, rows: int) -> Bools:
    packed = np.frombuffer(bytes.fromhex(text), dtype=np.uint8)
    if len(packed) != (rows + 7) // 8:
        raise ValueError(f"{8 * len(packed)} membership bits for {rows} pool rows")
    return np.unpackbits(packed, count=rows).astype(bool)
