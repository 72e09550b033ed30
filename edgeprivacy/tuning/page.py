"""tune.html: the front, everything tried, and the winner found against the winner made again."""

from __future__ import annotations

from markupsafe import Markup

from edgeprivacy.report.html import template_environment
from edgeprivacy.report.plots import Mark, trade_off
from edgeprivacy.tuning.outcome import Tuned
from edgeprivacy.tuning.points import false_positives
from edgeprivacy.tuning.words import explanation, headline, lines, objective_title, points_lost, spread


def render(tuned: Tuned) -> str:
    """The whole page, self-contained; every string is escaped."""
    rows, objective = lines(tuned), tuned.section.objective
    limit = None if objective == "auc" else false_positives(objective)
    marks = [Mark(row.number, row.role, row.point.accuracy, row.point.leakage) for row in rows]
    winner, again = tuned.winner, tuned.re_audit
    compared = []
    if winner is not None and again is not None:
        compared = [
            (objective_title(objective), spread(winner.leakage), spread(again.point.leakage)),
            ("strongest attack", winner.attack, again.point.attack),
            ("test accuracy", spread(winner.accuracy), spread(again.point.accuracy)),
            (
                "points, against no defense in the base recipe",
                points_lost(tuned.loss(winner)),
                points_lost(again.loss),
            ),
        ]
    return (
        template_environment()
        .get_template("tune.html.j2")
        .render(
            headline=headline(tuned),
            explanation=explanation(tuned),
            verdict="inconclusive" if again is None else again.audit.verdict,
            budget=tuned.budget.told(),
            rows=rows,
            objective=objective_title(objective),
            scatter=Markup(trade_off(marks, limit, "tune")) if marks else None,
            compared=compared,
            notes=tuned.notes(),
            recipe_id=tuned.base.id,
            evaluations=tuned.evaluations,
        )
    )
