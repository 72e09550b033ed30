"""What would reduce the worst file's leakage next, from what this audit measured and nothing else."""

from __future__ import annotations

from edgeprivacy.report.words import (
    Row,
    clean,
    failed_null_tests,
    limit_percent,
    rows,
    share,
    worst_candidate,
)
from edgeprivacy.results import Audit

AFFORDABLE = 0.02
"""Test accuracy that a file may lie below the worst one and still count as no less useful."""


def advice(audit: Audit) -> list[str]:
    """One sentence, or none where a null test failed or no rate was measured.

    Another file counts as leaking less where its interval lies wholly below that of the worst candidate. Of
    several the one that leaks least among those about as accurate is named, else the one that leaks least,
    with what it costs.
    """
    worst = worst_candidate(audit)
    if worst is None or worst.entry is None or failed_null_tests(audit):
        return []
    better = [row for row in rows(audit) if _comparable(row, worst) and _leaks_less(row, worst)]
    if not better:
        if audit.recipe_id is None:
            return []
        return [
            "No other file of this audit clearly gives away less. `edgeprivacy defenses` lists what "
            "--compare can put beside it."
        ]
    fitting = [row for row in better if _cost(row, worst) <= AFFORDABLE]
    least = min(fitting or better, key=lambda row: row.entry.value if row.entry is not None else 1.0)
    cost = _cost(least, worst)
    assert least.entry is not None
    told = (
        f"Measured beside it, {clean(least.artifact.name)} gives away less: {share(least.entry)} of the "
        f"members at {limit_percent(least.entry.fpr)} false positives against {share(worst.entry)}"
    )
    if cost <= 0:
        return [f"{told}, and is no less accurate."]
    price = f"{100 * cost:.1f} points of test accuracy"
    return [f"{told}, at a cost of {price}." if fitting else f"{told}. It costs {price}."]


def _comparable(row: Row, worst: Row) -> bool:
    """Whether a file could ship in the worst one's place."""
    one, other = row.artifact, worst.artifact
    return (
        one.role != "original"
        and (one.backend, one.format, one.device) == (other.backend, other.format, other.device)
        and one.name != other.name
        and row.entry is not None
        and one.utility.test_accuracy is not None
        and other.utility.test_accuracy is not None
    )


def _leaks_less(row: Row, worst: Row) -> bool:
    assert row.entry is not None and worst.entry is not None
    return row.entry.ci[1] < worst.entry.ci[0]


def _cost(row: Row, worst: Row) -> float:
    """Test accuracy lost by taking this file instead."""
    one, other = row.artifact.utility.test_accuracy, worst.artifact.utility.test_accuracy
    assert one is not None and other is not None
    return other.value - one.value
