"""What a backend offers the rest of the house. No framework is imported here."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.converters import ArtifactFacts, Request
from edgeprivacy.data.dataset import Dataset
from edgeprivacy.defenses import Defense, TrainingRows
from edgeprivacy.errors import MissingDependency, UsageError
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
        self, material: Material, seed: int, initial: Weights | None = None
    ) -> tuple[Weights, dict[str, Any]]:
        """Train an original from scratch (or from `initial`); its best weights and the history."""

    def train_plain(self, rows: Dataset, epochs: int, seed: int) -> Weights:
        """Train for a fixed number of epochs without validation (memorability sub-models)."""

    def predict(self, weights: Weights, x: NDArray[Any]) -> NDArray[np.float32]:
        """Probabilities [rows, classes] of the plain network."""

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
    formats: ClassVar[tuple[str, ...]]

    def open(self, recipe: Recipe, classes: int, input_shape: tuple[int, ...]) -> Session:
        """Build and compile. ModelError where the model cannot be built or does not fit the data."""


@dataclass(frozen=True)
class _Entry:
    """What can be known of a backend without importing its framework."""

    module: str
    attribute: str
    extra: str
    suffix: str
    packages: tuple[str, ...]


_BACKENDS = {
    "tflite": _Entry(
        "edgeprivacy.backends.tflite.backend",
        "TFLiteBackend",
        "tflite",
        ".tflite",
        ("tensorflow", "tf_keras", "tensorflow-model-optimization", "numpy"),
    )
}
THREADS = 1
"""Threads of every framework in every process: two in two processes on two cores are several times slower
than one each, and weights depend on the number."""


def _entry(name: str) -> _Entry:
    if name not in _BACKENDS:
        raise UsageError(f"unknown backend '{name}'", allowed=", ".join(_BACKENDS))
    return _BACKENDS[name]


def backend_versions(name: str) -> dict[str, str]:
    """Versions of every package that shapes a backend's weights and files, and the number of threads.

    Raises:
        UsageError: Unknown backend.
        MissingDependency: It is not installed.
    """
    entry = _entry(name)
    try:
        return {**{package: version(package) for package in entry.packages}, "threads": str(THREADS)}
    except PackageNotFoundError:
        raise MissingDependency(f"the {name} backend", extra=entry.extra) from None


def file_suffix(name: str) -> str:
    """File name ending of a backend's artifacts."""
    return _entry(name).suffix


def open_backend(name: str) -> Backend:
    """Import a backend. Takes seconds: call it in worker processes only."""
    from importlib import import_module

    entry = _entry(name)
    backend: Backend = getattr(import_module(entry.module), entry.attribute)()
    return backend
