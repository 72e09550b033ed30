"""Small real rows, and sessions of the TF-Lite backend that are opened once."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# As in the workers: weights depend on the number of threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest

from edgeprivacy.backends.base import Material
from edgeprivacy.data.dataset import Dataset
from edgeprivacy.defenses import TrainingRows
from edgeprivacy.recipe import Recipe
from edgeprivacy.recipe_toml import merge


def recipe(**dotted: Any) -> Recipe:
    """A recipe of few epochs; keys with __ for the dot."""
    short: dict[str, Any] = {
        "data.source": "rows.npz",
        "training.epochs": 3,
        "training.batch_size": 32,
        "prune.iterations": 3,
        "prune.finetune_epochs": 2,
        "cluster.epochs": 1,
        "quantize.qat_epochs": 1,
        "model.scale": 1.0,
    }
    return Recipe.build(merge({}, short | {key.replace("__", "."): value for key, value in dotted.items()}))


def dataset(shape: tuple[int, ...], classes: int, rows: int, seed: int) -> Dataset:
    """Classes that a network can learn in an epoch or two: a centre each, and noise."""
    centres = np.random.default_rng(99).normal(size=(classes, *shape))
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % classes
    x = (centres[y] + rng.normal(size=(rows, *shape))).astype(np.float32)
    ids = np.array([f"{seed}:{row}" for row in range(rows)])
    return Dataset(x, y.astype(np.int64), ids, classes, tuple(map(str, range(classes))), "rows")


def material(shape: tuple[int, ...] = (12,), classes: int = 3, rows: int = 90, seed: int = 0) -> Material:
    """90 training rows, 60 validation rows, 40 calibration rows."""
    sizes = (rows, 60, 20, 40)
    return Material(*(dataset(shape, classes, size, 10 * seed + k) for k, size in enumerate(sizes)))


def training_rows(of: Material, seed: int = 5) -> TrainingRows:
    """With memorability scores drawn at random: what they come from is tested elsewhere."""
    scores = np.random.default_rng(seed).random(len(of.train))
    return TrainingRows(of.train.y, of.train.classes, scores)


@dataclass
class Tools:
    """What the tests of this folder share. `session(**settings)` opens one a recipe and keeps it."""

    folder: Path
    recipe: Callable[..., Recipe] = recipe
    material: Callable[..., Material] = material
    training_rows: Callable[..., TrainingRows] = training_rows
    opened: dict[str, Any] = field(default_factory=dict)

    def fresh(self, shape: tuple[int, ...] = (12,), classes: int = 3, **settings: Any) -> Any:
        """A new session."""
        from edgeprivacy.backends import open_backend

        return open_backend("tflite").open(recipe(**settings), classes, shape)

    def session(self, shape: tuple[int, ...] = (12,), classes: int = 3, **settings: Any) -> Any:
        """A session that tests with the same settings share."""
        key = f"{recipe(**settings).id}{shape}{classes}"
        if key not in self.opened:
            self.opened[key] = self.fresh(shape, classes, **settings)
        return self.opened[key]


@pytest.fixture(scope="session")
def tools(keras: Any, tmp_path_factory: pytest.TempPathFactory) -> Tools:
    """Skips without TensorFlow."""
    import edgeprivacy.backends.tflite.frameworks  # noqa: F401  one thread, before anything runs

    return Tools(tmp_path_factory.mktemp("backend"))
