"""Candidates, and the settings that a search may give each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, fields
from functools import reduce
from itertools import product
from typing import Any, Protocol

from edgeprivacy.backends.table import BACKENDS
from edgeprivacy.defenses import make_defense
from edgeprivacy.defenses.composed import JOINT, parts_of, whole_names
from edgeprivacy.defenses.ranges import Searchable, Span
from edgeprivacy.errors import RecipeError, UsageError, did_you_mean
from edgeprivacy.recipe import Recipe
from edgeprivacy.recipe_toml import merge
from edgeprivacy.tuning.section import TuneSection, searchable

SPARSITIES = {
    **dict.fromkeys(("iterative", "one-shot", "polynomial"), (0.6, 0.8, 0.9)),
    "structured": (0.3, 0.5, 0.7),
}
"""By schedule: tried beside the recipe's own where its space says nothing of pruning. A share of channels
takes more with it than the same share of weights. Ablations are not searched."""
BITS = (4, 8)
"""Of a weight, tried beside the recipe's own where files must be small and the space says nothing of it."""
_GRID_KEYS = ("quantize.weight_bits", "quantize.outer_bits")


class Trial(Protocol):
    """What a sampler suggests values through (optuna's Trial)."""

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """One of the choices."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number of a range."""

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """A whole number of a range."""


@dataclass(frozen=True)
class Candidate:
    """A defense on a backend; settings are searched for each by itself, so that one more candidate changes
    nothing for the others."""

    backend: str
    defense: str

    @property
    def name(self) -> str:
        """ "selena (tflite)"."""
        return f"{self.defense} ({self.backend})"


@dataclass(frozen=True)
class Setting:
    """What is tried.

    Attributes:
        recipe: The whole of it, with one backend and one defense.
        changes: What differs from the base recipe, by the keys of the space; empty for its defaults.
    """

    candidate: Candidate
    recipe: Recipe
    changes: Mapping[str, Any]

    @property
    def told(self) -> str:
        """ "defaults", or "relaxloss.alpha 0.62, prune.sparsity 0.8"."""
        return ", ".join(f"{key} {_short(value)}" for key, value in self.changes.items()) or "defaults"

    @property
    def of_base(self) -> bool:
        """Whether nothing but the defense differs from the base recipe."""
        return all(key.startswith(f"{self.candidate.defense}.") for key in self.changes)


