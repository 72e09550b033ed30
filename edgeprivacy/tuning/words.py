"""What a search found, in the words that its page and the terminal share."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprivacy.report.words import percent, size
from edgeprivacy.tuning.outcome import Tuned
from edgeprivacy.tuning.points import Point, Value


@dataclass(frozen=True)
class Line:
    """One file of the last round; texts.

    Attributes:
        number: From 1, the front first.
        mark: "winner", "front", "over budget" or nothing.
        role: As reports know it: "control" for no defense.
    """

    number: int
    point: Point
    mark: str
    role: str
    file: str
    settings: str
    leakage: str
    accuracy: str
    lost: str
    size: str
    latency: str


def lines(tuned: Tuned) -> list[Line]:
    """All files: those on the front, the least leaking first, then the others."""
    front, winner = tuned.front, tuned.winner
    over = {id(p) for entry, p in tuned.points if entry.excess(p, tuned.budget) > 0}
    others = [p for _, p in tuned.points if not any(p is kept for kept in front)]
    others.sort(key=lambda p: (p.leakage.value, p.size_bytes))
    made = []
    for number, point in enumerate([*front, *others], 1):
        words = [
            "winner" if point is winner else "front" if any(point is kept for kept in front) else "",
            "over budget" if id(point) in over else "",
        ]
        candidate = point.setting.candidate
        made.append(
            Line(
                number,
                point,
                ", ".join(word for word in words if word),
                "control" if candidate.defense == "none" else "candidate",
                _named(point),
                "" if candidate.defense == "none" and not point.setting.changes else point.setting.told,
                spread(point.leakage),
                spread(point.accuracy),
                points_lost(tuned.loss(point)),
                size(point.size_bytes),
                "" if point.latency_ms is None else f"{point.latency_ms:.3g} ms",
            )
        )
    return made


def objective_title(objective: str) -> str:
    """ "members found at 1% FPR", or "AUC"."""
    return "AUC" if objective == "auc" else f"members found at {objective.split('@')[1][:-3]} FPR"


def spread(value: Value) -> str:
    """ "3.4% ± 0.6 over 17", or with the interval of a single target."""
    if value.sd is not None:
        return f"{percent(value.value)} ± {100 * value.sd:.1f} over {value.targets}"
    return f"{percent(value.value)} [{100 * value.ci[0]:.1f}, {100 * value.ci[1]:.1f}]"


def points_lost(points: float) -> str:
    """ "1.2 lost", "0.4 won" or "none"."""
    if abs(points) < 0.05:
        return "none"
    return f"{points:.1f} lost" if points > 0 else f"{-points:.1f} won"


def headline(tuned: Tuned) -> str:
    """The outcome in a few words."""
    if tuned.winner is not None:
        return f"Least leakage within the budget: {_named(tuned.winner)}."
    return "Nothing keeps the budget." if tuned.points else "No attack could run on any file."


def explanation(tuned: Tuned) -> str:
    """What stands behind the headline, in a sentence or two; empty where nothing was measured."""
    winner, again = tuned.winner, tuned.re_audit
    title = objective_title(tuned.section.objective)
    if winner is None or again is None:
        nearest = tuned.nearest
        if nearest is None:
            return ""
        return (
            f"Asked: {tuned.budget.told()}. The nearest is {nearest.told}: {title} "
            f"{spread(nearest.leakage)}, points of accuracy "
            f"{points_lost(tuned.loss(nearest))}, {size(nearest.size_bytes)}."
        )
    over = (
        " That is more accuracy than the budget allows: with fresh seeds the choice does not hold."
        if tuned.over_budget
        else ""
    )
    return (
        f"Settings: {winner.setting.told}. Made again with fresh seeds: {title} "
        f"{spread(again.point.leakage)} by {again.point.attack} (found: {spread(winner.leakage)}), "
        f"points of accuracy {points_lost(again.loss)} (found: {points_lost(tuned.loss(winner))}).{over}"
    )


def _named(point: Point) -> str:
    candidate = point.setting.candidate
    return f"{candidate.defense}, {point.format} ({candidate.backend})"
