"""Whether every defense of a search can train the network, found out before any is trained."""

from __future__ import annotations

from functools import partial
from typing import Any

from edgeprivacy.backends.table import open_backend
from edgeprivacy.data.dataset import Dataset
from edgeprivacy.defenses import make_defense
from edgeprivacy.recipe import Recipe
from edgeprivacy.tuning.space import Space
from edgeprivacy.workers import parallel_map


def check_networks(space: Space, rows: Dataset, jobs: int | None = None) -> None:
    """Open each backend, in a worker, where a candidate asks something of the network's layers: once, and
    once for every other network that is searched.

    Raises:
        RecipeError: A defense wants what the network does not have: gradients of each row alone, dropout.
        ModelError: The network cannot be built, or not be trained.
    """
    recipes = [recipe for backend in space.backends for recipe in _demanding(space, backend)]
    if recipes:
        check = partial(
            _check, classes=rows.classes, input_shape=rows.input_shape, label_sets=rows.label_sets
        )
        parallel_map(check, recipes, jobs)


def _demanding(space: Space, backend: str) -> list[Recipe]:
    """For each network one recipe under all of a backend's candidates that ask something of it."""
    by_network: dict[str, tuple[Recipe, dict[str, Any]]] = {}
    for candidate in space.candidates:
        if candidate.backend != backend:
            continue
        ends = [s for s in space.ends(candidate) if any(key.startswith("model.") for key in s.changes)]
        for recipe in [space.defaults(candidate).recipe, *(setting.recipe for setting in ends)]:
            defense = make_defense(recipe.defense.name, recipe.defense.settings)
            if defense.private() is not None or defense.dropout:
                _, sections = by_network.setdefault(recipe.model.model_dump_json(), (recipe, {}))
                sections[recipe.defense.name] = recipe.defense.model_dump(mode="json")
    found = []
    for recipe, sections in by_network.values():
        first, *others = sections.values()
        found.append(Recipe.build(recipe.model_dump(mode="json") | {"defense": first, "compare": others}))
    return found


def _check(recipe: Recipe, classes: int, input_shape: tuple[int, ...], label_sets: bool) -> None:
    """In a worker, which alone imports the framework."""
    open_backend(recipe.backend).open(recipe, classes, input_shape, label_sets).check()