class Space:
    """All settings that a search may try.

    Args:
        base: The recipe that settings are changes of.

    Raises:
        UsageError: Unknown defense or backend.
        RecipeError: A key that is neither the recipe's nor a candidate's, or values that do not fit.
    """

    def __init__(self, base: Recipe, section: TuneSection) -> None:
        self.base = base
        self._check: Callable[[Recipe], None] = lambda recipe: None
        backends = section.backends or base.backends
        for backend in backends:
            if backend not in BACKENDS:
                raise RecipeError(
                    f"no backend '{backend}'",
                    allowed=", ".join(BACKENDS),
                    hint=did_you_mean(backend, BACKENDS),
                )
        self.candidates = tuple(Candidate(b, d) for d in section.defenses for b in backends)
        self.backends = tuple(backends)
        self._of_recipe: dict[str, Searchable] = {}
        self._of_defense: dict[str, dict[str, Searchable]] = {
            name: dict(make_defense(name).search) for name in section.defenses
        }
        for key, entry in section.space.items():
            self._place(key, searchable(key, entry))
        self._of_recipe = {**_sparsities(base, section), **_bits(base, section), **self._of_recipe}
        for candidate in self.candidates:
            self.ends(candidate)
        content = base.model_dump(mode="json")
        self._of_recipe = {k: v for k, v in self._of_recipe.items() if v != (_value(content, k),)}

    def searched(self, candidate: Candidate) -> dict[str, Searchable]:
        """Key to values: the recipe's own keys, and the defense's with its name before a dot."""
        own, of_recipe = self._of_defense.get(candidate.defense, {}), self._of_recipe
        if make_defense(candidate.defense).low_bits() is not None:
            # It puts weights on a grid of its own.
            of_recipe = {key: values for key, values in of_recipe.items() if key not in _GRID_KEYS}
        return {**of_recipe, **{f"{candidate.defense}.{key}": value for key, value in own.items()}}

    def control(self, backend: str) -> Candidate:
        """No defense, searched by the recipe's keys alone."""
        return Candidate(backend, "none")

    def baseline(self, backend: str) -> Setting:
        """The base recipe without a defense."""
        return self.defaults(self.control(backend))

    def defaults(self, candidate: Candidate) -> Setting:
        """The base recipe with the defense as it is by its name alone, or as the recipe sets it."""
        return self._setting(candidate, {})

    def checked_by(self, check: Callable[[Recipe], None]) -> Space:
        """The same space without the settings that `check` refuses with a UsageError."""
        narrower = copy(self)
        narrower._check = check
        return narrower

    def ask(self, candidate: Candidate, trial: Trial) -> Setting | None:
        """A setting by a sampler's suggestions; where it suggests a default, nothing is changed. None where
        what it suggests cannot be together."""
        changes: dict[str, Any] = {}
        for key, values in self.searched(candidate).items():
            if not isinstance(values, Span):
                changes[key] = values[trial.suggest_categorical(key, list(range(len(values))))]
            elif values.whole:
                changes[key] = trial.suggest_int(key, int(values.low), int(values.high), log=values.log)
            else:
                # Few digits: a recipe is read by people.
                changes[key] = float(
                    f"{trial.suggest_float(key, values.low, values.high, log=values.log):.3g}"
                )
        return self._changed(candidate, changes)

    def suggestion(self, candidate: Candidate) -> dict[str, Any] | None:
        """The defaults as a sampler would suggest them; None where one lies outside of what is searched."""
        own = self._own(candidate)
        suggested: dict[str, Any] = {}
        for key, values in self.searched(candidate).items():
            value = own[key]
            if not isinstance(values, Span):
                if value not in values:
                    return None
                suggested[key] = values.index(value)
            elif isinstance(value, int | float) and values.low <= value <= values.high:
                suggested[key] = value
            else:
                return None
        return suggested

    def few(self, candidate: Candidate, limit: int) -> list[Setting] | None:
        """Every setting that can be, the defaults first; None where they are more than `limit`, or ranges."""
        searched = self.searched(candidate)
        lists = [values for values in searched.values() if not isinstance(values, Span)]
        if len(lists) < len(searched) or math.prod(map(len, lists)) > limit:
            return None
        found = [self.defaults(candidate)]
        for values in product(*lists):
            setting = self._changed(candidate, dict(zip(searched, values, strict=True)))
            if setting is not None and setting.changes not in [known.changes for known in found]:
                found.append(setting)
        return found if len(found) <= limit else None

    def _own(self, candidate: Candidate) -> dict[str, Any]:
        """What the defaults have in the place of everything that is searched."""
        recipe = self.defaults(candidate).recipe
        defense = make_defense(candidate.defense, recipe.defense.settings)
        content, own = recipe.model_dump(mode="json"), f"{candidate.defense}."
        found: dict[str, Any] = {}
        for key in self.searched(candidate):
            if key.startswith(own):
                part, _, name = key.removeprefix(own).rpartition(".")
                of = next(of for of in parts_of(defense) if part in ("", of.name))
                found[key] = getattr(of, name)
            else:
                found[key] = _value(content, key)
        return found

    def _changed(self, candidate: Candidate, values: Mapping[str, Any]) -> Setting | None:
        """None where values that can each be cannot be together."""
        own = self._own(candidate)
        try:
            setting = self._setting(candidate, {key: v for key, v in values.items() if v != own[key]})
            self._check(setting.recipe)
        except UsageError:
            return None
        return setting

    def _place(self, key: str, values: Searchable) -> None:
        for name, own in self._of_defense.items():
            if key.startswith(f"{name}."):
                setting = key.removeprefix(f"{name}.")
                known = _settings_of(name)
                if setting not in known:
                    raise RecipeError(
                        f"defense '{name}' has no setting '{setting}'",
                        allowed=", ".join(known),
                        hint=did_you_mean(setting, known),
                    )
                own[setting] = values
                return
        if key.split(".")[0] not in ("prune", "cluster", "quantize", "training", "model"):
            raise RecipeError(
                f"'{key}' is nothing to search",
                allowed="keys of prune, cluster, quantize, training and model; DEFENSE.SETTING of "
                + ", ".join(self._of_defense),
            )
        self._of_recipe[key] = values

    def ends(self, candidate: Candidate) -> list[Setting]:
        """A setting for both ends of every range, or all its values: one of them tells what can never be.

        Raises:
            RecipeError: One makes no recipe.
        """
        found = []
        for key, values in self.searched(candidate).items():
            for value in values if not isinstance(values, Span) else (values.low, values.high):
                whole = isinstance(values, Span) and values.whole
                found.append(self._setting(candidate, {key: int(value) if whole else value}))
        return found

    def _setting(self, candidate: Candidate, changes: Mapping[str, Any]) -> Setting:
        content = self.base.model_dump(mode="json", exclude={"versions", "compare", "defense"})
        formats = [f for f in self.base.formats if f in BACKENDS[candidate.backend].formats]
        if not formats:
            raise RecipeError(
                f"none of the recipe's formats is one of {candidate.backend}",
                got=", ".join(self.base.formats),
                allowed=", ".join(BACKENDS[candidate.backend].formats),
            )
        own = f"{candidate.defense}."
        given = self.base.defense
        settings = whole_names(given.name, given.settings) if given.name == candidate.defense else {}
        settings |= {k.removeprefix(own): v for k, v in changes.items() if k.startswith(own)}
        content = merge(content, {k: v for k, v in changes.items() if not k.startswith(own)})
        make_defense(candidate.defense, settings)
        recipe = Recipe.build(
            content
            | {
                "backend": candidate.backend,
                "formats": formats,
                "defense": {"name": candidate.defense, **settings},
            }
        )
        return Setting(candidate, recipe, dict(changes))


