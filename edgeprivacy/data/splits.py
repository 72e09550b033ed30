"""Which row plays which part: pool, test, validation, reference, calibration, and who is a member of what."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.data.checks import row_digests
from edgeprivacy.data.dataset import Dataset, Source
from edgeprivacy.data.split import ROLES, Split
from edgeprivacy.data.streams import stream
from edgeprivacy.errors import DataError, RecipeError, UsageError, did_you_mean

Bools = NDArray[np.bool_]

__all__ = ["DESIGNS", "ROLES", "Shares", "Split", "make_split", "refuse_absent_classes"]

DESIGNS = ("half", "given", "disjoint")


@dataclass(frozen=True)
class Shares:
    """Shares of the rows by role; they sum to one and are the same whatever the defense.

    Under `given` the train rows are what they are; the hold-out rows are divided in the proportion
    pool/2 : test : validation : reference : calibration, the first being the audited non-members.

    Attributes:
        pool: Rows from which members and non-members are drawn; all of them are scored.
        test: Utility, population and null tests.
        validation: Choice of epochs, thresholds and settings.
        reference: Non-member rows a defense may use.
        calibration: Rows that set quantization ranges.
    """

    pool: float = 0.72
    test: float = 0.14
    validation: float = 0.06
    reference: float = 0.04
    calibration: float = 0.04

    def __post_init__(self) -> None:
        for name, share in self.to_dict().items():
            least = 0.0 if name in ("reference", "calibration") else 1e-6
            if not least <= share < 1:
                raise RecipeError(f"share '{name}' is out of range", got=share, allowed="above 0, below 1")
        total = sum(self.to_dict().values())
        if abs(total - 1) > 1e-6:
            raise RecipeError("the shares must sum to 1", got=round(total, 6))

    def to_dict(self) -> dict[str, float]:
        """Share by role."""
        return {field.name: float(getattr(self, field.name)) for field in fields(self)}


def make_split(source: Source, design: str, shares: Shares, seed: int, shadows: int) -> Split:
    """Give every row its role and every model its members.

    `half`: one independent fair coin a pool row decides the target's members. `given`: the train rows are the
    target's members, all of them. `disjoint`: target and shadows draw from separate halves of the pool.

    Shadows come in complementary pairs: one independent fair coin a row and a pair says which of the two it
    is in. So each row is in exactly half of them (floor or ceil by coin where the last pair is incomplete),
    the count says nothing about the target, and shadow k is the same however many shadows there are.

    Args:
        source: The data.
        design: "half", "given" or "disjoint".
        shares: Shares by role.
        seed: Non-negative; the same seed gives the same split.
        shadows: Number of shadow models, from 0.

    Raises:
        UsageError: Unknown design, negative seed or number of shadows.
        DataError: The design does not fit the data, too few rows, or a class that is absent from the members
            of a model or from the test rows (class and role named).
    """
    if design not in DESIGNS:
        raise UsageError(
            f"unknown split design '{design}'", allowed=", ".join(DESIGNS), hint=did_you_mean(design, DESIGNS)
        )
    if shadows < 0:
        raise UsageError("the number of shadows must not be negative", got=shadows)
    data = source.pool
    if design == "given":
        if source.train_ids is None:
            raise DataError(
                "the split 'given' needs to know the train rows",
                hint="give --train and --holdout, a split column, or a factory that takes `part`",
            )
        train: Bools = np.isin(data.ids, source.train_ids)
        index = _roles_given(train, shares, seed)
    else:
        if not source.one_path:
            raise DataError(
                f"the split '{design}' draws members from train and hold-out rows alike, but these are "
                "loaded along different paths",
                hint="use --split given, or give all rows as one source",
            )
        train = np.zeros(len(data), dtype=bool)
        index = _roles_of_one_pool(len(data), shares, seed)
    pool = index["pool"]
    target_half: Bools | None = None
    if design == "given":
        target: Bools = train[pool]
    else:
        target = stream(seed, "target").integers(0, 2, len(pool)).astype(bool)
    if design == "disjoint":
        target_half = np.zeros(len(pool), dtype=bool)
        target_half[stream(seed, "halves").permutation(len(pool))[: len(pool) // 2]] = True
        target &= target_half
    members = np.vstack([target[None], _shadow_coins(seed, shadows, len(pool), target_half)])
    split = Split(
        design=design,
        seed=seed,
        roles={role: data.ids[index[role]] for role in ROLES},
        membership=members,
        target_half=target_half,
        shares=shares.to_dict(),
        data_sha256=data.sha256,
        duplicates=_duplicates(data, index, target, target_half),
    )
    refuse_absent_classes(split, data)
    return split


def _roles_of_one_pool(rows: int, shares: Shares, seed: int) -> dict[str, NDArray[np.intp]]:
    """Positions by role, in the order of the data, by a seeded permutation."""
    order = stream(seed, "roles").permutation(rows)
    return _deal(order, shares.to_dict(), "rows")


def _roles_given(train: Bools, shares: Shares, seed: int) -> dict[str, NDArray[np.intp]]:
    holdout = np.flatnonzero(~train)
    weights = shares.to_dict()
    weights["pool"] /= 2  # as many audited non-members as `half` has on average
    index = _deal(stream(seed, "roles").permutation(holdout), weights, "hold-out rows")
    index["pool"] = np.sort(np.concatenate([np.flatnonzero(train), index["pool"]]))
    return index


def _deal(order: NDArray[np.intp], weights: dict[str, float], what: str) -> dict[str, NDArray[np.intp]]:
    """Cut an order into parts as large as the weights say (largest remainder), each sorted."""
    exact = {role: weight / sum(weights.values()) * len(order) for role, weight in weights.items()}
    sizes = {role: int(size + 1e-9) for role, size in exact.items()}
    by_remainder = sorted(exact, key=lambda role: (sizes[role] - exact[role], ROLES.index(role)))
    for role in by_remainder[: len(order) - sum(sizes.values())]:
        sizes[role] += 1
    index, start = {}, 0
    for role in ROLES:
        if weights[role] > 0 and sizes[role] == 0:
            raise DataError(
                f"too few {what}: none is left for the {role} rows",
                got=f"{len(order)} {what}",
                hint="give more rows or another share",
            )
        index[role] = np.sort(order[start : start + sizes[role]])
        start += sizes[role]
    return index


def _shadow_coins(seed: int, shadows: int, rows: int, target_half: Bools | None) -> Bools:
    """Membership of the shadows, bool [shadows, rows], in complementary pairs."""
    members = np.zeros((shadows, rows), dtype=bool)
    for shadow in range(shadows):
        coin = stream(seed, "shadows", shadow // 2).integers(0, 2, rows).astype(bool)
        members[shadow] = coin if shadow % 2 == 0 else ~coin
    if target_half is not None:
        members &= ~target_half
    return members


def _duplicates(
    data: Dataset, index: dict[str, NDArray[np.intp]], target: Bools, target_half: Bools | None
) -> dict[str, int]:
    """Rows of one part whose inputs also stand in another, by "part also in other part"; zeros left out."""
    digests = row_digests(data.x)
    pool = index["pool"]
    own = np.ones(len(pool), dtype=bool) if target_half is None else target_half
    parts = {"members": pool[target], "non-members": pool[own & ~target]}
    if target_half is not None:
        parts["shadow pool"] = pool[~target_half]
    parts |= {role: index[role] for role in ROLES if role != "pool"}
    found = {}
    names = list(parts)
    for position, name in enumerate(names):
        for other in names[position + 1 :]:
            count = int(np.isin(digests[parts[other]], digests[parts[name]]).sum())
            if count:
                found[f"{other} also in {name}"] = count
    repeated = len(digests) - len(np.unique(digests))
    if repeated:
        found["rows that repeat an earlier row"] = repeated
    return found


def refuse_absent_classes(split: Split, data: Dataset) -> None:
    """Raises DataError where a class is absent from the members of a model or from the test rows; canaries
    stand for no class. Of independent labels each must hold for some of these rows and not for others."""
    pool_labels = data.take(split.roles["pool"]).y

    def require(labels: NDArray[np.int64], role: str) -> None:
        if labels.ndim == 2:
            present = (labels.min(axis=0) == 0) & (labels.max(axis=0) == 1)
        else:
            present = np.bincount(labels, minlength=data.classes) > 0
        if not present.all():
            name = data.class_names[int(np.argmin(present))]
            what, is_so = "class", "absent from"
            if labels.ndim == 2:
                what, is_so = "label", "the same in all of"
            raise DataError(
                f"{what} '{name}' is {is_so} {role}",
                got=f"{int((~present).sum())} of {data.classes} are, {len(labels)} rows",
                hint=f"give more rows of it, leave the {what} out, or try another seed",
            )

    require(data.y, "the data")
    for model in range(split.models):
        require(pool_labels[split.members(model) & ~split.canaries], _whose(split, model))
    require(data.take(split.roles["test"]).y, "the test rows")


def _whose(split: Split, model: int) -> str:
    if model == 0:
        return "the train rows" if split.design == "given" else "the target's members"
    return f"the members of shadow {model}"
