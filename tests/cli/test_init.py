"""`edgeprivacy init`: what it writes is the recipe that it stands for."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprivacy.cli.recipe_options import RECIPE_OPTIONS
from edgeprivacy.recipe import Recipe
from edgeprivacy.recipe_template import commented_toml


def test_it_loads_back_to_the_default_recipe(edgeprivacy: Callable[..., Any], tmp_path: Path) -> None:
    done = edgeprivacy("init", cwd=tmp_path)
    assert done.returncode == 0 and "recipe.toml" in done.stdout
    text = (tmp_path / "recipe.toml").read_text()
    loaded = Recipe.load(tmp_path / "recipe.toml")
    assert loaded == Recipe.build({}) and loaded.id == Recipe.build({}).id
    # Every key of every section stands in it, if only as a comment.
    keys = set(re.findall(r"^(?:# )?(\w+) = ", text, re.MULTILINE))
    dumped = Recipe.build({}).model_dump()
    inner = {key for value in dumped.values() if isinstance(value, dict) for key in value} - {"settings"}
    outer = {key for key, value in dumped.items() if not isinstance(value, dict)}
    assert keys >= inner | outer
    # And is a valid value of its key where the comment sign is taken away.
    commented = {key: value for key, value in re.findall(r"^# (\w+) = (.*?)  #", text, re.MULTILINE)}
    assert "weights" in commented
    for key, value in commented.items():
        assert tomllib.loads(f"{key} = {value}")


def test_flags_go_into_the_recipe_and_nothing_is_overwritten(
    edgeprivacy: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "mine.toml"
    rows = ("--data", 'a "b".csv', "--label", "0", "--no-header")
    first = edgeprivacy("init", path, *rows, "--defense", "wemem")
    assert first.returncode == 0, first.stderr
    content = path.read_bytes()
    recipe = Recipe.load(path)
    assert (recipe.data.source, recipe.data.label, recipe.defense.name) == ('a "b".csv', "0", "wemem")
    assert recipe.data.header is False
    again = edgeprivacy("init", path)
    assert (again.returncode, again.stdout) == (2, "") and "--force" in again.stderr
    assert path.read_bytes() == content
    assert edgeprivacy("init", path, "--force").returncode == 0
    assert Recipe.load(path) == Recipe.build({})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(("--backend", "tflit"), "did you mean 'tflite'"), (("--defense", "wemm"), "did you mean 'wemem'")],
)
def test_mistakes_write_nothing(
    edgeprivacy: Callable[..., Any], tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    done = edgeprivacy("init", *arguments, cwd=tmp_path)
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@settings(deadline=None, max_examples=30)
@given(
    source=st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1, max_size=20),
    sparsity=st.floats(0, 0.99),
    compare=st.sampled_from([[], ["less-data"], ["less-data", {"name": "wemem:random", "step": 2}]]),
    layers=st.sampled_from(["auto", ["dense", "dense_1"]]),
    seed=st.integers(0, 2**31 - 1),
)
def test_any_recipe_loads_back(
    source: str,
    sparsity: float,
    compare: Any,
    layers: Any,
    seed: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    recipe = Recipe.build(
        {
            "seed": seed,
            "compare": compare,
            "data": {"source": source},
            "defense": {"name": "wemem", "settings": {"window": 0.25}},
            "prune": {"sparsity": sparsity, "layers": layers},
        }
    )
    content = tomllib.loads(commented_toml(recipe))
    del content["run"]
    assert Recipe.build(content) == recipe


def test_every_shared_flag_sets_a_key_that_recipes_have() -> None:
    keys = Recipe.build({}).model_dump()
    for option in RECIPE_OPTIONS.values():
        section, _, key = option.key.rpartition(".")
        assert key in (keys[section] if section else keys), option.key
