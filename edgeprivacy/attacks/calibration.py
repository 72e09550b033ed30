"""Running attacks fairly: what they may calibrate on, every model as the target, and who decides "member".

Nothing here lets the membership of a target reach the scores or the threshold that are measured on it, except
by cross-fitting, where each row is scored without its own membership.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.attacks.base import Attack, Bools, Calibration, Floats, Population, Scores, Signals, Version
from edgeprivacy.errors import DataError
from edgeprivacy.metrics.thresholds import best_threshold, cross_fit_decisions, stratified_folds

_THRESHOLD_SHADOWS = 8


def shadow_calibration(signals: Signals, target: int) -> Calibration | None:
    """All audited (model, row) pairs of all models except the target; None without shadows."""
    return _pairs(signals, signals.shadows(target)) if signals.models > 1 else None


def _pairs(signals: Signals, models: NDArray[np.intp]) -> Calibration:
    which, rows = np.nonzero(signals.audited[models])
    return Calibration(models[which], rows, signals.members[models[which], rows])


def cross_fit(attack: Attack, signals: Signals, target: int = 0, folds: int = 2, seed: int = 0) -> Scores:
    """Scores of every row, calibrated on the target's audited rows of the *other* folds.

    For audits without shadows. Folds are stratified by membership, not by class: with equal shares of members
    of a class in every fold, an attack that sees the label would learn from one fold which classes happen to
    have more members in the other. Rows that are not audited are scored with all audited rows as calibration.
    An attack that needs no calibration is simply run.

    Raises:
        DataError: The attack needs shadows or a population that is not there.
    """
    if not attack.needs.calibration:
        return attack(signals, target, seed=seed)
    rows = np.flatnonzero(signals.audited[target])
    members = signals.members[target, rows]
    fold = stratified_folds(members.astype(np.int64), folds, np.random.default_rng(seed))

    def fitted(chosen: NDArray[np.intp], known: Bools) -> Scores:
        pairs = Calibration(np.full(len(chosen), target, dtype=np.intp), chosen, known)
        return attack(signals, target, pairs, seed)

    values = np.zeros(len(signals.labels))
    if len(rows) < len(values):
        values = fitted(rows, members).values.copy()
    notes: dict[str, None] = {}
    for index in range(folds):
        test = fold == index
        scores = fitted(rows[~test], members[~test])
        values[rows[test]] = scores.values[rows[test]]
        notes.update(dict.fromkeys(scores.notes))
    return Scores(values, notes=tuple(notes))


def score_target(attack: Attack, signals: Signals, target: int = 0, seed: int = 0) -> Scores:
    """Scores for one target: calibrated on its shadows where there are any, else cross-fitted.

    Raises:
        DataError: The attack needs something that is not there.
    """
    if signals.models > 1:
        return attack(signals, target, shadow_calibration(signals, target), seed)
    return cross_fit(attack, signals, target, seed=seed)


def scores_for_all_targets(attack: Attack, signals: Signals, seed: int = 0) -> Floats:
    """Scores with every model taken as the target in turn, float64 [models, rows].

    Attacks with a costly fit (`fit_once_per_half`) are fitted twice: on the models of even index to score
    those of odd index, and the other way round; partners stay in one half.

    Raises:
        DataError: The attack needs something that is not there.
    """
    models = np.arange(signals.models)
    if not attack.fit_once_per_half or signals.models == 1:
        return np.stack([score_target(attack, signals, int(model), seed).values for model in models])
    half = models % 2
    if signals.partner is not None:
        paired = signals.partner >= 0
        together = np.minimum(models, signals.partner) // 2 % 2
        if len(np.unique(together[paired])) == 2:
            half[paired] = together[paired]
    scores = np.empty(signals.members.shape)
    for parity in (0, 1):
        scored, fitted = models[half == parity], models[half != parity]
        rng = np.random.default_rng([seed, parity])
        scores[scored] = attack.score_many(signals, scored, _pairs(signals, fitted), rng)
    if not np.isfinite(scores).all():
        raise DataError(f"attack '{attack.name}' gave scores that are not finite")
    return scores


@dataclass(frozen=True, eq=False)
class Decisions:
    """Who is called a member, bool [rows], and where the threshold came from."""

    members: Bools
    threshold: Literal["shadow", "cross-fit"]


def decide(attack: Attack, signals: Signals, target: int, scores: Floats, seed: int = 0) -> Decisions:
    """The attack's decisions on all rows, by a threshold that never saw the measured memberships.

    An attack with a decision of its own (class-wise thresholds, `nn`, `gap`) uses that. For others the
    threshold maximises balanced accuracy on the scores of up to eight shadows, each attacked with the
    remaining ones and without the target; where that cannot be done it is cross-fitted over the audited rows.

    Args:
        attack: The attack.
        signals: What it saw.
        target: Index of the target.
        scores: Its scores, [rows].
        seed: Seed of the folds.
    """
    if attack.threshold is not None:
        source: Literal["shadow", "cross-fit"] = "shadow"
        if attack.needs.calibration and signals.models == 1:
            source = "cross-fit"
        return Decisions(scores >= attack.threshold, source)
    threshold = transfer_threshold(attack, signals, target, seed)
    if threshold is not None:
        return Decisions(scores >= threshold, "shadow")
    audited = signals.audited[target]
    decisions = np.zeros(len(scores), dtype=np.bool_)
    rng = np.random.default_rng(seed)
    decisions[audited] = cross_fit_decisions(scores[audited], signals.members[target, audited], rng=rng)
    return Decisions(decisions, "cross-fit")


def transfer_threshold(
    attack: Attack, signals: Signals, target: int, seed: int = 0, limit: int = _THRESHOLD_SHADOWS
) -> float | None:
    """Threshold that maximises balanced accuracy on the shadows' own scores, the target left out.

    None where there are no shadows, or too few for the attack once one of them is the target.
    """
    if attack.threshold is not None:
        return attack.threshold
    if signals.models < 2:
        return None
    others = without(signals, target)
    if attack.missing(others, shadow_calibration(others, 0)):
        return None
    chosen = np.unique(np.linspace(0, others.models - 1, limit).astype(np.intp))
    values, members = [], []
    for model in chosen:
        audited = others.audited[model]
        values.append(score_target(attack, others, int(model), seed).values[audited])
        members.append(others.members[model, audited])
    return best_threshold(np.concatenate(values), np.concatenate(members))


def without(signals: Signals, model: int) -> Signals:
    """The signals of all models but one; what was computed for them already is kept."""
    kept = np.delete(np.arange(signals.models), model)
    partner = None
    if signals.partner is not None:
        shifted = signals.partner[kept] - (signals.partner[kept] > model)
        partner = np.where(signals.partner[kept] == model, -1, shifted)
    rest = Signals(
        signals.probabilities[kept],
        signals.labels,
        signals.members[kept],
        signals.audited[kept],
        signals.log_floor,
        _population_of(signals.population, kept),
        partner,
        tuple(_version_of(version, kept) for version in signals.versions),
        signals.has_original,
        {name: values[kept] for name, values in signals.gathered.items()},
        signals.independent_labels,
    )
    _carry(signals, rest, kept)
    return rest


def _population_of(population: Population | None, kept: NDArray[np.intp]) -> Population | None:
    if population is None:
        return None
    rest = Population(population.probabilities[kept], population.labels, population.log_floor)
    _carry(population, rest, kept)
    return rest


def _version_of(version: Version, kept: NDArray[np.intp]) -> Version:
    rest = replace(
        version,
        probabilities=version.probabilities[kept],
        population=_population_of(version.population, kept),
    )
    _carry(version, rest, kept)
    return rest


def _carry(source: object, destination: object, kept: NDArray[np.intp]) -> None:
    for name in ("confidence", "loss", "entropy", "modified_entropy", "logit_confidence"):
        if name in source.__dict__:
            destination.__dict__[name] = source.__dict__[name][kept]
