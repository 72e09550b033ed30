"""What the attacks find on canaries beside all other rows, in the words that all reports share."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprivacy.report.words import auc, limit_percent, share
from edgeprivacy.results import ArtifactResult, AttackResult, Audit, worst_attack

CANARIES_MEAN = (
    "Canaries are rows made to be remembered: they stand for the rows that suffer most, which an average "
    "over everybody hides. These files were trained on them for the audit and are not the ones to ship."
)


@dataclass(frozen=True)
class CanaryRow:
    """One attack on one file, on the population and on canaries; texts.

    Attributes:
        skipped: Why it did not run on the canaries, or None.
        strongest: Whether no other attack finds more of this file's canaries.
    """

    artifact: ArtifactResult
    attack: str
    population_tpr: str
    canary_tpr: str
    population_auc: str
    canary_auc: str
    skipped: str | None
    strongest: bool


def canary_rows(audit: Audit) -> list[CanaryRow]:
    """Every attack on every file that was trained on canaries."""
    limit = _limit(audit)
    return [
        _row(artifact, attack, limit) for artifact in audit.artifacts for attack in artifact.canary_attacks
    ]


def canary_tpr_title(audit: Audit) -> str | None:
    """ "TPR at 1% FPR", at the smallest limit that both kinds of rows support; None without one."""
    limit = _limit(audit)
    return None if limit is None else f"TPR at {limit_percent(limit)} FPR"


def canary_sentence(row: CanaryRow, tpr_title: str | None) -> str:
    """ " on canaries: lira.online AUC 0.8 [0.7, 0.9] (all other rows 0.6 [0.5, 0.7])", after the name."""
    told = f" on canaries: {row.attack} AUC {row.canary_auc} (all other rows {row.population_auc})"
    if tpr_title is not None:
        told += f", {tpr_title} {row.canary_tpr} (all other rows {row.population_tpr})"
    return told


def _row(artifact: ArtifactResult, attack: AttackResult, limit: float | None) -> CanaryRow:
    other = artifact.attack(attack.name)
    population, canaries = (
        share(found.tpr(limit)) if found is not None and limit is not None else "–"
        for found in (other, attack)
    )
    return CanaryRow(
        artifact,
        attack.name,
        population,
        canaries,
        auc(other.auc if other is not None else None),
        auc(attack.auc),
        attack.skipped,
        attack is worst_attack(artifact.canary_attacks),
    )


def _limit(audit: Audit) -> float | None:
    """The smallest FPR limit that every attack supports on both kinds of rows: by "ok", else by "low"."""
    ran = [
        attack
        for artifact in audit.artifacts
        for attack in (*artifact.attacks, *artifact.canary_attacks)
        if artifact.canary_attacks and attack.tpr_at_fpr
    ]
    for accepted in (("ok",), ("ok", "low")):
        shared = [
            entry.fpr
            for entry in (ran[0].tpr_at_fpr if ran else ())
            if all((e := attack.tpr(entry.fpr)) is not None and e.support in accepted for attack in ran)
        ]
        if shared:
            return min(shared)
    return None
