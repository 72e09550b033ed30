"""Candidates, and the settings that a search may give each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

from edgeprivacy.backends.table import BACKENDS
from edgeprivacy.defenses import make_defense
from edgeprivacy.defenses.composed import JOINT
from edgeprivacy.defenses.ranges import Searchable, Span
from edgeprivacy.errors import RecipeError, did_you_mean
from edgeprivacy.recipe import Recipe
from edgeprivacy.recipe_toml import merge
from edgeprivacy.tuning.section import TuneSection, searchable


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
        for candidate in self.candidates:
            self._try_ends(candidate)

    def searched(self, candidate: Candidate) -> dict[str, Searchable]:
        """Key to values: the recipe's own keys, and the defense's with its name before a dot."""
        own = self._of_defense[candidate.defense]
        return {**self._of_recipe, **{f"{candidate.defense}.{key}": value for key, value in own.items()}}

    def baseline(self, backend: str) -> Setting:
        """The base recipe without a defense."""
        return self._setting(Candidate(backend, "none"), {})

    def defaults(self, candidate: Candidate) -> Setting:
        """The base recipe with the defense as it is by its name alone, or as the recipe sets it."""
        return self._setting(candidate, {})

    def ask(self, candidate: Candidate, trial: Trial) -> Setting:
        """A setting by a sampler's suggestions."""
        changes = {}
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
        return self._setting(candidate, changes)

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

    def _try_ends(self, candidate: Candidate) -> None:
        """Whether both ends of every range, or all its values, make a recipe."""
        for key, values in self.searched(candidate).items():
            ends = values if not isinstance(values, Span) else (values.low, values.high)
            for value in ends:
                whole = isinstance(values, Span) and values.whole
                self._setting(candidate, {key: int(value) if whole else value})

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
        settings = dict(given.settings) if given.name == candidate.defense else {}
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


def _settings_of(name: str) -> list[str]:
    if JOINT not in name:
        return [field.name for field in fields(make_defense(name))]
    return [f"{part}.{field.name}" for part in name.split(JOINT) for field in fields(make_defense(part))]


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
