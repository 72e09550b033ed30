"""Signals in, measured attacks out: scores, ROC, intervals, spread across targets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.attacks import (
    DEFAULT_ATTACKS,
    Attack,
    Calibration,
    Signals,
    attacks,
    decide,
    score_target,
    scores_for_all_targets,
    shadow_calibration,
)
from edgeprivacy.attacks.sets import expand
from edgeprivacy.confidences import Confidences
from edgeprivacy.gate_grammar import Gate
from edgeprivacy.metrics.intervals import balanced_accuracy_interval, bootstrap, support
from edgeprivacy.metrics.roc import Roc
from edgeprivacy.metrics.thresholds import best_threshold
from edgeprivacy.metrics.utility import accuracy, share_of_labels, share_right
from edgeprivacy.results import (
    AcrossTargets,
    AttackResult,
    BalancedAccuracy,
    Curve,
    Histogram,
    Metric,
    TprAtFpr,
)
from edgeprivacy.seeding import derive_seed

FPR_LIMITS = (0.01, 0.001, 0.0001)
_BAND_POINTS = 60
_HISTOGRAM_BINS = 40
_DIGITS = 6
_TIMINGS = ("seconds", "rows_per_second")

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def chosen_attacks(names: Sequence[str]) -> tuple[str, ...]:
    """The attacks to run, in order, sets of them (`attacks.sets`) replaced by what they hold; the default set
    where none is named.

    Raises:
        UsageError: Unknown attack, with the closest known name.
    """
    return expand(names) or DEFAULT_ATTACKS


def fpr_limits(gates: Iterable[Gate]) -> tuple[float, ...]:
    """The standard limits, and every other one that a gate names."""
    return tuple(dict.fromkeys((*FPR_LIMITS, *(gate.fpr for gate in gates if gate.fpr is not None))))


def run_facts(confidences: Confidences) -> dict[str, Any]:
    """The runner's facts that an audit keeps: without what differs from run to run (times)."""
    kept = {key: value for key, value in confidences.facts.items() if key not in _TIMINGS}
    return {**kept, "log_floor": confidences.log_floor}


def measure_attacks(
    signals: Signals,
    names: Sequence[str],
    resamples: int,
    seed: int,
    limits: Sequence[float] = FPR_LIMITS,
) -> tuple[tuple[AttackResult, ...], dict[str, Floats]]:
    """Run attacks on target 0 of the signals, and on every other model in turn for the spread.

    Args:
        names: Attacks; each gives one result, skipped ones with the reason.
        resamples: Bootstrap resamples behind each interval.
        seed: Seed of intervals, folds and learned attacks.
        limits: FPR limits whose TPR is measured.

    Returns:
        The results, and the target's scores [rows] of every attack that ran.
    """
    results, scores = [], {}
    for name in names:
        attack = attacks[name]
        result, values = _measure(attack, signals, resamples, derive_seed(seed, "attack", name), limits)
        results.append(result)
        if values is not None:
            scores[name] = values
    return tuple(results), scores


def _measure(
    attack: Attack, signals: Signals, resamples: int, seed: int, limits: Sequence[float]
) -> tuple[AttackResult, Floats | None]:
    audited = signals.audited[0]
    members = signals.members[0, audited]
    base: dict[str, Any] = {
        "name": attack.name,
        "version": attack.version,
        "paper": attack.paper,
        "n_members": int(members.sum()),
        "n_nonmembers": int((~members).sum()),
    }
    # Without shadows, rows of the target are cross-fitted: there is something to learn from.
    rows = np.flatnonzero(audited)
    fitted = Calibration(np.zeros_like(rows), rows, members)
    reason = attack.missing(signals, shadow_calibration(signals, 0) if signals.models > 1 else fitted)
    if reason:
        return AttackResult(**base, skipped=reason), None
    scores = score_target(attack, signals, 0, seed)
    values = scores.values[audited]
    roc = Roc.from_scores(values, members)
    band = np.unique(np.geomspace(1 / roc.n_nonmembers, 1.0, _BAND_POINTS))
    resampled = bootstrap(roc, np.concatenate([limits, band]), resamples, seed)
    decisions = decide(attack, signals, 0, scores.values, seed)
    called = decisions.members[audited]
    hits, alarms = int(called[members].sum()), int(called[~members].sum())
    spread = _across_targets(attack, signals, seed, limits)
    tpr_at_fpr = []
    for limit in limits:
        tpr_at_fpr.append(
            TprAtFpr(
                limit,
                _round(roc.tpr_at_fpr(limit)),
                _interval(resampled.tpr_interval(limit)),
                support(limit, roc.n_nonmembers),
                spread.get(f"tpr{limit}"),
            )
        )
    result = AttackResult(
        **base,
        auc=Metric(_round(roc.auc), _interval(resampled.auc_interval()), spread.get("auc")),
        balanced_accuracy=BalancedAccuracy(
            _round(0.5 * (1 + hits / roc.n_members - alarms / roc.n_nonmembers)),
            _interval(balanced_accuracy_interval(hits, roc.n_members, alarms, roc.n_nonmembers)),
            spread.get("balanced_accuracy"),
            threshold=decisions.threshold,
            tpr=_round(hits / roc.n_members),
            fpr=_round(alarms / roc.n_nonmembers),
        ),
        tpr_at_fpr=tuple(tpr_at_fpr),
        pooled_rows=scores.pooled_rows,
        roc=_curve(roc, resampled.tpr_band(), len(limits), band),
        histogram=_histogram(values, members),
        notes=(*scores.notes, *attack.conclusions(roc)),
    )
    return result, scores.values


