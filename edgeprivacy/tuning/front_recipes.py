"""The front's recipes, ready for `compress`, one a file."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from edgeprivacy.errors import RecipeError
from edgeprivacy.files import write_text
from edgeprivacy.recipe import Recipe
from edgeprivacy.tuning.outcome import Tuned, numbered, promises

_MARK = "# found by a search: "


def write_recipes(tuned: Tuned, folder: Path) -> None:
    """Write a recipe of each file of the front; remove those of an earlier search, as it wrote them. What a
    person changed or put there stays, unless it has the name of a file of the front."""
    written = {f"{name}.toml" for name, _ in numbered(tuned.front)}
    for path in sorted(folder.glob("*.toml")):
        if path.name not in written and _untouched(path):
            path.unlink()
    for name, point in numbered(tuned.front):
        content = point.setting.recipe.model_dump(mode="json")
        recipe = Recipe.build(content | {"formats": [point.format]})
        told = (
            f"# {point.told}\n{_MARK}{point.leakage.value:.4f} {tuned.section.objective} by "
            f"{point.attack}, {point.accuracy.value:.4f} accuracy, {point.size_bytes} bytes\n"
        )
        if promises(point):
            told += "# (ε, δ) of its training does not cover that choice\n"
        write_text(folder / f"{name}.toml", told + recipe.to_toml())


def _untouched(path: Path) -> bool:
    with suppress(OSError, UnicodeDecodeError, RecipeError):
        head, line, body = path.read_text(encoding="utf-8").partition("# recipe ")
        return _MARK in head and line + body == Recipe.load(path).to_toml()
    return False