def _sparsities(base: Recipe, section: TuneSection) -> dict[str, Searchable]:
    """How much is pruned, where the recipe prunes and its space says nothing of it."""
    said = {"prune.sparsity", "prune.schedule"} & set(section.space)
    if said or not base.prunes or base.prune.schedule not in SPARSITIES:
        return {}
    return {"prune.sparsity": tuple(sorted({*SPARSITIES[base.prune.schedule], base.prune.sparsity}))}


def _bits(base: Recipe, section: TuneSection) -> dict[str, Searchable]:
    """How many bits a weight takes, where a size is asked for, and int8 files hold the grid and nothing moves
    weights off it."""
    moved = base.cluster.clusters or any(name.startswith("qat") for name in base.formats)
    said = set(section.space) & {*_GRID_KEYS, "cluster.clusters", "prune.schedule"}
    if (
        section.max_size is None
        or said
        or moved
        or "int8" not in base.formats
        or base.prune.schedule == "structured"
    ):
        return {}
    own = (base.quantize.weight_bits, base.quantize.outer_bits)
    return {key: tuple(sorted({*BITS, value})) for key, value in zip(_GRID_KEYS, own, strict=True)}


def _value(content: Mapping[str, Any], key: str) -> Any:
    return reduce(lambda table, name: table[name], key.split("."), content)


def _settings_of(name: str) -> list[str]:
    if JOINT not in name:
        return [field.name for field in fields(make_defense(name))]
    return [f"{part}.{field.name}" for part in name.split(JOINT) for field in fields(make_defense(part))]


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
