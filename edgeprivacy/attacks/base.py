"""What every attack shares: what the attacker holds, how a score is asked for, and the registry.

An attack takes arrays and gives one number a row: higher means member. It never looks at the membership of
the model it attacks; the membership of all other models (the shadows) is the attacker's own knowledge.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.errors import DataError
from edgeprivacy.metrics.roc import Roc
from edgeprivacy.metrics.signals import (
    confidence,
    cross_entropy,
    entropy,
    logit_confidence,
    modified_entropy,
)
from edgeprivacy.registry import Registry

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class _Derived:
    """What follows from probabilities, labels and floor; computed once."""

    probabilities: NDArray[np.float32]
    labels: NDArray[np.int64]
    log_floor: float

    @cached_property
    def confidence(self) -> Floats:
        """p_y, float64 [models, rows]."""
        return confidence(self.probabilities, self.labels)

    @cached_property
    def loss(self) -> Floats:
        """-log p_y with the output's floor, float64 [models, rows]."""
        return cross_entropy(self.probabilities, self.labels, self.log_floor)

    @cached_property
    def entropy(self) -> Floats:
        """-Σ p log p, float64 [models, rows]."""
        return entropy(self.probabilities, self.log_floor)

    @cached_property
    def modified_entropy(self) -> Floats:
        """Song & Mittal's modified entropy, float64 [models, rows]."""
        return modified_entropy(self.probabilities, self.labels, self.log_floor)

    @cached_property
    def logit_confidence(self) -> Floats:
        """φ = log(p_y / (1 - p_y)) with the output's floor, float64 [models, rows]."""
        return logit_confidence(self.probabilities, self.labels, self.log_floor)


@dataclass(frozen=True)
class Population(_Derived):
    """Rows that no model was trained on and that are never scored (RMIA, Attack-P).

    Attributes:
        probabilities: float [models, rows, classes], models in the order of the signals they stand beside.
        labels: int [rows].
        log_floor: See `Confidences.log_floor`.
    """

    probabilities: NDArray[np.float32]
    labels: NDArray[np.int64]
    log_floor: float


@dataclass(frozen=True)
class Version(_Derived):
    """What another version of the same models answered to the same rows: compressed otherwise, in another
    format, of another backend, or the original.

    Attributes:
        name: Of the version, for people.
        probabilities: float32 [models, rows, classes], as in the signals it stands beside.
        labels: int64 [rows].
        log_floor: See `Confidences.log_floor`.
        population: What it answered to the population's rows.
    """

    name: str
    probabilities: NDArray[np.float32]
    labels: NDArray[np.int64]
    log_floor: float
    population: Population | None = None


@dataclass(frozen=True)
class Signals(_Derived):
    """Everything an attacker holds: the outputs of the target and of the shadows on the same rows.

    Any model can be the target; all others are then its shadows.

    Attributes:
        probabilities: float32 [models, rows, classes].
        labels: int64 [rows].
        members: bool [models, rows]; whether the row trained the model.
        audited: bool [models, rows]; rows on which a model's leakage is measured (members and non-members in
            the proportion of the design). Rows outside are still non-members or members of that model, as
            `members` says.
        log_floor: See `Confidences.log_floor`.
        population: Rows for attacks that compare against a population, or None.
        partner: int [models]; for each model the one whose membership is its exact complement by design, or
            -1. A partner is no shadow: the number of IN shadows of a row would give its membership away.
        versions: Other versions of the same models, on the same rows.
        has_original: Whether the first of these is the original.
        gathered: By attack: what it asked the files beyond these rows, [models, rows, ...].
        independent_labels: Whether rows have several labels: the two classes are then what `multi_label`
            makes of the answers, and no distribution over classes is known.
    """

    probabilities: NDArray[np.float32]
    labels: NDArray[np.int64]
    members: Bools
    audited: Bools
    log_floor: float
    population: Population | None = None
    partner: NDArray[np.intp] | None = None
    versions: tuple[Version, ...] = ()
    has_original: bool = False
    gathered: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    independent_labels: bool = False

    def __post_init__(self) -> None:
        models, rows, _ = self.probabilities.shape
        for name, array in (("members", self.members), ("audited", self.audited)):
            if array.shape != (models, rows):
                raise DataError(f"{name} must be [models, rows] = {(models, rows)}", got=array.shape)
        if self.labels.shape != (rows,):
            raise DataError(f"labels must be [rows] = {(rows,)}", got=self.labels.shape)
        for version in self.versions:
            if version.probabilities.shape != self.probabilities.shape:
                raise DataError(
                    f"version '{version.name}' has other models, rows or classes than the one beside it",
                    got=version.probabilities.shape,
                    allowed=str(self.probabilities.shape),
                )
            if not np.array_equal(version.labels, self.labels):
                raise DataError(f"version '{version.name}' did not see the same rows")
        for name, values in self.gathered.items():
            if values.shape[:2] != (models, rows):
                raise DataError(f"what {name} gathered must begin with {(models, rows)}", got=values.shape)

    @property
    def models(self) -> int:
        """Number of models, the target included."""
        return len(self.probabilities)

    def shadows(self, target: int) -> NDArray[np.intp]:
        """Indices of all models but the target and its partner."""
        left_out = [target]
        if self.partner is not None and self.partner[target] >= 0:
            left_out.append(int(self.partner[target]))
        return np.delete(np.arange(self.models), left_out)

    def of_shadows(self, target: int, inside: bool) -> Bools:
        """For each row the shadows of a target that trained on it, or that did not: bool [models, rows]."""
        chosen = np.zeros_like(self.members)
        shadows = self.shadows(target)
        chosen[shadows] = self.members[shadows] if inside else ~self.members[shadows]
        return chosen


