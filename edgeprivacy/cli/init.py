"""`edgeprivacy init`: a commented recipe to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgeprivacy.errors import UsageError

# Flag to recipe key; a flag that is not given leaves the default.
_RECIPE_KEYS = {
    "backend": "backend",
    "data": "data.source",
    "label": "data.label",
    "train": "data.train",
    "holdout": "data.holdout",
    "model": "model.source",
    "defense": "defense.name",
}


@click.command(name="init")
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False), default="recipe.toml")
@click.option("--backend", help="tflite (.tflite), executorch (.pte, .ptl), or both with a comma.")
@click.option("--data", help="digits, FILE.npz, FILE.csv, an image folder, or FILE.py:FUNCTION.")
@click.option("--label", help="Label column of a CSV: a name or an index; several: A,B,C.")
@click.option("--train", help="Rows the model is trained on (with --holdout).")
@click.option("--holdout", help="Rows it is not trained on (with --train).")
@click.option("--model", help="auto, mlp, cnn, resnet, resnet-no-norm, a Keras file, or FILE.py:FUNCTION.")
@click.option("--defense", help="Defense of the training data; see `edgeprivacy defenses`.")
@click.option("--force", is_flag=True, help="Overwrite PATH.")
def command(path: Path, force: bool, **flags: str | None) -> int:
    """Write a recipe with every key, its default and what it means to PATH (recipe.toml).

    \b
    Examples:
      edgeprivacy init
      edgeprivacy init location.toml --data location.csv --label class --defense wemem
    """
    from edgeprivacy.defenses import make_defense
    from edgeprivacy.files import write_text
    from edgeprivacy.recipe import Recipe
    from edgeprivacy.recipe_template import commented_toml
    from edgeprivacy.recipe_toml import merge

    if path.exists() and not force:
        raise UsageError(f"{path} exists", hint="name another file, or pass --force to overwrite it")
    overrides: dict[str, Any] = {
        _RECIPE_KEYS[flag]: value for flag, value in flags.items() if value is not None
    }
    recipe = Recipe.build(merge({}, overrides))
    make_defense(recipe.defense.name, recipe.defense.settings)
    write_text(path, commented_toml(recipe, path.name))
    click.echo(f"{path}\n\nnext: edgeprivacy compress {path} --dry-run")
    return 0
