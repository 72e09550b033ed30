"""What an attack finds in parts of the rows: by class, by how sure the model is, by whether it is right.

Looking at many slices finds a bad one by chance. So all intervals of one metric hold together (Bonferroni
over the slices that were measured), the p-values "no leakage in this slice" are adjusted for their number,
and that number stands in the result. Slices with too few rows for any statement are refused, with the reason.

Two cautions. Slices by the target's own confidence or correctness are drawn by what membership itself moves:
they say where the attack works, not what would happen to rows that were made more or less sure. And a slice's
TPR at an FPR takes its threshold within the slice, so slices do not add up to the whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.errors import DataError
from edgeprivacy.metrics.delong import auc_limits
from edgeprivacy.metrics.intervals import Bootstrap, resample_tpr, support
from edgeprivacy.metrics.multiple import holm
from edgeprivacy.metrics.roc import Bools, Floats, Roc, check_scores

Correction = Literal["holm", "bonferroni"]


@dataclass(frozen=True)
class SliceRate:
    """TPR at an FPR limit within a slice.

    Attributes:
        fpr: The limit.
        value, low, high: TPR and its interval; None where the slice has too few non-members for this limit.
        support: "ok", "low" or "none" (`edgeprivacy.metrics.intervals.support`).
    """

    fpr: float
    value: float | None
    low: float | None
    high: float | None
    support: Literal["ok", "low", "none"]


@dataclass(frozen=True)
class SliceResult:
    """What was measured in one slice.

    Attributes:
        name: As given.
        n_members, n_nonmembers: Its rows.
        auc, auc_low, auc_high: AUC and its interval, at `SliceTable.interval_level`.
        rates: One for each FPR limit.
        p_value: One-sided Mann-Whitney test of "no leakage in this slice", for this slice alone.
        adjusted: The p-value adjusted for all slices measured.
        leaks: Whether `adjusted` is at most 1 - level.
    """

    name: str
    n_members: int
    n_nonmembers: int
    auc: float
    auc_low: float
    auc_high: float
    rates: tuple[SliceRate, ...]
    p_value: float
    adjusted: float
    leaks: bool


@dataclass(frozen=True)
class RefusedSlice:
    """A slice that was not measured, and why."""

    name: str
    n_members: int
    n_nonmembers: int
    reason: str


@dataclass(frozen=True)
class SliceTable:
    """All slices that were asked for.

    Attributes:
        measured: In the order given.
        refused: In the order given.
        n_slices: Number measured: what the correction is for.
        correction: Of the p-values; intervals are always Bonferroni's, for Holm's procedure has none.
        level: Confidence of all intervals of one metric together.
        interval_level: Confidence of each interval, 1 - (1 - level) / n_slices.
    """

    measured: tuple[SliceResult, ...]
    refused: tuple[RefusedSlice, ...]
    n_slices: int
    correction: Correction
    level: float
    interval_level: float


def class_slices(labels: NDArray[Any]) -> dict[str, Bools]:
    """One slice for each label that occurs, "class 3" and so on, each bool [rows]."""
    values = np.asarray(labels)
    return {f"class {label}": values == label for label in np.unique(values)}


def confidence_slices(
    confidence: NDArray[Any], edges: tuple[float, ...] = (25.0, 50.0, 75.0)
) -> dict[str, Bools]:
    """Slices between percentiles of the model's confidence over all rows, each bool [rows].

    Rows as sure as an edge belong to the slice above it. Where many rows are alike, slices can be empty.

    Args:
        confidence: float [rows], for example the largest probability or that of the true class.
        edges: Percentiles inside 0 and 100, rising.

    Raises:
        DataError: Edges do not rise or lie outside, or a confidence is not finite.
    """
    values, cuts = np.asarray(confidence, dtype=np.float64), np.asarray(edges, dtype=np.float64)
    if (np.diff(cuts) <= 0).any() or (cuts <= 0).any() or (cuts >= 100).any():
        raise DataError("percentiles must rise", got=edges, allowed="above 0, below 100")
    if not np.isfinite(values).all():
        raise DataError("confidence must be finite", got=f"{int((~np.isfinite(values)).sum())} that are not")
    which = np.searchsorted(np.percentile(values, cuts), values, "right")
    names = [
        f"confidence percentile {a:g}-{b:g}" for a, b in zip((0.0, *edges), (*edges, 100.0), strict=True)
    ]
    return {name: which == index for index, name in enumerate(names)}


def correctness_slices(correct: NDArray[Any]) -> dict[str, Bools]:
    """Rows that the model gets right, and rows that it gets wrong, each bool [rows]."""
    right = np.asarray(correct, dtype=np.bool_)
    return {"right": right, "wrong": ~right}


def measure_slices(
    scores: NDArray[Any],
    members: NDArray[Any],
    slices: Mapping[str, NDArray[Any]],
    *,
    fprs: tuple[float, ...] = (0.01,),
    correction: Correction = "holm",
    least_rows: int = 30,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> SliceTable:
    """AUC and TPR at FPR limits in every slice, with intervals that hold for all slices together.

    Args:
        scores: float [rows], higher means member.
        members: bool [rows].
        slices: Name -> bool [rows]; slices may overlap.
        fprs: FPR limits inside 0 and 1.
        correction: How p-values are adjusted.
        least_rows: Members, and non-members, that a slice needs; at least 2.
        level: Confidence in (0, 1).
        resamples: Of the bootstrap behind TPR, at least; up to 10 000 where an interval is far out.
        seed: Of the bootstrap.

    Raises:
        DataError: Scores do not fit, a slice has another shape, there are no slices, or an option is out of
            range.
    """
    from scipy.stats import mannwhitneyu

    values, truth = check_scores(scores, members)
    if correction not in ("holm", "bonferroni") or not 0.0 < level < 1.0 or least_rows < 2:
        raise DataError("an option is out of range", got=f"{correction}, level {level}, {least_rows} rows")
    if not slices:
        raise DataError("there are no slices to measure")
    chosen: list[tuple[str, Bools]] = []
    refused: list[RefusedSlice] = []
    for name, rows in slices.items():
        mask = np.asarray(rows, dtype=np.bool_)
        if mask.shape != truth.shape:
            raise DataError(f"slice '{name}' must be [rows]", got=f"{mask.shape}, scores {truth.shape}")
        inside, outside = int((mask & truth).sum()), int((mask & ~truth).sum())
        if min(inside, outside) >= least_rows:
            chosen.append((name, mask))
        else:
            short = [
                f"{n} {what}" for n, what in ((inside, "members"), (outside, "non-members")) if n < least_rows
            ]
            reason = f"{' and '.join(short)}, and {least_rows} are needed"
            refused.append(RefusedSlice(name, inside, outside, reason))
    each = 1.0 - (1.0 - level) / max(len(chosen), 1)
    p_values = [
        float(
            mannwhitneyu(
                values[m & truth], values[m & ~truth], alternative="greater", method="asymptotic"
            ).pvalue
        )
        for _, m in chosen
    ]
    p_values = [1.0 if np.isnan(p) else p for p in p_values]  # nan: all scores equal
    adjusted = (
        holm(p_values).adjusted if correction == "holm" else [min(1.0, p * len(chosen)) for p in p_values]
    )
    return SliceTable(
        measured=tuple(
            _measure(name, values[mask], truth[mask], fprs, each, resamples, seed, p, a, a <= 1.0 - level)
            for (name, mask), p, a in zip(chosen, p_values, adjusted, strict=True)
        ),
        refused=tuple(refused),
        n_slices=len(chosen),
        correction=correction,
        level=level,
        interval_level=each,
    )


def _measure(
    name: str,
    values: Floats,
    truth: Bools,
    fprs: tuple[float, ...],
    level: float,
    resamples: int,
    seed: int,
    p_value: float,
    adjusted: float,
    leaks: bool,
) -> SliceResult:
    roc = Roc.from_scores(values, truth)
    low, high = auc_limits(roc, level)
    limits = np.asarray(fprs, dtype=np.float64)
    drawn = max(resamples, min(int(np.ceil(40.0 / (1.0 - level))), 10_000))
    # The AUC's own resamples cost a hundred times as much as these, and its interval needs none.
    samples = Bootstrap(
        roc, np.empty(0), limits, resample_tpr(roc, limits, drawn, np.random.default_rng(seed))
    )
    rates = []
    for fpr in fprs:
        enough = support(fpr, roc.n_nonmembers)
        if enough == "none":
            rates.append(SliceRate(fpr, None, None, None, enough))
        else:
            rates.append(SliceRate(fpr, roc.tpr_at_fpr(fpr), *samples.tpr_interval(fpr, level), enough))
    return SliceResult(
        name, roc.n_members, roc.n_nonmembers, roc.auc, low, high, tuple(rates), p_value, adjusted, leaks
    )
