"""A model factory is known by the content of its file, however it is named."""

from pathlib import Path

import pytest

from edgeprivacy.recipe import Recipe
from edgeprivacy.release_keys import model_identity


@pytest.mark.parametrize("source", ["own_net.py:build", "own_net:build"])
def test_an_edited_factory_is_another_model(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "own_net.py"
    recipe = Recipe.build({"model": {"source": source}})
    file.write_text("def build(): return 1")
    first = model_identity(recipe)
    assert first == model_identity(recipe)
    file.write_text("def build(): return 2")
    assert model_identity(recipe) != first


def test_an_installed_module_is_known_by_its_file() -> None:
    assert "source_sha256" in model_identity(Recipe.build({"model": {"source": "json.tool:main"}}))
    assert "source_sha256" not in model_identity(Recipe.build({"model": {"source": "mlp"}}))


def test_a_file_that_the_factory_imports_counts(tmp_path: Path) -> None:
    (tmp_path / "own_net.py").write_text("import blocks\ndef build(): return blocks.x")
    (tmp_path / "blocks.py").write_text("x = 1")
    recipe = Recipe.build({"model": {"source": f"{tmp_path}/own_net.py:build"}})
    first = model_identity(recipe)
    (tmp_path / "blocks.py").write_text("x = 2")
    assert model_identity(recipe) != first
