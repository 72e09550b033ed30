"""The search itself: settings suggested for each candidate, the worse ones dropped round by round.

A candidate's settings come from a multi-objective tree-structured Parzen estimator (optuna; Ozaki et al.,
2022) under the budget as a constraint; the first is its defaults. Where all there are is no more than its
trials, all are tried. Rounds are successive halving (Jamieson & Talwalkar, 2016): few epochs and shadows at
first, the recipe's own at last. Every candidate is searched by itself, from a seed of its own: what one more
candidate adds is its own work, and every one reaches the last round, its defaults beside the best of what was
tried. So does no defense, in the recipe's settings that are searched.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edgeprivacy.defenses import make_defense
from edgeprivacy.defenses.composed import JOINT, parts_of
from edgeprivacy.errors import MissingDependency
from edgeprivacy.recipe import Recipe
from edgeprivacy.recipe_toml import merge
from edgeprivacy.seeding import derive_seed
from edgeprivacy.tuning.budget import Budget
from edgeprivacy.tuning.points import Point
from edgeprivacy.tuning.space import Candidate, Setting, Space

_ASKED = 10
"""Suggestions for each setting wanted: a sampler repeats itself where there is little to suggest."""
_IMPOSSIBLE = 1e6
"""How far over the budget a setting counts that cannot be made."""


@dataclass(frozen=True)
class Round:
    """How much work a round spends on a setting.

    Attributes:
        epochs: Share of the recipe's epochs, in all phases, those that a defense adds among them.
        shadows: Their number.
        objective: What points are judged by. Few shadows tell AUCs apart, but no rates at few false
            positives.
    """

    number: int
    epochs: float
    shadows: int
    objective: str

    def of(self, recipe: Recipe) -> Recipe:
        """The recipe with this round's work; that of the last round is the recipe itself."""
        if self.epochs == 1 and self.shadows == recipe.audit.shadows:
            return recipe
        content = recipe.model_dump(mode="json")
        counts = {
            "training.epochs": recipe.training.epochs,
            "prune.finetune_epochs": recipe.prune.finetune_epochs,
            "cluster.epochs": recipe.cluster.epochs,
            "quantize.qat_epochs": recipe.quantize.qat_epochs,
            "quantize.grid_epochs": recipe.quantize.grid_epochs if recipe.quantize.low_bits else 0,
        }
        fewer = {key: self._share(count) for key, count in counts.items() if count}
        settings = content["defense"]["settings"]
        settings |= {key: self._share(count) for key, count in _added_epochs(recipe).items()}
        return Recipe.build(merge(content, {**fewer, "audit.shadows": self.shadows}))

    def _share(self, count: int) -> int:
        return max(1, math.ceil(self.epochs * count))


def _added_epochs(recipe: Recipe) -> dict[str, int]:
    """Epochs of the phase that a defense adds to the recipe's, by its setting. An `epochs` that limits the
    recipe's own phases is what the defense is, not work that it adds."""
    name, settings = recipe.defense.name, recipe.defense.settings
    found = {}
    for part in parts_of(make_defense(name, settings)):
        phase = part.admm() or part.low_bits()
        if phase is not None:
            # Of a composition's settings a recipe may leave the part's name out.
            plain = JOINT not in name or "epochs" in settings
            found["epochs" if plain else f"{part.name}.epochs"] = phase.epochs
    return found


