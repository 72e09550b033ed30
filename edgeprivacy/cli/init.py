"""`edgeprivacy init`: a commented recipe to start from."""

from __future__ import annotations

from pathlib import Path

import click

from edgeprivacy.cli.recipe_options import overrides_of, recipe_options
from edgeprivacy.errors import UsageError


@click.command(name="init")
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False), default="recipe.toml")
@recipe_options(
    "--backend", "--data", "--label", "--no-header", "--train", "--holdout", "--model", "--defense"
)
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
    recipe = Recipe.build(merge({}, overrides_of(flags)))
    make_defense(recipe.defense.name, recipe.defense.settings)
    write_text(path, commented_toml(recipe, path.name))
    click.echo(f"{path}\n\nnext: edgeprivacy compress {path} --dry-run")
    return 0