def _across_targets(
    attack: Attack, signals: Signals, seed: int, limits: Sequence[float]
) -> dict[str, AcrossTargets]:
    """Mean and standard deviation of each metric with every model as the target in turn.

    A target's threshold is chosen on the scores of the other models.
    """
    if signals.models < 3 or attack.missing(signals, shadow_calibration(signals, 0)):
        return {}
    scores = scores_for_all_targets(attack, signals, seed)
    found: dict[str, list[float]] = {}
    for target in range(signals.models):
        audited = signals.audited[target]
        members, values = signals.members[target, audited], scores[target, audited]
        roc = Roc.from_scores(values, members)
        threshold = attack.threshold
        if threshold is None:
            others = signals.shadows(target)
            mask = signals.audited[others]
            threshold = best_threshold(scores[others][mask], signals.members[others][mask])
        found.setdefault("auc", []).append(roc.auc)
        found.setdefault("balanced_accuracy", []).append(roc.balanced_accuracy(threshold))
        for limit in limits:
            found.setdefault(f"tpr{limit}", []).append(roc.tpr_at_fpr(limit))
    return {name: across_targets(values) for name, values in found.items()}


def across_targets(values: Sequence[float]) -> AcrossTargets:
    """Mean, standard deviation (n - 1) and number."""
    return AcrossTargets(_round(np.mean(values)), _round(np.std(values, ddof=1)), len(values))


def measure_accuracy(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64], others: Sequence[float] = ()
) -> Metric:
    """Top-1 accuracy with its exact interval; `others` are the same accuracy of every release."""
    return _with_spread(accuracy(probabilities, labels), others)


def measure_right(right: Bools, others: Sequence[float] = ()) -> Metric:
    """Share of rows that are answered rightly with its exact interval; `others` are it of every release."""
    return _with_spread(share_right(right), others)


def measure_labels(right: Bools) -> Metric:
    """Share of independent labels [rows, labels] that are answered rightly, with its interval over rows."""
    return _with_spread(share_of_labels(right), ())


def _with_spread(metric: Metric, others: Sequence[float]) -> Metric:
    spread = across_targets(others) if len(others) > 2 else None
    return Metric(_round(metric.value), _interval(metric.ci), spread)


def _curve(roc: Roc, band: tuple[Floats, Floats], skip: int, grid: Floats) -> Curve:
    low, high = band[0][skip:], band[1][skip:]
    return Curve(
        fpr=tuple(map(_round, grid)),
        tpr=tuple(_round(roc.tpr_at_fpr(fpr)) for fpr in grid),
        tpr_low=tuple(map(_round, low)),
        tpr_high=tuple(map(_round, high)),
    )


def _histogram(values: Floats, members: Bools) -> Histogram:
    """Shares per bin; scores beyond the central 99 % are counted in the outermost bins."""
    low, high = np.quantile(values, [0.005, 0.995])
    if high <= low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, _HISTOGRAM_BINS + 1)
    clipped = np.clip(values, low, high)
    inside, outside = (np.histogram(clipped[side], edges)[0] / side.sum() for side in (members, ~members))
    return Histogram(tuple(map(_round, edges)), tuple(map(_round, inside)), tuple(map(_round, outside)))


def _interval(ci: tuple[float, float]) -> tuple[float, float]:
    return _round(ci[0]), _round(ci[1])


def _round(value: float | np.floating) -> float:
    return round(float(value), _DIGITS)
