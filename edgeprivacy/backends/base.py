"""What a backend offers the rest of the house. No framework is imported here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.converters import ArtifactFacts, Request
from edgeprivacy.data.dataset import Dataset
from edgeprivacy.defenses import Defense, TrainingRows
from edgeprivacy.recipe import Recipe

Weights = list[NDArray[Any]]


@dataclass(frozen=True)
class Material:
    """The rows a release is made from; all of them are the release's own."""

    train: Dataset
    validation: Dataset
    reference: Dataset
    calibration: Dataset


@dataclass(frozen=True)
class Compressed:
    """A compressed model as plain arrays, and what was asked of it.

    Attributes:
        weights: Weights of the plain network.
        request: What every file made from it must hold, but for its format.
        quantized: Weights of the quantization-aware network, ranges included, where one was trained.
        history: Epochs and validation accuracy of each phase. JSON values only.
    """

    weights: Weights
    request: Request
    quantized: Weights | None = None
    history: tuple[dict[str, Any], ...] = ()


class Session(Protocol):
    """A backend opened for one recipe: the network is built and its epochs are compiled once, then reused for
    every release that this process makes."""

    def check(self) -> None:
        """Try what can fail for reasons of the model alone, before anything is trained."""

    def initial_weights(self, seed: int) -> Weights:
        """Fresh random weights."""

    def load_weights(self, path: Path) -> Weights:
        """Weights of a trained model file. ModelError where they do not fit."""

    def train(
        self,
        material: Material,
        seed: int,
        initial: Weights | None = None,
        defense: Defense | None = None,
        rows: TrainingRows | None = None,
    ) -> tuple[Weights, dict[str, Any]]:
        """Train an original from scratch (or from `initial`), plainly or by a defense, with what that knows
        of the rows; its best weights and the history."""

    def train_plain(self, rows: Dataset, epochs: int, seed: int) -> Weights:
        """Train for a fixed number of epochs without validation (memorability sub-models)."""

    def predict(self, weights: Weights, x: NDArray[Any]) -> NDArray[np.float32]:
        """Probabilities [rows, classes] of the plain network; of independent labels each for itself."""

    def compress(
        self, original: Weights, material: Material, defense: Defense, rows: TrainingRows, seed: int
    ) -> Compressed:
        """Prune and cluster, each step under the defense."""

    def quantize_aware(
        self, compressed: Compressed, material: Material, defense: Defense, rows: TrainingRows, seed: int
    ) -> Compressed:
        """Quantization-aware training of a compressed model, under the defense."""

    def convert(
        self, compressed: Compressed, format: str, calibration: NDArray[Any], path: Path, probe: NDArray[Any]
    ) -> tuple[ArtifactFacts, NDArray[np.float32]]:
        """Write the file for a format and read its facts back; also the framework model's probabilities of
        the probe rows, for parity."""


class Backend(Protocol):
    """A framework behind one name."""

    name: ClassVar[str]

    def open(
        self, recipe: Recipe, classes: int, input_shape: tuple[int, ...], label_sets: bool = False
    ) -> Session:
        """Build and compile; with `label_sets` a network of one sigmoid for each of `classes` independent
        labels. ModelError where the model cannot be built or does not fit the data."""
