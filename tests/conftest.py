"""Real small Keras models, built, pruned and converted once a test run, for tests of files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# Where the tests run in the background, they and all that they start would ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
# With several processes each has cores of its own: a command that a test runs then starts as many workers as
# there are cores for it, and no two of them import the same framework only to wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "sched_setaffinity"):
    _number, _count = int(os.environ["PYTEST_XDIST_WORKER"][2:]), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    _own = sorted(os.sched_getaffinity(0))[_number::_count]
    if _own:
        os.sched_setaffinity(0, _own)
# Where a pipeline runs the tests, their audits do not belong in its summary.
os.environ.pop("GITHUB_STEP_SUMMARY", None)

FORMATS = ("float32", "float16", "dynamic", "int8", "qat-int8")
SHARING = ("tests/converters/executorch", "tests/backends/executorch", "tests/backends/tflite")
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


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Tests of one file run in one process, and so do those of a room whose files share models that take long
    to make: with several processes each would make its own."""
    from xdist.scheduler import LoadScopeScheduling

    class Rooms(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            room = file.rpartition("/")[0]
            return room if room in SHARING else file

    return Rooms(config, log)


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


@dataclass
class Leaky:
    """A small network that has learned its noisy training rows by heart, as files, and rows to audit it on.

    `files[format]` with the formats float32, float16, dynamic and int8, and "logits" (float32, no softmax);
    `members`, `nonmembers`, `held_out`: .npz files of x [rows, 20], y [rows].
    """

    folder: Path
    files: dict[str, Path] = field(default_factory=dict)
    members: Path = Path()
    nonmembers: Path = Path()
    held_out: Path = Path()


def noisy_rows(rng: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Four overlapping Gaussian classes, 30 % of the labels drawn anew."""
    labels = rng.integers(0, 4, rows)
    centres = np.random.default_rng(9).normal(size=(4, 20)) / 2
    x = (centres[labels] + rng.normal(size=(rows, 20))).astype(np.float32)
    return x, np.where(rng.random(rows) < 0.3, rng.integers(0, 4, rows), labels)


@pytest.fixture(scope="session")
def leaky(keras: Any, tmp_path_factory: pytest.TempPathFactory) -> Leaky:
    """Made by plain TensorFlow, without a line of the project."""
    import tensorflow as tf

    keras.utils.set_random_seed(3)
    rng = np.random.default_rng(3)
    result = Leaky(tmp_path_factory.mktemp("leaky"))
    rows = {"members": 300, "nonmembers": 500, "held_out": 150}
    for name, count in rows.items():
        x, y = noisy_rows(rng, count)
        path = result.folder / f"{name}.npz"
        np.savez(path, x=x, y=y)
        setattr(result, name, path)
    data = np.load(result.members)
    model = keras.Sequential(
        [keras.layers.Input((20,)), keras.layers.Dense(256, activation="relu"), keras.layers.Dense(4)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss)
    model.fit(data["x"], data["y"], epochs=60, batch_size=64, verbose=0)
    whole = keras.Model(model.inputs, keras.layers.Softmax()(model.outputs[0]))
    for name in ("logits", "float32", "float16", "dynamic", "int8"):
        converter = tf.lite.TFLiteConverter.from_keras_model(model if name == "logits" else whole)
        if name not in ("logits", "float32"):
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if name == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if name == "int8":
            converter.representative_dataset = lambda: ([row[None]] for row in data["x"][:100])
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = tf.int8
        result.files[name] = result.folder / f"{name}.tflite"
        result.files[name].write_bytes(converter.convert())
    return result


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    try:
        command = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root can mount a small file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


SMALL_RECIPE = """
formats = ["float32", "int8"]
compare = ["none"]
defense = "wemem"
[training]
epochs = 3
[prune]
iterations = 2
finetune_epochs = 1
[audit]
shadows = 2
bootstrap = 100
attacks = ["confidence.global", "loss", "lira.online"]
"""
"""Digits, end to end, in seconds."""


@pytest.fixture(scope="session")
def compress(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """`edgeprivacy compress` as a process: `compress(*arguments, cwd=..., cache=..., **environment)`.

    With `background` the process is started in a session of its own, and not waited for.
    """
    if find_spec("tf_keras") is None:
        pytest.skip("needs the extra tflite")
    program = Path(sys.executable).with_name("edgeprivacy")
    if not program.exists():
        pytest.skip("the package is not installed beside this interpreter")
    home = tmp_path_factory.mktemp("home")

    def call(*arguments: object, cwd: Path, cache: Path, background: bool = False, **more: str) -> Any:
        settings = {
            "args": [str(program), "compress", *map(str, arguments)],
            "cwd": cwd,
            "text": True,
            "env": {
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "MPLCONFIGDIR": str(home),
                "XDG_CACHE_HOME": str(cache),
                **more,
            },
        }
        if background:
            return subprocess.Popen(
                **settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
            )
        return subprocess.run(**settings, capture_output=True, check=False, timeout=300)

    return call


@dataclass
class Finished:
    """A run that ended well: `folder` holds recipe.toml (as written by hand), `out` and `cache`."""

    folder: Path
    done: Any

    @property
    def out(self) -> Path:
        """The output folder."""
        return self.folder / "out"

    @property
    def cache(self) -> Path:
        """Its XDG_CACHE_HOME."""
        return self.folder / "cache"

    @property
    def recipe(self) -> Path:
        """The recipe it was given."""
        return self.folder / "recipe.toml"


@pytest.fixture(scope="session")
def finished(compress: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One small run on two workers, for everything that can be looked at afterwards."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "recipe.toml").write_text(SMALL_RECIPE)
    done = compress("recipe.toml", "--out", "out", "--jobs", "2", cwd=folder, cache=folder / "cache")
    return Finished(folder, done)
