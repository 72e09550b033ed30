"""What a search may try, as the recipe's [tune] table says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator

from edgeprivacy.defenses.ranges import Searchable, Span
from edgeprivacy.recipe_sections import Section, validated

DEFENSES = ("selena", "hamp", "wemem", "wemem:swmr", "relaxloss", "ccl:quadratic", "early-stopping")
"""What is tried where nobody says otherwise: the defenses that find a place on the front of some data set."""
_SPAN_KEYS = ("low", "high", "log", "whole")


class TuneSection(Section):
    """What is tried, how long, and what is wanted. Everything else is the recipe's."""

    defenses: tuple[str, ...] = Field(DEFENSES, description="defenses to try, compositions among them")
    backends: tuple[str, ...] = Field((), description="backends to try (default: the recipe's)")
    trials: int = Field(
        6,
        ge=1,
        description="settings tried of each candidate, a defense on a backend; the first are defaults",
    )
    keep: float = Field(
        1 / 3, gt=0, lt=1, description="share of a candidate's settings that goes on to the next round"
    )
    max_accuracy_loss: float | None = Field(
        2.0,
        ge=0,
        description="points of test accuracy that may be lost against no defense in the recipe as it is",
    )
    max_size: str | None = Field(None, description="largest file, e.g. 60KiB")
    objective: str = Field("tpr@1%fpr", description="what the strongest attack is judged by: tpr@X%fpr, auc")
    space: dict[str, Any] = Field(
        {},
        description='recipe keys and their values, "prune.sparsity" = [0.6, 0.8], or a range {low, high, '
        "log, whole}; a defense's own: \"relaxloss.alpha\" = {low = 0.2, high = 2.0}; the recipe's own "
        "value alone pins a key. Where nothing is said of prune.sparsity and weights are pruned, 0.6, 0.8, "
        "0.9 are tried (structured: 0.3, 0.5, 0.7); with max_size also 4 and 8 "
        "for quantize.weight_bits and outer_bits of int8 files",
    )

    @field_validator("defenses", "backends", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @field_validator("backends")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("each backend can stand once")
        return value

    @field_validator("defenses")
    @classmethod
    def _different(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) != len(value):
            raise ValueError("defenses must be one or more different names")
        if "none" in value:
            raise ValueError("no defense is always measured beside the others; leave 'none' out")
        return value

    @field_validator("space")
    @classmethod
    def _values(cls, value: dict[str, Any]) -> dict[str, Any]:
        for key, entry in value.items():
            searchable(key, entry)
        return value

    @classmethod
    def build(cls, content: Mapping[str, Any]) -> TuneSection:
        """From plain content; RecipeError as in `Recipe.build`."""
        return validated(cls, content, "tune")


def searchable(key: str, entry: Any) -> Searchable:
    """A range or a list of values, from how TOML says it; ValueError with the key."""
    if isinstance(entry, list | tuple) and entry:
        return tuple(entry)
    if isinstance(entry, Mapping) and {"low", "high"} <= set(entry) <= set(_SPAN_KEYS):
        low, high = entry["low"], entry["high"]
        numbers = all(isinstance(end, int | float) and not isinstance(end, bool) for end in (low, high))
        log = bool(entry.get("log", False))
        if numbers and low < high and (low > 0 or not log):
            whole = bool(entry.get("whole", isinstance(low, int) and isinstance(high, int)))
            return Span(low, high, log, whole)
    raise ValueError(
        f'"{key}" must be a list of values or a range {{ low = 0.1, high = 1.0, log = true }}, got {entry!r}'
    )