@dataclass(frozen=True)
class Calibration:
    """Rows of known membership on which thresholds and learned attacks are fitted: (model, row) pairs.

    From shadows where there are any; else another fold of the audited rows (cross-fitting).

    Attributes:
        models: int [pairs], indices into the signals' models.
        rows: int [pairs], indices into the signals' rows.
        members: bool [pairs].
    """

    models: NDArray[np.intp]
    rows: NDArray[np.intp]
    members: Bools


@dataclass(frozen=True)
class Needs:
    """What an attack cannot do without.

    Attributes:
        shadows: Least number of shadow models.
        population: Whether population rows are needed.
        calibration: Whether (model, row) pairs of known membership are needed.
        versions: Least number of versions of the model, the attacked one included.
        original: Whether the original must be among them.
    """

    shadows: int = 0
    population: bool = False
    calibration: bool = False
    versions: int = 1
    original: bool = False

    def describe(self) -> str:
        """In a few words, for listings."""
        parts = []
        if self.shadows:
            parts.append(f"{self.shadows}+ shadow{'s' if self.shadows > 1 else ''}")
        if self.population:
            parts.append("population rows")
        if self.calibration:
            parts.append("rows to learn from")
        if self.original:
            parts.append(f"the original and {self.versions - 1}+ compressed")
        elif self.versions > 1:
            parts.append(f"{self.versions}+ versions")
        return ", ".join(parts) or "true labels"


@dataclass(frozen=True)
class Scores:
    """What an attack gives back.

    Attributes:
        values: float64 [rows]; higher means member. NaN nowhere.
        pooled_rows: Rows for which a per-row estimate fell back to a pooled one (too few IN or OUT shadows).
    """

    values: Floats
    pooled_rows: int = 0
    notes: tuple[str, ...] = field(default=())


class Attack(ABC):
    """One membership-inference attack. Subclasses set the class attributes and write `score`.

    `version` changes whenever the attack's numbers change for the same input. `threshold` is the score from
    which the attack itself says "member" (its own decision, made on calibration rows), or None where a
    threshold on its scores must still be chosen. `fit_once_per_half` marks attacks whose fit is so costly
    that `scores_for_all_targets` fits them on one half of the models to score the other half. `pairwise`
    marks attacks on several versions that look at the attacked one and the first, whatever others there are.
    `queries` is how often a file is asked about each row. `rests_on_truth` marks attacks that look at nothing
    but the confidence in what is true, and so hold where a row has several labels.
    """

    name: str
    paper: str
    threat_model: str
    needs: Needs = Needs()
    version: str = "1"
    threshold: float | None = None
    fit_once_per_half: bool = False
    pairwise: bool = False
    queries: int = 1
    rests_on_truth: bool = False

    def missing(self, signals: Signals, calibration: Calibration | None) -> str | None:
        """Why the attack cannot run on these signals, or None if it can."""
        if signals.independent_labels and not self.rests_on_truth:
            return "needs a distribution over classes, and the labels of this model are independent"
        if self.needs.original and not signals.has_original:
            return "needs the original beside the compressed version"
        if 1 + len(signals.versions) < self.needs.versions:
            return f"needs {self.needs.versions} versions of the model together, there is one here"
        shadows = len(signals.shadows(0))
        if shadows < self.needs.shadows:
            return f"needs {self.needs.shadows} or more shadows, there are {shadows}"
        if self.needs.population and signals.population is None:
            return "needs population rows, there are none"
        if self.needs.calibration and calibration is None:
            return "needs shadows, or rows of known membership to calibrate on"
        return None

    def conclusions(self, roc: Roc) -> tuple[str, ...]:
        """What the attack reads off its own ROC beyond the usual metrics, in sentences."""
        return ()

    @final
    def __call__(
        self, signals: Signals, target: int = 0, calibration: Calibration | None = None, seed: int = 0
    ) -> Scores:
        """Score every row of the signals for membership in model `target`.

        Raises:
            DataError: The attack needs something that is not there, or gave a score that is not finite.
        """
        reason = self.missing(signals, calibration)
        if reason:
            raise DataError(f"attack '{self.name}' {reason}")
        scores = self.score(signals, target, calibration, np.random.default_rng(seed))
        if scores.values.shape != signals.labels.shape or not np.isfinite(scores.values).all():
            raise DataError(f"attack '{self.name}' gave scores that are not finite, one a row")
        return scores

    @abstractmethod
    def score(
        self, signals: Signals, target: int, calibration: Calibration | None, rng: np.random.Generator
    ) -> Scores:
        """Membership scores of all rows; `signals.members[target]` must not be read."""

    def score_many(
        self, signals: Signals, targets: NDArray[np.intp], calibration: Calibration, rng: np.random.Generator
    ) -> Floats:
        """Scores [targets, rows] of several targets from one calibration that holds none of them.

        Attacks with a costly fit override this to fit once.
        """
        return np.stack([self.score(signals, int(target), calibration, rng).values for target in targets])


attacks: Registry[Attack] = Registry(
    "attack",
    modules=tuple(
        f"edgeprivacy.attacks.{module}"
        for module in (
            *("gap", "threshold", "neural", "attack_p", "lira", "rmia"),
            *("lira_variants", "reference_loss", "quantile", "blindmi", "salem", "shokri"),
            *("compleak", "compleak_mr", "joint", "joint_global", "ladder"),
            *("samia", "label_only", "boundary", "lira_augmented"),
        )
    ),
)
"""All attacks by name; built-in ones are imported on the first look-up."""
