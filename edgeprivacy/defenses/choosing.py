"""Settings that are chosen before the first release is made: the candidates, and the rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeprivacy.defenses.base import Defense


@dataclass(frozen=True)
class Candidates:
    """What is tried.

    Attributes:
        defenses: Each with settings that stand.
        max_accuracy_loss: Share of the validation rows that a candidate may get right less than no defense.
    """

    defenses: tuple[Defense, ...]
    max_accuracy_loss: float


@dataclass(frozen=True)
class Trial:
    """A compressed model on rows that nobody is measured on.

    Attributes:
        accuracy: On validation rows, 0 to 1.
        leakage: AUC of the true label's probability, the trial's own training rows against pool rows that it
            was not trained on.
    """

    accuracy: float
    leakage: float


@dataclass(frozen=True)
class Choice:
    """Which candidate, and why.

    Attributes:
        within: How many candidates kept the accuracy; 0 where the choice is the nearest.
    """

    position: int
    within: int


def choose(trials: Sequence[Trial], undefended: Trial, max_accuracy_loss: float) -> Choice:
    """The least leaking trial among those that lose no more accuracy than allowed; where none does, the one
    that loses least. Of equal ones the first."""
    floor = undefended.accuracy - max_accuracy_loss - 1e-9
    within = [k for k, trial in enumerate(trials) if trial.accuracy >= floor]
    if within:
        return Choice(min(within, key=lambda k: trials[k].leakage), len(within))
    return Choice(max(range(len(trials)), key=lambda k: trials[k].accuracy), 0)


def told(
    name: str, settings: str, trials: Sequence[Trial], undefended: Trial, choice: Choice, rows: int
) -> str:
    """For the report; `rows` is the number of validation rows, which limits what a budget can tell apart."""
    chosen = trials[choice.position]
    why = (
        f"of {len(trials)} settings {choice.within} kept the accuracy asked for, and this one leaked least"
        if choice.within
        else f"none of {len(trials)} settings kept the accuracy asked for, and this one is the nearest"
    )
    accuracy, plain = (f"{100 * trial.accuracy:.1f} %" for trial in (chosen, undefended))
    return (
        f"{name} chose {settings}: {why}. On a release apart, which nobody is measured on: accuracy on "
        f"{rows} validation rows {accuracy} (no defense {plain}), AUC of the true label's probability "
        f"{chosen.leakage:.3f} (no defense {undefended.leakage:.3f})."
    )
