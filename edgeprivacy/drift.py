"""How far the answers of one runner are from another's, and whether an attack finds something else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgeprivacy.confidences import Confidences
from edgeprivacy.results import ArtifactResult, AttackResult, Drift


def drift_between(here: Confidences, there: Confidences, versus: str) -> Drift:
    """Differences on the same rows in the same order; a NaN in either counts as the largest difference.

    Args:
        versus: Where `there` was collected.
    """
    assert np.array_equal(here.row_ids, there.row_ids)
    difference = np.abs(here.probabilities.astype(np.float64) - there.probabilities.astype(np.float64))
    lsb = None
    ours, theirs = here.raw, there.raw
    if ours is not None and theirs is not None and ours.dtype.kind in "iu" and here.grid == there.grid:
        lsb = int(np.abs(ours.astype(np.int64) - theirs.astype(np.int64)).max(initial=0))
    return Drift(
        versus,
        rows=len(difference),
        max_abs=float(np.nan_to_num(difference, nan=1.0).max(initial=0.0)),
        top1_flips=int((here.probabilities.argmax(axis=1) != there.probabilities.argmax(axis=1)).sum()),
        max_lsb=lsb,
    )


def equal(drift: Drift) -> bool:
    """Whether all answers are the same, to the last bit."""
    return drift.not_run is None and drift.max_abs == 0 and not drift.max_lsb


def with_attack(drift: Drift, result: ArtifactResult, there: Sequence[AttackResult]) -> Drift:
    """The drift with what the device's worst attack finds, and the same attack with the other answers.

    Args:
        there: The attacks' results with the other runner's answers.
    """
    worst = result.worst_attack()
    other = next((attack for attack in there if worst and attack.name == worst.name), None)
    if worst is None or other is None or worst.auc is None or other.auc is None:
        return drift
    limits = [e.fpr for e in worst.tpr_at_fpr if e.support == "ok" and other.tpr(e.fpr) is not None]
    if not limits:
        metric, here, value = "auc", worst.auc.value, other.auc.value
    else:
        ours, theirs = worst.tpr(min(limits)), other.tpr(min(limits))
        assert ours is not None and theirs is not None
        metric, here, value = f"tpr@{min(limits) * 100:.12g}%fpr", ours.value, theirs.value
    return replace(drift, attack=worst.name, metric=metric, here=here, there=value)
