"""Canaries measured beside the population: their rows apart, every model as the target where that is fair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.attacks import (
    Attack,
    Signals,
    attacks,
    scores_for_all_targets,
    shadow_calibration,
)
from edgeprivacy.data.split import Split
from edgeprivacy.measuring import FPR_LIMITS, across_targets, measure_attacks
from edgeprivacy.metrics.clustered import pooled_metrics
from edgeprivacy.metrics.intervals import support
from edgeprivacy.metrics.roc import Roc
from edgeprivacy.metrics.thresholds import best_threshold
from edgeprivacy.results import AttackResult, BalancedAccuracy, Metric, TprAtFpr
from edgeprivacy.seeding import derive_seed

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_LEAST_MODELS = 3
_DIGITS = 6


def apart(signals: Signals, split: Split) -> tuple[Signals, Signals | None]:
    """What an attacker sees of the population's rows, and of the canaries; None without canaries.

    Neither side's rows are calibrated on by attacks on the other. All canaries are audited on every model,
    and no model is another's partner there: their coins are independent.

    Args:
        signals: On all rows of the pool, in its order.
        split: Says which of them are canaries.
    """
    if not split.canaries.any():
        return signals, None
    canaries = _columns(signals, split.canaries)
    canaries = replace(canaries, audited=np.ones_like(canaries.members), partner=None)
    return _columns(signals, ~split.canaries), canaries


def _columns(signals: Signals, rows: Bools) -> Signals:
    return replace(
        signals,
        probabilities=signals.probabilities[:, rows],
        labels=signals.labels[rows],
        members=signals.members[:, rows],
        audited=signals.audited[:, rows],
        versions=tuple(
            replace(version, probabilities=version.probabilities[:, rows], labels=version.labels[rows])
            for version in signals.versions
        ),
        gathered={name: values[:, rows] for name, values in signals.gathered.items()},
    )


def poolable(split: Split, models: int) -> bool:
    """Whether every model may stand as the target of its canaries.

    Not under `given`: shadows are trained on other numbers of rows there than the target, and would tell of
    themselves. Nor with fewer than three models.
    """
    return split.design != "given" and models >= _LEAST_MODELS


def measure_canaries(
    canaries: Signals,
    names: Sequence[str],
    resamples: int,
    seed: int,
    limits: Sequence[float] = FPR_LIMITS,
    pooled: bool = True,
) -> tuple[AttackResult, ...]:
    """Run attacks on the canaries alone.

    Args:
        canaries: From `apart`; the target is model 0.
        names: Attacks; each gives one result, skipped ones with the reason.
        resamples: Bootstrap resamples behind each interval.
        seed: Seed of intervals, folds and learned attacks.
        limits: FPR limits whose TPR is measured.
        pooled: Whether every model is taken as the target in turn and all (model, canary) pairs are measured
            together, for resolution: 500 canaries and 17 models give 8,500 pairs. Needs three models and an
            attack that can run on each; the target's own canaries are measured alone else.

    Returns:
        Results that carry no curve. Of pooled ones `targets` counts the models, the intervals are over
        canaries (given these models), and thresholds were chosen on the scores of the other models.
    """
    seed, found = derive_seed(seed, "canaries"), []
    for name in names:
        attack = attacks[name]
        alone = attack.missing(canaries, shadow_calibration(canaries, 0)) or canaries.models < _LEAST_MODELS
        if pooled and not alone:
            found.append(_pooled(attack, canaries, resamples, derive_seed(seed, "attack", name), limits))
            continue
        (result,), _ = measure_attacks(canaries, (name,), resamples, seed, limits)
        found.append(replace(result, roc=None, histogram=None))
    return tuple(found)


def _pooled(
    attack: Attack, canaries: Signals, resamples: int, seed: int, limits: Sequence[float]
) -> AttackResult:
    scores, members = scores_for_all_targets(attack, canaries, seed), canaries.members
    decisions = np.stack([_decide(attack, scores, members, model) for model in range(len(scores))])
    found = pooled_metrics(scores, members, decisions, tuple(limits), resamples, seed)
    curves = [Roc.from_scores(values, truth) for values, truth in zip(scores, members, strict=True)]
    balanced = [
        0.5 * (1 + called[truth].mean() - called[~truth].mean())
        for called, truth in zip(decisions, members, strict=True)
    ]
    outside = found.roc.n_nonmembers
    return AttackResult(
        name=attack.name,
        version=attack.version,
        paper=attack.paper,
        n_members=found.roc.n_members,
        n_nonmembers=outside,
        auc=Metric(
            _round(found.roc.auc), _interval(found.auc), across_targets([curve.auc for curve in curves])
        ),
        balanced_accuracy=BalancedAccuracy(
            _round(found.balanced_accuracy), _interval(found.balanced_accuracy_ci), across_targets(balanced)
        ),
        tpr_at_fpr=tuple(
            TprAtFpr(
                limit,
                _round(found.roc.tpr_at_fpr(limit)),
                _interval(ci),
                support(limit, outside),
                across_targets([curve.tpr_at_fpr(limit) for curve in curves]),
            )
            for limit, ci in zip(limits, found.tpr, strict=True)
        ),
        targets=len(scores),
    )


def _decide(attack: Attack, scores: Floats, members: Bools, model: int) -> Bools:
    threshold = attack.threshold
    if threshold is None:
        others = np.arange(len(scores)) != model
        threshold = best_threshold(scores[others].ravel(), members[others].ravel())
    return np.asarray(scores[model] >= threshold)


def _interval(ci: tuple[float, float]) -> tuple[float, float]:
    return _round(ci[0]), _round(ci[1])


def _round(value: float) -> float:
    return round(float(value), _DIGITS)
