"""What a search found, as an object: the only source of everything that is printed, plotted or written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgeprivacy.defenses import make_defense
from edgeprivacy.errors import EXIT_INCONCLUSIVE
from edgeprivacy.recipe import Recipe
from edgeprivacy.results import Audit
from edgeprivacy.tuning.budget import Budget, lost
from edgeprivacy.tuning.points import Point, front
from edgeprivacy.tuning.search import Round, Tried
from edgeprivacy.tuning.section import TuneSection

SCHEMA = "edgeprivacy.tune/1"


@dataclass(frozen=True)
class ReAudit:
    """The winner made and measured again, with seeds and shadows that the search never saw.

    Attributes:
        point: The same file's measurement.
        baseline: Accuracy of no defense in the base recipe with these seeds.
        audit: All of it; its verdict is the command's.
    """

    point: Point
    baseline: float
    audit: Audit

    @property
    def loss(self) -> float:
        """Points of accuracy below no defense."""
        return lost(self.point, self.baseline)


@dataclass(frozen=True)
class Tuned:
    """A finished search.

    Attributes:
        base: The recipe that everything tried is a change of.
        tried: Of the last round, no defense first.
        evaluations: How many settings were made and measured for the search, all rounds together.
        re_audit: None where nothing keeps the budget.
    """

    base: Recipe
    section: TuneSection
    budget: Budget
    rounds: tuple[Round, ...]
    tried: tuple[Tried, ...]
    evaluations: int
    re_audit: ReAudit | None = None

    @property
    def points(self) -> list[tuple[Tried, Point]]:
        """Every file of the last round."""
        return [(entry, point) for entry in self.tried for point in entry.points]

    @property
    def front(self) -> list[Point]:
        """What nothing else beats in leakage, accuracy, size and latency."""
        return front([point for _, point in self.points])

    @property
    def winner(self) -> Point | None:
        """The least leaking file within the budget; of those that leak alike one that nothing else beats."""
        within = front([point for entry, point in self.points if entry.excess(point, self.budget) == 0])
        return within[0] if within else None

    @property
    def nearest(self) -> Point | None:
        """The file that is least over the budget; None where nothing was measured."""
        ranked = sorted(self.points, key=lambda pair: pair[0].rank(pair[1], self.budget))
        return ranked[0][1] if ranked else None

    @property
    def over_budget(self) -> bool:
        """Whether the winner, made again, lost more accuracy than the budget allows."""
        return self.re_audit is not None and self.budget.too_much(self.re_audit.loss) > 0

    @property
    def exit_code(self) -> int:
        """That of the re-audit's gates; inconclusive where nothing keeps the budget, or the winner does not
        keep it again."""
        if self.re_audit is None:
            return EXIT_INCONCLUSIVE
        return self.re_audit.audit.exit_code or (EXIT_INCONCLUSIVE if self.over_budget else 0)

    def loss(self, point: Point) -> float:
        """Points of accuracy below no defense, in the last round."""
        entry = next(entry for entry, other in self.points if other is point)
        return lost(point, entry.baseline[point.format])

    def notes(self) -> list[str]:
        """Sentences that a reader must see."""
        notes = [
            "The search looked at the members' leakage to choose: what it chose looks better than it is, and "
            "what was found again with fresh seeds is the number to go by.",
            f"Settings were chosen in {len(self.rounds)} round{'s' if len(self.rounds) > 1 else ''}: "
            + "; ".join(
                f"{100 * entry.epochs:g} % of the epochs and {entry.shadows} shadows by {_judged(entry)}"
                for entry in self.rounds
            )
            + ".",
        ]
        winner = self.winner
        if winner is not None and promises(winner):
            notes.append(
                "The search asked about members to choose: the winner's (ε, δ) is of its training alone and "
                "does not cover that choice."
            )
        if self.re_audit is not None and self._elsewhere:
            notes.append(
                "The search took what files answer on the host; the winner was made again and run on "
                f"{', '.join(self._elsewhere)}."
            )
        if len({point.rounded for _, point in self.points}) > 1:
            notes.append(
                "Some of these files answer in coarse steps (int8 .tflite in 1/256), others finely. The "
                "coarse look as if they leaked less than their logits do, most of all of rows at risk: "
                "--device host --device host:logits measures the winner both ways."
            )
        if self.base.split.design == "given" or self.base.data.train is not None:
            notes.append("Train and hold-out rows were given: fresh seeds train anew on the same rows.")
        return notes

    @property
    def _elsewhere(self) -> list[str]:
        """Devices of the re-audit that are not the search's."""
        assert self.re_audit is not None
        return sorted({artifact.device for artifact in self.re_audit.audit.artifacts} - {"host"})

    def to_dict(self) -> dict[str, Any]:
        """Content of tune.json."""
        front_points, winner = self.front, self.winner
        again = None
        if self.re_audit is not None and winner is not None:
            again = {
                "found": winner.to_dict() | {"accuracy_lost": round(self.loss(winner), 4)},
                "again": self.re_audit.point.to_dict() | {"accuracy_lost": round(self.re_audit.loss, 4)},
                "optimism": round(self.re_audit.point.leakage.value - winner.leakage.value, 6),
                "seed": self.re_audit.point.setting.recipe.seed,
                "over_budget": self.over_budget,
                "verdict": self.re_audit.audit.verdict,
            }
        return {
            "schema": SCHEMA,
            "recipe_id": self.base.id,
            "recipe": self.base.model_dump(mode="json"),
            "tune": self.section.model_dump(mode="json"),
            "budget": self.budget.told(),
            "rounds": [
                {"epochs": r.epochs, "shadows": r.shadows, "objective": r.objective} for r in self.rounds
            ],
            "evaluations": self.evaluations,
            "points": [
                point.to_dict()
                | {
                    "accuracy_lost": round(self.loss(point), 4),
                    "within_budget": entry.excess(point, self.budget) == 0,
                    "on_front": any(point is other for other in front_points),
                    "winner": point is winner,
                }
                for entry, point in self.points
            ],
            "re_audit": again,
            "notes": self.notes(),
        }


def promises(point: Point) -> bool:
    """Whether a file comes with an (ε, δ)."""
    return make_defense(point.setting.candidate.defense).private() is not None


def _judged(entry: Round) -> str:
    return "the AUC" if entry.objective == "auc" else entry.objective


def numbered(points: Sequence[Point]) -> list[tuple[str, Point]]:
    """Points with a file name each: "01-selena-int8-tflite"."""
    return [
        (
            f"{number:02d}-{point.setting.candidate.defense.replace(':', '-')}-{point.format}"
            f"-{point.setting.candidate.backend}",
            point,
        )
        for number, point in enumerate(points, 1)
    ]
