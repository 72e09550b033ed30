"""What an attack found: rates with intervals, curves and histograms; one part of an audit (`results`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Support = Literal["ok", "low", "none"]
Interval = tuple[float, float]


@dataclass(frozen=True)
class AcrossTargets:
    """A metric with every release taken as the target in turn."""

    mean: float
    sd: float
    n: int


@dataclass(frozen=True)
class Metric:
    """A value from 0 to 1, its 95 % interval over rows (given this target), and its spread over targets."""

    value: float
    ci: Interval
    across_targets: AcrossTargets | None = None


@dataclass(frozen=True)
class BalancedAccuracy(Metric):
    """Balanced accuracy and where its threshold was chosen; never on the measured rows unless `oracle`.

    `tpr` and `fpr`: shares of members and of non-members that are called members at that threshold; of a
    balanced set precision is tpr / (tpr + fpr), and F1 is 2 tpr / (1 + tpr + fpr).
    """

    threshold: Literal["shadow", "cross-fit", "oracle"] = "shadow"
    tpr: float | None = None
    fpr: float | None = None


@dataclass(frozen=True)
class TprAtFpr:
    """True-positive rate at the largest empirical FPR not above `fpr` (step definition, no interpolation).

    `support`: "ok" from 10 expected false positives, "low" from 1, else "none".
    """

    fpr: float
    value: float
    ci: Interval
    support: Support
    across_targets: AcrossTargets | None = None
    definition: str = "step_le"


@dataclass(frozen=True)
class Curve:
    """A ROC curve thinned for drawing: vertices, and the bootstrap band of TPR at those FPRs."""

    fpr: tuple[float, ...]
    tpr: tuple[float, ...]
    tpr_low: tuple[float, ...]
    tpr_high: tuple[float, ...]


@dataclass(frozen=True)
class Histogram:
    """Shares of members and non-members per score bin; `edges` has one entry more than the shares."""

    edges: tuple[float, ...]
    members: tuple[float, ...]
    nonmembers: tuple[float, ...]


@dataclass(frozen=True)
class AttackResult:
    """One attack on one artifact. Without metrics it was skipped, for the reason in `skipped`. `notes` are
    the attack's own: what it chose, how fine its scores are.

    `targets` above 1: that many models stood as the target in turn, and members and non-members are (model,
    row) pairs of all of them; intervals are then over rows.
    """

    name: str
    version: str
    paper: str
    n_members: int
    n_nonmembers: int
    skipped: str | None = None
    auc: Metric | None = None
    balanced_accuracy: BalancedAccuracy | None = None
    tpr_at_fpr: tuple[TprAtFpr, ...] = ()
    pooled_rows: int = 0
    roc: Curve | None = None
    histogram: Histogram | None = None
    notes: tuple[str, ...] = ()
    targets: int = 1

    @property
    def trials(self) -> int:
        """On how many independent answers a TPR rests, at most: members; of a pooled attack, rows."""
        if self.targets == 1:
            return self.n_members
        return (self.n_members + self.n_nonmembers) // self.targets

    def tpr(self, fpr: float) -> TprAtFpr | None:
        """The entry for this FPR limit, or None."""
        return next((entry for entry in self.tpr_at_fpr if abs(entry.fpr - fpr) < 1e-12), None)


def worst_attack(attacks: Iterable[AttackResult]) -> AttackResult | None:
    """The attack with the highest TPR at the smallest FPR limit whose support is "ok", then AUC; None if
    every one was skipped."""
    return max((attack for attack in attacks if attack.auc is not None), key=strength, default=None)


def strength(attack: AttackResult) -> tuple[float, float]:
    """What attacks are ranked by: the TPR at the smallest supported FPR limit, then the AUC."""
    supported = [entry.fpr for entry in attack.tpr_at_fpr if entry.support == "ok"]
    entry = attack.tpr(min(supported)) if supported else None
    return (entry.value if entry else 0.0, attack.auc.value if attack.auc else 0.0)
