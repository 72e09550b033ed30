"""What several files of one model tell together, in the words that all reports share."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprivacy.report.words import auc, clean, common_limit, limit_percent, share
from edgeprivacy.results import AttackResult, Audit, Difference, Gain, VersionSet, strength


@dataclass(frozen=True)
class VersionRow:
    """One attack on one set of files as tables show it; texts.

    Attributes:
        beyond: What it finds beyond the best single file, and whether that is more than chance.
    """

    versions: VersionSet
    attack: AttackResult
    tpr: str
    auc: str
    beyond: str


def version_rows(audit: Audit) -> list[VersionRow]:
    """All attacks on several files, set by set."""
    return [_row(audit, versions, attack) for versions in audit.version_sets for attack in versions.attacks]


def strongest_rows(audit: Audit) -> list[VersionRow]:
    """The strongest attack on each set of files that ship together."""
    found = []
    for versions in audit.version_sets:
        ran = [attack for attack in versions.attacks if attack.auc is not None]
        if ran and versions.role == "candidate":
            found.append(_row(audit, versions, max(ran, key=strength)))
    return found


def tpr_title(audit: Audit) -> str | None:
    """ "TPR at 1% FPR", at the limit that the other tables show; None without one."""
    limit = common_limit(audit)
    return f"TPR at {limit_percent(limit.fpr)} FPR" if limit is not None else None


def beyond_text(versions: VersionSet, gain: Gain | None) -> str:
    """ "more than lira.online on a-int8 alone: AUC +0.021 [+0.004, +0.038]"."""
    if gain is None or versions.best_artifact is None:
        return "–"
    low, high = gain.auc.ci
    word = "more than" if low > 0 else "less than" if high < 0 else "not shown to be more than"
    best = f"{clean(versions.best_attack)} on {clean(versions.best_artifact)} alone"
    tprs = [
        f"TPR at {limit_percent(limit)} FPR {_signed_percent(difference)}"
        for limit, difference in gain.tpr_at_fpr[:1]
    ]
    return f"{word} {best}: " + ", ".join([f"AUC {_signed(gain.auc)}", *tprs])


def _row(audit: Audit, versions: VersionSet, attack: AttackResult) -> VersionRow:
    limit = common_limit(audit)
    entry = attack.tpr(limit.fpr) if limit is not None else None
    if attack.skipped is not None:
        return VersionRow(versions, attack, "", f"skipped: {clean(attack.skipped)}", "")
    return VersionRow(
        versions, attack, share(entry), auc(attack.auc), beyond_text(versions, versions.gain(attack.name))
    )


def _signed(difference: Difference) -> str:
    low, high = difference.ci
    return f"{difference.value:+.3f} [{low:+.3f}, {high:+.3f}]"


def _signed_percent(difference: Difference) -> str:
    low, high = difference.ci
    return f"{100 * difference.value:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"
