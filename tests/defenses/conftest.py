"""A small dense network of either backend with known weights, for loops in numpy to be compared with."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from edgeprivacy.recipe_sections import TrainingSection

Arrays = list[np.ndarray]


@dataclass
class Dense:
    """6 inputs, 5 ReLU units, 3 classes; 70 rows and 23 reference rows.

    Attributes:
        weights: Kernels [inputs, outputs] and biases, by turns.
    """

    backend: str
    rate: float = 1e-2
    batch: int = 16
    seed: int = 3
    decay: float = 1e-3
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(1))

    def __post_init__(self) -> None:
        rng = self.rng
        self.x, self.y = rng.normal(size=(70, 6)).astype(np.float32), rng.integers(0, 3, 70)
        self.other_x, self.other_y = rng.normal(size=(23, 6)).astype(np.float32), rng.integers(0, 3, 23)
        shapes = ((6, 5), (5,), (5, 3), (3,))
        self.weights = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
        self.network = self._keras() if self.backend == "tflite" else self._torch()
        self.network.bind(self.x, self.y, self.x, self.y)
        self.network.bind_others(self.other_x, self.other_y)
        self.load()

    def load(self, seed: int | None = None) -> None:
        """Start anew from the known weights."""
        self.network.load(self._as_kept(self.weights), self.seed if seed is None else seed)

    def run(self, epochs: int, decay: float | None = None) -> None:
        """Epochs over the rows as they lie."""
        for epoch in range(epochs):
            order = np.arange(len(self.x), dtype=np.int32)
            self.network.run_epoch(order, self.decay if decay is None else decay, "general", epoch)

    @property
    def made(self) -> Arrays:
        """The weights now."""
        return self._as_kept(self.network.weights())

    def _as_kept(self, weights: Arrays) -> Arrays:
        """torch keeps kernels the other way round."""
        return list(weights) if self.backend == "tflite" else [w.T for w in weights]

    def _training(self) -> TrainingSection:
        return TrainingSection(learning_rate=self.rate, batch_size=self.batch)

    def _keras(self) -> Any:
        keras = pytest.importorskip("tf_keras", reason="needs the extra tflite")
        from edgeprivacy.backends.tflite.network import CompiledNetwork

        layers = [
            keras.Input((6,)),
            keras.layers.Dense(5, "relu"),
            keras.layers.Dense(3),
            keras.layers.Softmax(),
        ]
        return CompiledNetwork(keras.Sequential(layers), self._training())

    def _torch(self) -> Any:
        torch = pytest.importorskip("torch", reason="needs the extra executorch")
        from edgeprivacy.backends.executorch.models import Classifier
        from edgeprivacy.backends.executorch.network import TorchNetwork

        nn = torch.nn
        body = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
        return TorchNetwork(Classifier(body, "softmax"), self._training())


@pytest.fixture(
    params=[
        pytest.param("tflite", marks=pytest.mark.tflite),
        pytest.param("executorch", marks=pytest.mark.executorch),
    ]
)
def dense(request: pytest.FixtureRequest) -> Dense:
    """In each backend."""
    return Dense(request.param)


@pytest.fixture(scope="session")
def dense_of() -> Callable[..., Dense]:
    """In a backend of one's choice, with settings of one's own."""
    return Dense
