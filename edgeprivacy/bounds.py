"""Bounds, records' risk and slices of one artifact, measured with one attack that was chosen beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.attacks import Signals, attacks, scores_for_all_targets
from edgeprivacy.bounds_results import (
    Bounds,
    OneRunBound,
    RecordRisk,
    Records,
    RiskBin,
    SliceRow,
    Slices,
    Strength,
    Vulnerable,
)
from edgeprivacy.errors import DataError
from edgeprivacy.metrics.attack_epsilon import attack_strength
from edgeprivacy.metrics.epsilon import Draw, one_run_audit
from edgeprivacy.metrics.f_dp import one_run_gaussian_mu
from edgeprivacy.metrics.risk import Recalibration, reliability
from edgeprivacy.metrics.slices import (
    class_slices,
    confidence_slices,
    correctness_slices,
    measure_slices,
)
from edgeprivacy.metrics.vulnerable import vulnerable_share
from edgeprivacy.seeding import derive_seed

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

# By what is known of their strength elsewhere, the strongest first. None of them learns from the rows that it
# judges, which a bound could not allow.
ORDER = (
    *("lira.online.global", "lira.online", "rmia.online", "rmia.offline"),
    *("lira.offline.global", "lira.offline", "attack-r", "difficulty", "attack-p"),
    *("modified-entropy.global", "confidence.global", "loss", "entropy.global", "gap"),
)
LIKELIHOOD_RATIOS = ("lira.online.global", "lira.online")
"""Attacks whose score is a log-likelihood ratio: what a record's risk is made of."""
LEVEL, DELTA = 0.95, 0.0
SLICE_FPR = 0.01
PERCENTILES = (25.0, 50.0, 75.0, 95.0)
RISKS = (0.5, 0.9, 0.99)
_DIGITS = 6
_LEAST_SHADOWS = 2
_MANY_PAIRS = 1000


def chosen_attack(signals: Signals, names: Sequence[str]) -> str | None:
    """The first of `ORDER` that was asked for and can run; None if there is none."""
    for name in ORDER:
        if name in names and attacks[name].missing(signals, None) is None:
            return name
    return None


def measure_bounds(
    signals: Signals, name: str, scores: Floats, drawn: Draw, resamples: int, seed: int
) -> tuple[Bounds, Records]:
    """Everything that `Bounds` holds, for model 0 of the signals.

    Args:
        name: The attack, from `chosen_attack`.
        scores: Its scores [rows] of model 0, higher means member, as `measure_attacks` gives them.
        drawn: How the membership of the target's audited rows was drawn; a one-run bound needs coins.
        resamples: Of the bootstrap behind intervals.
        seed: Of halves, resamples and the order of equal scores.
    """
    audited = signals.audited[0]
    values, members = scores[audited], signals.members[0, audited]
    risk, risks = _risk(signals, name, scores, seed)
    bounds = Bounds(
        attack=name,
        one_run=_one_run(values, members, drawn, derive_seed(seed, "one run")),
        strength=_strength(values, members, derive_seed(seed, "strength")),
        risk=risk,
        slices=_slices(signals, values, resamples, derive_seed(seed, "slices")),
        vulnerable=_vulnerable(signals, resamples, derive_seed(seed, "vulnerable")),
    )
    rows = np.flatnonzero(audited)
    return bounds, Records(name, rows, signals.labels[rows], members, values, risks)


def _one_run(values: Floats, members: Bools, drawn: Draw, seed: int) -> OneRunBound:
    try:
        found = one_run_audit(values, members, drawn=drawn, delta=DELTA, level=LEVEL, seed=seed)
    except DataError as error:
        return OneRunBound(level=LEVEL, delta=DELTA, not_run=error.what)
    guesses = found.guessed_in + found.guessed_out
    mu = one_run_gaussian_mu(found.n_canaries, guesses, found.correct, found.level)
    return OneRunBound(
        epsilon=_round(found.epsilon),
        mu=_round(mu),
        delta=found.delta,
        level=found.level,
        canaries=found.n_canaries,
        guesses=guesses,
        correct=found.correct,
    )


def _strength(values: Floats, members: Bools, seed: int) -> Strength:
    found = attack_strength(values, members, level=LEVEL, seed=seed)
    return Strength(
        epsilon=_round(found.epsilon),
        level=found.level,
        tpr=_round(found.true_positives / found.n_members),
        fpr=_round(found.false_positives / found.n_nonmembers),
        n_members=found.n_members,
        n_nonmembers=found.n_nonmembers,
        meaning=found.meaning,
    )


