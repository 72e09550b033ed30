"""What a defense found among a release's rows reaches the report, also where it comes from the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgeprivacy.backends.base import Material
from edgeprivacy.cache import Cache
from edgeprivacy.data.dataset import Dataset
from edgeprivacy.defenses import make_defense
from edgeprivacy.device_runner import open_runner
from edgeprivacy.recipe import Recipe
from edgeprivacy.release_stages import Making, Original, Stages


class Unsure:
    """A session whose networks find all classes alike."""

    def __init__(self) -> None:
        self.trained = 0

    def check(self) -> None:
        pass

    def train(self, material: Material, seed: int) -> tuple[list[Any], dict[str, Any]]:
        self.trained += 1
        return [], {}

    def predict(self, weights: list[Any], x: np.ndarray) -> np.ndarray:
        return np.full((len(x), 2), 0.5, dtype=np.float32)


def test_near_duplicates_are_told_of_made_and_of_cached_soft_labels(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 2, (120, 40)).astype(np.float32)
    x[5] = x[90]
    rows = Dataset(x, np.arange(120) % 2, np.arange(120).astype(np.str_), 2, ("0", "1"), "rows")
    making, session = Making(Material(rows, rows, rows, rows), 0), Unsure()
    recipe = Recipe.build({"data": {"source": "rows.npz"}})
    for _ in range(2):
        stages = Stages(recipe, "tflite", lambda: session, rows, open_runner("host"), Cache(tmp_path), rows)  # type: ignore[arg-type, return-value]
        arm = stages.arm("selena", make_defense("selena"), making, Original([], "key"))
        (note,) = arm.defense.notes(arm.rows)
        assert note.startswith("selena: near-duplicates") and "2 of 120 rows stand in one group" in note
    assert session.trained == 10