def rounds_of(shadows: int, objective: str) -> tuple[Round, ...]:
    """Half of the epochs with two shadows, all epochs with a quarter of the shadows, then everything; fewer
    rounds where there are few shadows."""
    steps = [(0.5, 2), (1.0, max(2, shadows // 4)), (1.0, shadows)]
    kept = [step for k, step in enumerate(steps) if k == 2 or (step[1] < shadows and step not in steps[:k])]
    last = len(kept) - 1
    return tuple(
        Round(number, epochs, count, objective if number == last else "auc")
        for number, (epochs, count) in enumerate(kept)
    )


Evaluate = Callable[[Setting, Round], Sequence[Point]]
"""Makes a setting's files with a round's work and measures them."""


@dataclass(frozen=True)
class Tried:
    """A setting's files in one round, and the accuracy of no defense in the base recipe in that round, by
    format."""

    setting: Setting
    points: tuple[Point, ...]
    baseline: dict[str, float]

    def best(self, budget: Budget) -> Point:
        """The file that is least over the budget, then leaks least, then is smallest, then most accurate."""
        return min(self.points, key=lambda p: self.rank(p, budget))

    def rank(self, point: Point, budget: Budget) -> tuple[float, float, int, float]:
        """Smaller is better."""
        excess = self.excess(point, budget)
        return (excess, point.leakage.value, point.size_bytes, -point.accuracy.value)

    def excess(self, point: Point, budget: Budget) -> float:
        """See `Budget.excess`."""
        return budget.excess(point, self.baseline[point.format])


def check_optimizer() -> None:
    """Raise MissingDependency where optuna is not installed."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise MissingDependency("tune", extra="tune") from None


def settings_of(space: Space, candidate: Candidate, trials: int) -> int:
    """How many settings of a candidate are tried, its defaults among them."""
    few = space.few(candidate, trials)
    return trials if few is None else len(few)


def evaluations(space: Space, trials: int, rounds: Sequence[Round], keep: float) -> int:
    """How many times `Evaluate` will be called at most, the baselines among them. They are fewer where ranges
    hold fewer settings than there are trials, and where the baseline is the best of no defense."""
    total = len(rounds) * len(space.backends)
    for control in map(space.control, space.backends):
        few = space.few(control, trials)
        total += (sum(_kept(trials, keep, rounds)) if few is None else len(few)) - 1
    for candidate in space.candidates:
        count = settings_of(space, candidate, trials)
        defaults = 1 if count > 1 and len(rounds) > 1 else 0
        total += sum(_kept(count, keep, rounds)) + defaults
    return total


def search(
    space: Space,
    budget: Budget,
    trials: int,
    keep: float,
    rounds: Sequence[Round],
    seed: int,
    evaluate: Evaluate,
) -> list[Tried]:
    """Everything that was tried in the last round, no defense first.

    The baselines are no defense in the base recipe; every round has them. Of no defense in other settings all
    are in the last round where they are few; else they are searched like any candidate's.

    Args:
        trials: Settings of each candidate.
        keep: Share of a candidate's settings that goes on from a round to the next.
        evaluate: Called with the same arguments in the same order whenever the rest is the same.
    """
    baselines = {
        (backend, entry.number): evaluate(space.baseline(backend), entry)
        for backend in space.backends
        for entry in rounds
    }

    def tried(setting: Setting, entry: Round) -> Tried:
        known = baselines[setting.candidate.backend, entry.number]
        accuracies = {point.format: point.accuracy.value for point in known}
        is_baseline = setting.candidate.defense == "none" and not setting.changes
        return Tried(setting, tuple(known if is_baseline else evaluate(setting, entry)), accuracies)

    found = []
    for backend in space.backends:
        found.append(tried(space.baseline(backend), rounds[-1]))
        control = space.control(backend)
        few = space.few(control, trials)
        if few is not None:
            found += [tried(setting, rounds[-1]) for setting in few[1:]]
            continue
        others = _search_one(space, control, budget, trials, keep, rounds, seed, tried)
        found += [entry for entry in others if entry.setting.changes]
    for candidate in space.candidates:
        found += _search_one(space, candidate, budget, trials, keep, rounds, seed, tried)
    return [entry for entry in found if entry.points]


def _search_one(
    space: Space,
    candidate: Candidate,
    budget: Budget,
    trials: int,
    keep: float,
    rounds: Sequence[Round],
    seed: int,
    tried: Callable[[Setting, Round], Tried],
) -> list[Tried]:
    counts = _kept(settings_of(space, candidate, trials), keep, rounds)
    first = len(rounds) - len(counts)
    few = space.few(candidate, trials)
    if few is not None:
        entries = [tried(setting, rounds[first]) for setting in few]
    else:
        entries = _suggested(space, candidate, budget, counts[0], seed, lambda s: tried(s, rounds[first]))
    for number, many in zip(range(first + 1, len(rounds)), counts[1:], strict=True):
        entries = [entry for entry in entries if entry.points]
        entries.sort(key=lambda e: e.rank(e.best(budget), budget))
        settings = [entry.setting for entry in entries[:many]]
        if number == len(rounds) - 1 and all(setting.changes for setting in settings):
            # Few shadows may have dropped them wrongly: no search ends below what a name alone gives.
            settings.append(space.defaults(candidate))
        entries = [tried(setting, rounds[number]) for setting in settings]
    return entries


def _kept(count: int, keep: float, rounds: Sequence[Round]) -> list[int]:
    """Settings of a candidate in each of its rounds. A single one needs no round to be chosen in."""
    if count == 1:
        return [1]
    counts = [count]
    for _ in rounds[1:]:
        counts.append(max(1, math.ceil(counts[-1] * keep)))
    return counts


def _suggested(
    space: Space,
    candidate: Candidate,
    budget: Budget,
    count: int,
    seed: int,
    tried: Callable[[Setting], Tried],
) -> list[Tried]:
    """The defaults, then what the sampler suggests in the light of what came before: each setting once."""
    entries = [tried(space.defaults(candidate))]
    if count == 1:
        return entries
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # constraints
        sampler = optuna.samplers.TPESampler(
            seed=derive_seed(seed, "tune", candidate.backend, candidate.defense) % 2**32,
            n_startup_trials=max(3, count // 3),
            constraints_func=lambda trial: trial.user_attrs["excess"],
        )
    study: Any = optuna.create_study(directions=["minimize", "maximize", "minimize"], sampler=sampler)

    def tell(trial: Any, entry: Tried) -> None:
        if not entry.points:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            return
        best = entry.best(budget)
        trial.set_user_attr("excess", [entry.excess(best, budget)])
        study.tell(trial, [best.leakage.value, best.accuracy.value, best.size_bytes])

    as_suggested = space.suggestion(candidate)
    if as_suggested is not None:
        study.enqueue_trial(as_suggested)
        trial = study.ask()
        space.ask(candidate, trial)  # a trial learns its values as it is asked for them
        tell(trial, entries[0])
    for _ in range(_ASKED * count):
        if len(entries) == count:
            break
        trial = study.ask()
        setting = space.ask(candidate, trial)
        if setting is None:
            # Learned from as what is furthest over the budget; its values then say nothing.
            trial.set_user_attr("excess", [_IMPOSSIBLE])
            study.tell(trial, [1.0, 0.0, 0])
            continue
        if any(known.setting.changes == setting.changes for known in entries):
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        entries.append(tried(setting))
        tell(trial, entries[-1])
    return entries
