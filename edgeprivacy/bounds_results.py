"""What is told of an artifact beside its attacks' rates: bounds, risk, slices, who carries the leakage.

All of it comes from one attack that was chosen before anything was seen: the first of a fixed order that can
run. `results` holds the audit that these stand in, `bounds` measures them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Interval = tuple[float, float]


@dataclass(frozen=True)
class OneRunBound:
    """A lower bound of differential privacy from one training run (`metrics.epsilon`, `metrics.f_dp`).

    Attributes:
        epsilon: Lower bound at `delta` and confidence `level`, >= 0; 0 says that nothing was shown.
        mu: The same as mu of Gaussian differential privacy, from the same guesses.
        canaries: Rows whose coins were guessed, those left aside among them; guesses: made; correct: right.
        not_run: Why there is no bound, else None; the numbers are then 0.
    """

    epsilon: float = 0.0
    mu: float = 0.0
    delta: float = 0.0
    level: float = 0.95
    canaries: int = 0
    guesses: int = 0
    correct: int = 0
    not_run: str | None = None


@dataclass(frozen=True)
class Strength:
    """The attack's best operating point in epsilon units (`metrics.attack_epsilon`): no bound of privacy."""

    epsilon: float
    level: float
    tpr: float
    fpr: float
    n_members: int
    n_nonmembers: int
    meaning: str


@dataclass(frozen=True)
class RiskBin:
    """Records of about equal risk: mean risk, share of members among them and its interval, their number."""

    predicted: float
    observed: float
    ci: Interval
    records: int


@dataclass(frozen=True)
class RecordRisk:
    """How probable it is that a record was a member, given the attack's likelihood ratio (`metrics.risk`).

    Attributes:
        prior: Share of members that the risks hold for: that of the measured rows.
        calibration: How ratios became risks: "isotonic" or "logistic" (fitted on shadows as targets), "none".
        bins: Risk against truth; empty where `not_run`.
        expected_error, error_by_chance: Mean |risk - truth| over bins, and what a perfect predictor shows.
        outside: Bins whose risk lies outside the interval of their truth.
        above: (risk, members at or above it, non-members at or above it), rising.
        not_run: Why there are no risks, else None.
    """

    prior: float = 0.5
    calibration: str = "none"
    bins: tuple[RiskBin, ...] = ()
    expected_error: float = 0.0
    error_by_chance: float = 0.0
    outside: int = 0
    above: tuple[tuple[float, int, int], ...] = ()
    not_run: str | None = None


@dataclass(frozen=True)
class SliceRow:
    """One slice of the rows. `tpr` and `tpr_ci` are at `Slices.fpr`; None where a slice is too small for it.

    Attributes:
        group: "class", "confidence" or "correctness".
        p_value: Of "no leakage in this slice", adjusted for all slices measured (Holm).
        leaks: Whether that is at most 1 - level.
        not_run: Why it was not measured, else None; the numbers are then 0.
    """

    group: str
    name: str
    n_members: int
    n_nonmembers: int
    auc: float = 0.0
    auc_ci: Interval = (0.0, 0.0)
    tpr: float | None = None
    tpr_ci: Interval | None = None
    p_value: float = 1.0
    leaks: bool = False
    not_run: str | None = None


@dataclass(frozen=True)
class Slices:
    """All slices; their intervals hold together at `level` (Bonferroni over `measured`)."""

    rows: tuple[SliceRow, ...]
    measured: int
    level: float
    fpr: float


@dataclass(frozen=True)
class Vulnerable:
    """The share of the leakage that the most vulnerable part of the rows carries (`metrics.vulnerable`).

    Attributes:
        share: None where it means nothing, see `not_run`; about `part` where all rows leak alike.
    """

    share: float | None
    ci: Interval | None
    part: float
    rows: int
    models: int
    not_run: str | None = None


@dataclass(frozen=True)
class Bounds:
    """Everything of one artifact, from one attack.

    Attributes:
        attack: The attack, chosen by a fixed order and not by what it found.
        vulnerable: From every model's own confidence, not from this attack.
    """

    attack: str
    one_run: OneRunBound
    strength: Strength
    risk: RecordRisk
    slices: Slices | None = None
    vulnerable: Vulnerable | None = None


@dataclass(frozen=True, eq=False)
class Records:
    """What a file of records says of the scored rows of one artifact, in the order of the signals' rows.

    Attributes:
        attack: Of the scores.
        rows: int [scored], positions among the signals' rows.
        labels: int [scored]; members: bool [scored]; scores: float64 [scored].
        risks: float64 [scored] from 0 to 1, or None where the attack gives none.
    """

    attack: str
    rows: NDArray[np.intp]
    labels: NDArray[np.int64]
    members: NDArray[np.bool_]
    scores: NDArray[np.float64]
    risks: NDArray[np.float64] | None
