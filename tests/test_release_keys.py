"""What a model is made from is in its key: the content of a factory's file however it is named, and rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprivacy.backends.base import Material
from edgeprivacy.cache import Cache
from edgeprivacy.data.dataset import Dataset
from edgeprivacy.defenses import make_defense
from edgeprivacy.device_runner import open_runner
from edgeprivacy.recipe import Recipe
from edgeprivacy.release_keys import model_identity
from edgeprivacy.release_stages import Arm, Making, Original, Stages

ROWS = Dataset(
    np.arange(80, dtype=np.float32).reshape(40, 2),
    np.arange(40) % 2,
    np.arange(40).astype(np.str_),
    2,
    ("0", "1"),
    "rows",
)
PARTS = ("train", "validation", "reference", "calibration")


class Kept(Exception):
    """What an entry of the cache is known by."""


class Keys(Cache):
    """Says which key an entry has, and makes nothing."""

    def key(self, stage: str, content: Any) -> str:
        raise Kept(stage, super().key(stage, content))


def key_of(stage: str, defense: str, settings: dict[str, Any], changed: str, given: Path | None) -> Any:
    """The key of a stage under a defense, with one row of one part changed."""
    parts = {part: ROWS.take(ROWS.ids[10 * k : 10 * k + 10]) for k, part in enumerate(PARTS)}
    if changed:
        parts[changed] = replace(parts[changed], x=parts[changed].x + np.eye(10, 2, dtype=np.float32))
    making, by = Making(Material(**parts), 0, given), make_defense(defense, settings)
    recipe = Recipe.build({"data": {"source": "rows.npz"}})
    stages = Stages(recipe, "tflite", lambda: None, ROWS, open_runner("host"), Keys(Path()), ROWS)  # type: ignore[arg-type, return-value]
    arm = Arm(defense, by, making.rows)

    def kept(ask: Any) -> str:
        with pytest.raises(Kept) as told:
            ask()
        return str(told.value.args[1])

    own = None if by.for_original() is None else arm
    original = kept(lambda: stages.original(making, own))
    if stage == "original":
        return original
    return kept(lambda: stages.compressed(Original([], original), arm, making))


@pytest.mark.parametrize("stage", ["original", "compressed"])
@pytest.mark.parametrize(
    ("defense", "settings", "trained_with"),
    [
        ("none", {}, ()),
        ("relaxloss", {}, ()),
        ("mixup", {}, ()),
        ("mixup", {"mmd": 3}, ("original", "compressed")),
        ("advreg", {}, ("original", "compressed")),
        ("advreg", {"original": False}, ("compressed",)),
        ("mia-pruning:minmax", {}, ("compressed",)),
        ("defensive-quantization", {}, ("compressed",)),
        ("cwrf", {}, ("compressed",)),
        ("cwrf+relaxloss", {}, ("compressed",)),
        ("wemem+advreg", {}, ("original", "compressed")),
    ],
)
def test_models_are_known_by_all_rows_that_they_were_trained_with(
    stage: str, defense: str, settings: dict[str, Any], trained_with: tuple[str, ...]
) -> None:
    first = key_of(stage, defense, settings, "", None)
    differ = {part for part in PARTS if key_of(stage, defense, settings, part, None) != first}
    assert differ == {"train", "validation"} | ({"reference"} if stage in trained_with else set())


def test_rows_that_end_phases_count_for_originals_that_were_given(tmp_path: Path) -> None:
    (tmp_path / "w.h5").write_bytes(b"weights")
    first = key_of("compressed", "wemem", {}, "", tmp_path / "w.h5")
    assert first != key_of("compressed", "wemem", {}, "", None)
    assert first != key_of("compressed", "wemem", {}, "validation", tmp_path / "w.h5")
    assert first == key_of("compressed", "wemem", {}, "reference", tmp_path / "w.h5")


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
