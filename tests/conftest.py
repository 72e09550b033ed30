"""Real small Keras models, built, pruned and converted once a session, for tests of files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FORMATS = ("float32", "float16", "dynamic", "int8", "qat-int8")
SHAPES = {"mlp": (64,), "conv": (12, 12, 3)}


@dataclass
class Zoo:
    """`models[name]`: Keras models with 60 % of every kernel zero, `rows[name]`, `files[name, format]`."""

    folder: Path
    models: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, np.ndarray] = field(default_factory=dict)
    files: dict[tuple[str, str], Path] = field(default_factory=dict)


def _mask(model: Any, share: float) -> None:
    """Zero the smallest `share` of every kernel, rounded to a whole number of weights."""
    for layer in model.layers:
        for variable in layer.trainable_variables:
            if "kernel" in variable.name and len(variable.shape) > 1:
                kernel = variable.numpy()
                order = np.argsort(np.abs(kernel).ravel(), kind="stable")
                kernel.ravel()[order[: round(share * kernel.size)]] = 0.0
                variable.assign(kernel)


@pytest.fixture(scope="session")
def keras() -> Any:
    """tf_keras, or the test is skipped."""
    pytest.importorskip("tensorflow", reason="needs the extra tflite")
    return pytest.importorskip("tf_keras", reason="needs the extra tflite")


@pytest.fixture(scope="session")
def zoo(keras: Any, tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """An MLP and a small conv net with BatchNorm, in all five formats."""
    import tensorflow_model_optimization as tfmot

    from edgeprivacy.converters.tflite.convert import convert

    keras.utils.set_random_seed(7)
    rng = np.random.default_rng(7)
    layers = keras.layers
    result = Zoo(tmp_path_factory.mktemp("zoo"))
    result.models["mlp"] = keras.Sequential(
        [
            layers.Input(SHAPES["mlp"]),
            layers.Dense(48, activation="relu"),
            layers.Dense(32, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    result.models["conv"] = keras.Sequential(
        [
            layers.Input(SHAPES["conv"]),
            layers.Conv2D(16, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.DepthwiseConv2D(3),
            layers.Conv2D(24, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(5, activation="softmax"),
        ]
    )
    for name, model in result.models.items():
        x = (rng.random((300, *SHAPES[name])) * 16 - 4).astype(np.float32)
        result.rows[name] = x
        for variable in model.variables:  # a BatchNorm that has seen data
            if "moving_variance" in variable.name:
                variable.assign(rng.uniform(0.5, 2.0, variable.shape))
        _mask(model, 0.6)
        for format_ in FORMATS:
            source = model
            if format_ == "qat-int8":
                source = tfmot.quantization.keras.quantize_model(model)
                source(x[:64], training=True)  # moves the ranges, not the weights
            path = result.folder / f"{name}-{format_}.tflite"
            convert(source, format_, x[:100], path)
            result.files[name, format_] = path
    return result
