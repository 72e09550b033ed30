"""What a model answered on rows of known membership, and what attacks find in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.attacks import Population, Signals
from edgeprivacy.bounds_results import Bounds, Records
from edgeprivacy.confidences import Confidences
from edgeprivacy.errors import DataError
from edgeprivacy.gate_grammar import Gate
from edgeprivacy.given_shadows import LEAST_ROWS, GivenShadows
from edgeprivacy.measuring import fpr_limits, measure_accuracy, measure_attacks, measure_labels, measure_right
from edgeprivacy.metrics.epsilon import Draw
from edgeprivacy.results import AttackResult, Metric, NullTest, Utility
from edgeprivacy.seeding import derive_seed

RESAMPLES = 1000
PERMUTATIONS = 200
NO_SHADOWS = (
    "Nothing is known of the training, so no shadows were made and attacks that need them are skipped: an "
    "attacker who can train shadows may find more than stands here."
)


def enough_rows(members: int, nonmembers: int) -> None:
    """Raises DataError where there is nothing to cross-fit on."""
    if min(members, nonmembers) < LEAST_ROWS:
        raise DataError(
            "too few rows to attack",
            got=f"{members} members and {nonmembers} non-members",
            allowed=f"{LEAST_ROWS} or more of each",
        )


@dataclass(frozen=True)
class Sides:
    """What one artifact answered on rows of known membership. `population` is never scored; `shadows`
    answered to the members, then the non-members, and to the population."""

    members: Confidences
    nonmembers: Confidences
    population: Confidences | None = None
    shadows: GivenShadows | None = None

    @property
    def truth(self) -> NDArray[np.bool_]:
        """bool [rows]: members first, then the non-members."""
        return np.repeat([True, False], [len(self.members.labels), len(self.nonmembers.labels)])

    @property
    def row_ids(self) -> NDArray[np.str_]:
        """str [rows]: members first, then the non-members."""
        return np.concatenate([self.members.row_ids, self.nonmembers.row_ids])

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """float32 [rows, classes]: members first, then the non-members."""
        return np.concatenate([self.members.probabilities, self.nonmembers.probabilities])

    def signals(self) -> Signals:
        """The attacker's view: the target, then its shadows if there are any; every row audited."""
        floor, others, shadows = self.members.log_floor, self.population, self.shadows
        answers, members = self.probabilities[None], self.truth[None]
        known = None if others is None else others.probabilities[None]
        if shadows is not None:
            floor = max(floor, shadows.log_floor)
            answers = np.concatenate([answers, shadows.probabilities])
            members = np.concatenate([members, shadows.members])
            if known is not None and shadows.population is not None:
                known = np.concatenate([known, shadows.population])
        return Signals(
            answers,
            np.concatenate([self.members.labels, self.nonmembers.labels]),
            members,
            np.ones_like(members),
            floor,
            None if others is None or known is None else Population(known, others.labels, floor),
            independent_labels=self.members.sets is not None,
        )

    def utility(self) -> Utility:
        """Accuracy on the members, and on all rows that trained nothing."""
        outside = [self.nonmembers, *([self.population] if self.population else [])]
        labels = [side.sets.right for side in outside if side.sets is not None]
        return Utility(
            test_accuracy=_accuracy(outside),
            train_accuracy=_accuracy([self.members]),
            label_accuracy=measure_labels(np.concatenate(labels)) if labels else None,
        )


def _accuracy(sides: Sequence[Confidences]) -> Metric:
    """Top-1 accuracy; of independent labels the share of rows of which all are right."""
    right = [side.sets.right.all(axis=1) for side in sides if side.sets is not None]
    if len(right) == len(sides):
        return measure_right(np.concatenate(right))
    answers = np.concatenate([side.probabilities for side in sides])
    return measure_accuracy(answers, np.concatenate([side.labels for side in sides]))


def attack_sides(
    sides: Sides, names: Sequence[str], resamples: int, seed: int, gates: Iterable[Gate] = ()
) -> tuple[tuple[AttackResult, ...], dict[str, NDArray[np.float64]]]:
    """Measured attacks, and the scores of those that ran, members first; at every FPR that a gate names."""
    return measure_attacks(sides.signals(), names, resamples, derive_seed(seed, "measure"), fpr_limits(gates))


def bound_sides(
    sides: Sides, names: Sequence[str], scores: Mapping[str, NDArray[np.float64]], resamples: int, seed: int
) -> tuple[Bounds | None, Records | None]:
    """Bounds, risks and slices from one of the attacks that ran, chosen by a fixed order; None without one.
    Nobody can say how membership of rows that were given was drawn: a one-run bound is refused."""
    # Imported late: half of the start-up time, which a mistake in the arguments need not wait for.
    from edgeprivacy.bounds import chosen_attack, measure_bounds

    signals = sides.signals()
    chosen = chosen_attack(signals, names)
    if chosen is None or chosen not in scores:
        return None, None
    drawn: Draw = "given_split"
    return measure_bounds(signals, chosen, scores[chosen], drawn, resamples, derive_seed(seed, "bounds"))


def shadow_tests(sides: Sides) -> list[NullTest]:
    """The null test of shadows that were given, not judged yet; none without shadows."""
    # Imported late, as in `audit_confidences`.
    from edgeprivacy import nulls

    if sides.shadows is None or not len(sides.shadows.members):
        return []
    return [nulls.shadow_membership(sides.shadows.members, sides.truth)]