def _risk(signals: Signals, name: str, scores: Floats, seed: int) -> tuple[RecordRisk, Floats | None]:
    """Risks of the target's audited rows: ratios that shadows as targets have put right."""
    if name not in LIKELIHOOD_RATIOS:
        return RecordRisk(not_run=f"{name} gives no likelihood ratio; {LIKELIHOOD_RATIOS[0]} does"), None
    audited = signals.audited[0]
    members, prior = signals.members[0, audited], float(signals.members[0, audited].mean())
    if signals.models - 1 < _LEAST_SHADOWS:
        return RecordRisk(not_run="too few shadows to put the ratios right"), None
    every = scores_for_all_targets(attacks[name], signals, derive_seed(seed, "risk"))[1:]
    of_shadows = signals.audited[1:]
    # A straight line through log odds would be drawn by the few ratios that lie in the millions.
    method: Literal["isotonic", "logistic"] = "isotonic" if of_shadows.sum() >= _MANY_PAIRS else "logistic"
    recalibrated = Recalibration(every[of_shadows], signals.members[1:][of_shadows], method)
    risks = recalibrated(scores[audited], prior)
    told = reliability(risks, members, level=LEVEL, seed=derive_seed(seed, "reliability"))
    bins = zip(told.predicted, told.observed, told.low, told.high, told.records, strict=True)
    return (
        RecordRisk(
            prior=_round(prior),
            calibration=recalibrated.method,
            bins=tuple(
                RiskBin(_round(p), _round(o), (_round(low), _round(high)), int(n))
                for p, o, low, high, n in bins
            ),
            expected_error=_round(told.expected_error),
            error_by_chance=_round(told.error_by_chance),
            outside=told.outside,
            above=tuple(
                (limit, int((risks[members] >= limit).sum()), int((risks[~members] >= limit).sum()))
                for limit in RISKS
            ),
        ),
        risks,
    )


def _slices(signals: Signals, values: Floats, resamples: int, seed: int) -> Slices:
    audited = signals.audited[0]
    labels, answers = signals.labels[audited], signals.probabilities[0, audited]
    members = signals.members[0, audited]
    groups = {
        "class": class_slices(labels),
        "confidence": confidence_slices(answers.max(axis=1), PERCENTILES),
        "correctness": correctness_slices(answers.argmax(axis=1) == labels),
    }
    if signals.independent_labels:
        groups = {"confidence": groups["confidence"]}
    group_of = {name: group for group, slices in groups.items() for name in slices}
    every = {name: rows for slices in groups.values() for name, rows in slices.items()}
    table = measure_slices(
        values, members, every, fprs=(SLICE_FPR,), level=LEVEL, resamples=resamples, seed=seed
    )
    measured = {
        one.name: SliceRow(
            group=group_of[one.name],
            name=one.name,
            n_members=one.n_members,
            n_nonmembers=one.n_nonmembers,
            auc=_round(one.auc),
            auc_ci=(_round(one.auc_low), _round(one.auc_high)),
            tpr=None if one.rates[0].value is None else _round(one.rates[0].value),
            tpr_ci=None
            if one.rates[0].low is None or one.rates[0].high is None
            else (_round(one.rates[0].low), _round(one.rates[0].high)),
            p_value=_round(one.adjusted),
            leaks=one.leaks,
        )
        for one in table.measured
    }
    refused = {
        one.name: SliceRow(group_of[one.name], one.name, one.n_members, one.n_nonmembers, not_run=one.reason)
        for one in table.refused
    }
    return Slices(
        rows=tuple({**measured, **refused}[name] for name in every),
        measured=table.n_slices,
        level=table.level,
        fpr=SLICE_FPR,
    )


def _vulnerable(signals: Signals, resamples: int, seed: int) -> Vulnerable:
    audited = signals.audited[0]
    try:
        found = vulnerable_share(
            signals.logit_confidence[:, audited],
            signals.members[:, audited],
            resamples=resamples,
            level=LEVEL,
            seed=seed,
        )
    except DataError as error:
        return Vulnerable(None, None, 0.1, int(audited.sum()), signals.models, not_run=str(error))
    ci = None if found.low is None or found.high is None else (_round(found.low), _round(found.high))
    return Vulnerable(
        share=None if found.share is None else _round(found.share),
        ci=ci,
        part=_round(found.part),
        rows=found.rows,
        models=found.models,
        not_run=found.reason,
    )


def _round(value: float | np.floating) -> float:
    return round(float(value), _DIGITS)
