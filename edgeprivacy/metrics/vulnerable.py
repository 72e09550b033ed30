"""How much of the leakage a few rows carry.

Leakage of a row, over a set of models some of which trained on it: the probability that a model that trained
on the row shows stronger evidence than one that did not (ties one half), less one half. That is the row's own
AUC - 1/2; it can be negative, by chance.

Rows that look vulnerable in some models look so by luck as well as by nature. Chosen and measured on the same
models, the "most vulnerable tenth" carries far more than a tenth where all rows leak alike. So the models are
halved: rows are chosen by their leakage in one half and measured in the other, then the halves change places,
and

    share = (sum over chosen rows of the measured leakage) / (sum over all rows of the measured leakage),

numerators and denominators added over both turns. It is the share of rows chosen *with this much evidence*:
with few models the choice is poor, and the share lies below that of the truly most vulnerable rows, towards
the tenth itself (definition inferred: no source gives one).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.errors import DataError
from edgeprivacy.metrics.roc import Bools, Floats

_LEAST_MODELS = 4


@dataclass(frozen=True)
class VulnerableShare:
    """The share of the leakage carried by the most vulnerable rows.

    Attributes:
        share: The share; None where it means nothing (see `reason`). About `part` where all rows leak alike.
        low, high: Percentile interval over resampled rows. It does not cover another draw of the models.
        part: Share of the rows that is chosen.
        chosen_leakage: Mean leakage (AUC - 1/2) of the chosen rows, in models that did not choose them.
        mean_leakage: The same of all rows.
        rows: Rows used in both turns; `left_out` rows lacked a model of either kind in a half.
        models: Models in all.
        reason: Why there is no share, else None.
    """

    share: float | None
    low: float | None
    high: float | None
    part: float
    chosen_leakage: float
    mean_leakage: float
    rows: int
    left_out: int
    models: int
    reason: str | None


def row_leakage(evidence: NDArray[Any], members: NDArray[Any]) -> Floats:
    """AUC - 1/2 of every row over models, float64 [rows] in [-1/2, 1/2]; nan without models of both kinds.

    Args:
        evidence: float [models, rows], higher means that the model trained on the row.
        members: bool [models, rows].

    Raises:
        DataError: Shapes differ or evidence is not finite.
    """
    values, inside = _check(evidence, members)
    return _row_leakage(values, inside)


def vulnerable_share(
    evidence: NDArray[Any],
    members: NDArray[Any],
    part: float = 0.1,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> VulnerableShare:
    """Share of the leakage carried by the most vulnerable part of the rows.

    Args:
        evidence: float [models, rows], higher means that the model trained on the row. Each model's evidence
            must come from that model alone (its logit-scaled confidence, its negated loss), or from models of
            its own half: scores that every model helped to calibrate would let the halves see each other.
        members: bool [models, rows].
        part: Share of the rows to choose, inside (0, 1); rounded to whole rows, at least one.
        resamples: Of the rows, for the interval.
        level: Confidence in (0, 1).
        seed: Of the halves, of the order among equal rows, and of the resamples.

    Raises:
        DataError: Shapes differ, evidence is not finite, there are fewer than four models, no row has models
            of both kinds in both halves, or an option is out of range.
    """
    values, inside = _check(evidence, members)
    if not 0.0 < part < 1.0 or not 0.0 < level < 1.0 or resamples < 2:
        raise DataError("an option is out of range", got=f"part {part}, level {level}, {resamples} resamples")
    models = len(values)
    if models < _LEAST_MODELS:
        raise DataError("halving needs more models", got=models, allowed=f"{_LEAST_MODELS} or more")
    rng = np.random.default_rng(seed)
    order = rng.permutation(models)
    halves = [order[: models // 2], order[models // 2 :]]
    leakage = np.stack([_row_leakage(values[half], inside[half]) for half in halves])
    usable = np.flatnonzero(np.isfinite(leakage).all(axis=0))
    if not len(usable):
        raise DataError(
            "no row has models that trained on it and models that did not in both halves",
            got=f"{models} models",
            hint="use more shadow models",
        )
    leakage = leakage[:, usable]
    count = max(1, round(part * len(usable)))
    chosen = np.stack([_top(of_half, count, rng) for of_half in leakage])
    # One number a row and turn, so that rows can be resampled with both turns together.
    carried = (leakage[1] * chosen[0]) + (leakage[0] * chosen[1])
    total = leakage.sum(axis=0)
    draws = [rng.integers(0, len(usable), len(usable)) for _ in range(resamples)]
    totals = np.array([total[draw].sum() for draw in draws])
    shares = np.array([carried[draw].sum() for draw in draws]) / np.where(totals == 0.0, np.nan, totals)
    tail = (1.0 - level) / 2.0
    reason = None
    if np.quantile(totals, tail) <= 0.0:
        reason = (
            "the rows together show no leakage that could be told from none, so there is nothing to share"
        )
    low, high = np.nanquantile(shares, [tail, 1.0 - tail]) if reason is None else (np.nan, np.nan)
    return VulnerableShare(
        share=None if reason else float(carried.sum() / total.sum()),
        low=None if reason else float(low),
        high=None if reason else float(high),
        part=count / len(usable),
        chosen_leakage=float(carried.sum() / (2 * count)),
        mean_leakage=float(leakage.mean()),
        rows=len(usable),
        left_out=values.shape[1] - len(usable),
        models=models,
        reason=reason,
    )


def _top(leakage: Floats, count: int, rng: np.random.Generator) -> Bools:
    """The `count` largest; equal ones, of which few models make many, at random."""
    order = rng.permutation(len(leakage))
    chosen = np.zeros(len(leakage), dtype=np.bool_)
    chosen[order[np.argsort(-leakage[order], kind="stable")[:count]]] = True
    return chosen


def _row_leakage(values: Floats, inside: Bools) -> Floats:
    # The rank sum of the models that trained on the row (Mann-Whitney); equal evidence takes the mean rank.
    from scipy.stats import rankdata

    n_in = inside.sum(axis=0).astype(np.float64)
    pairs = n_in * (len(inside) - n_in)
    ranks = (rankdata(values, axis=0) * inside).sum(axis=0) - n_in * (n_in + 1.0) / 2.0
    return np.asarray(np.where(pairs > 0, ranks / np.maximum(pairs, 1.0), np.nan) - 0.5)


def _check(evidence: NDArray[Any], members: NDArray[Any]) -> tuple[Floats, Bools]:
    values, inside = np.asarray(evidence, dtype=np.float64), np.asarray(members, dtype=np.bool_)
    if values.ndim != 2 or values.shape != inside.shape:
        raise DataError(
            "evidence and members must be [models, rows] alike", got=f"{values.shape}, {inside.shape}"
        )
    if not np.isfinite(values).all():
        raise DataError("evidence must be finite", got=f"{int((~np.isfinite(values)).sum())} that are not")
    return values, inside
