"""Whether every defense of a search can train the network, found out before any is trained."""

from __future__ import annotations

from functools import partial

from edgeprivacy.backends.table import open_backend
from edgeprivacy.data.dataset import Dataset
from edgeprivacy.defenses import make_defense
from edgeprivacy.recipe import Recipe
from edgeprivacy.tuning.space import Space
from edgeprivacy.workers import parallel_map


def check_networks(space: Space, rows: Dataset, jobs: int | None = None) -> None:
    """Open each backend once, in a worker, where a candidate asks something of the network's layers.

    Raises:
        RecipeError: A defense wants what the network does not have: gradients of each row alone, dropout.
        ModelError: The network cannot be built, or not be trained.
    """
    recipes = [recipe for recipe in (_demanding(space, backend) for backend in space.backends) if recipe]
    if recipes:
        check = partial(
            _check, classes=rows.classes, input_shape=rows.input_shape, label_sets=rows.label_sets
        )
        parallel_map(check, recipes, jobs)


def _demanding(space: Space, backend: str) -> Recipe | None:
    """One recipe under all of a backend's candidates that ask something of the network; None for none."""
    own = [space.defaults(candidate).recipe for candidate in space.candidates if candidate.backend == backend]
    sections = []
    for recipe in own:
        defense = make_defense(recipe.defense.name, recipe.defense.settings)
        if defense.private() is not None or defense.dropout:
            sections.append(recipe.defense.model_dump(mode="json"))
    if not sections:
        return None
    return Recipe.build(own[0].model_dump(mode="json") | {"defense": sections[0], "compare": sections[1:]})


def _check(recipe: Recipe, classes: int, input_shape: tuple[int, ...], label_sets: bool) -> None:
    """In a worker, which alone imports the framework."""
    open_backend(recipe.backend).open(recipe, classes, input_shape, label_sets).check()
