"""What several files of one model tell together; one part of an audit (`results`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgeprivacy.attack_results import AttackResult, Interval

Role = Literal["candidate", "control", "original"]


@dataclass(frozen=True)
class Difference:
    """A difference of two shares, from -1 to 1, and its 95 % interval over rows (paired)."""

    value: float
    ci: Interval


@dataclass(frozen=True)
class Gain:
    """What an attack on several versions finds beyond the best attack on one of them, on the same rows.

    Attributes:
        attack: The attack on several versions.
        auc: Difference of the AUCs.
        tpr_at_fpr: Difference of the TPRs, by FPR limit: (limit, difference).
    """

    attack: str
    auc: Difference
    tpr_at_fpr: tuple[tuple[float, Difference], ...]


@dataclass(frozen=True)
class VersionSet:
    """Several files of one model, attacked together: what somebody knows who holds them all.

    Attributes:
        role: "candidate" where all of them ship, "control" where the original is among them.
        versions: Names of the artifacts, the original first where it is among them.
        attacks: Attacks on several versions.
        best_artifact, best_attack: The single version and attack that find most on the same rows, which the
            attacks of this set are compared with; None where none ran. It was chosen by its own result on the
            measured rows, so it is hard to beat.
        gains: By attack that ran.
    """

    name: str
    role: Role
    versions: tuple[str, ...]
    with_original: bool
    attacks: tuple[AttackResult, ...]
    best_artifact: str | None = None
    best_attack: str | None = None
    gains: tuple[Gain, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """As `ArtifactResult.names`."""
        return (self.name,)

    def gain(self, attack: str) -> Gain | None:
        """The gain of the attack of this name, or None."""
        return next((gain for gain in self.gains if gain.attack == attack), None)
