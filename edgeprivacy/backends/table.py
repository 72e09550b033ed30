"""The backends: what can be known of each without importing its framework. A new one is a line here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from edgeprivacy.errors import MissingDependency, UsageError, did_you_mean

if TYPE_CHECKING:
    from edgeprivacy.backends.base import Backend

THREADS = 1
"""Threads of every framework in every process: two in two processes on two cores are several times slower
than one each, and weights depend on the number."""


@dataclass(frozen=True)
class BackendEntry:
    """One backend.

    Attributes:
        module, attribute: Where its `Backend` class stands.
        title: In a few words, for help texts.
        extra: The extra that installs it.
        packages: Packages that shape its weights and files.
        formats: Format to the ending of its files.
        models: Built-in networks.
        model_files: Endings of files that hold a whole model.
        weight_files: Endings of files with trained weights.
        schedules: Pruning schedules.
    """

    module: str
    attribute: str
    title: str
    extra: str
    packages: tuple[str, ...]
    formats: Mapping[str, str]
    models: tuple[str, ...]
    model_files: tuple[str, ...]
    weight_files: tuple[str, ...]
    schedules: tuple[str, ...]


BACKENDS: dict[str, BackendEntry] = {
    "tflite": BackendEntry(
        module="edgeprivacy.backends.tflite.backend",
        attribute="TFLiteBackend",
        title="Keras to .tflite",
        extra="tflite",
        packages=("tensorflow", "tf_keras", "tensorflow-model-optimization", "numpy"),
        formats=dict.fromkeys(("float32", "float16", "dynamic", "int8", "qat-int8"), ".tflite"),
        models=("mlp", "cnn", "resnet", "resnet-no-norm"),
        model_files=(".keras", ".h5"),
        weight_files=(".weights.h5", ".h5", ".keras"),
        schedules=("iterative", "one-shot", "polynomial", "none", "finetune", "untrained"),
    ),
    "executorch": BackendEntry(
        module="edgeprivacy.backends.executorch.backend",
        attribute="ExecuTorchBackend",
        title="torch to .pte and .ptl",
        extra="executorch",
        packages=("torch", "executorch", "torchao", "torch-pruning", "numpy"),
        formats={
            **dict.fromkeys(("float32", "dynamic", "int8", "qat-int8", "portable-float32"), ".pte"),
            **dict.fromkeys(("ptl-float32", "ptl-int8"), ".ptl"),
        },
        models=("mlp", "cnn", "resnet", "resnet-no-norm", "resnet18", "mobilenetv2"),
        model_files=(),
        weight_files=(".pt", ".safetensors"),
        schedules=("iterative", "one-shot", "polynomial", "structured", "none", "finetune", "untrained"),
    ),
}


def backend_entry(name: str) -> BackendEntry:
    """Raises UsageError for an unknown name."""
    if name not in BACKENDS:
        raise UsageError(
            f"unknown backend '{name}'", allowed=", ".join(BACKENDS), hint=did_you_mean(name, BACKENDS)
        )
    return BACKENDS[name]


def backend_versions(name: str) -> dict[str, str]:
    """Versions of every package that shapes a backend's weights and files, and the number of threads.

    Raises:
        UsageError: Unknown backend.
        MissingDependency: It is not installed.
    """
    entry = backend_entry(name)
    try:
        return {**{package: version(package) for package in entry.packages}, "threads": str(THREADS)}
    except PackageNotFoundError:
        raise MissingDependency(f"the {name} backend", extra=entry.extra) from None


def open_backend(name: str) -> Backend:
    """Import a backend. Takes seconds: call it in worker processes only."""
    entry = backend_entry(name)
    backend: Backend = getattr(import_module(entry.module), entry.attribute)()
    return backend
