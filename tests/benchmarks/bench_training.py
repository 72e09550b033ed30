"""Training: compiled epochs against keras fit, RSW's pruning phase against the undefended one, and what a
second audit of the same recipe costs. Ratios in one run; Location-30's shape, its real rows where they are.

Run it by `make bench`, or: python tests/benchmarks/bench_training.py
"""

from __future__ import annotations

import csv
import os
import platform
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from edgeprivacy.backends import open_backend
from edgeprivacy.backends.base import Material
from edgeprivacy.backends.tflite.built_in import mlp
from edgeprivacy.backends.tflite.frameworks import keras
from edgeprivacy.data.dataset import Dataset
from edgeprivacy.defenses import TrainingRows, make_defense
from edgeprivacy.environment import package_versions
from edgeprivacy.recipe import Recipe, Run

ROWS, FEATURES, CLASSES = 5010, 446, 30
ARCHIVE = Path(__file__).parents[3] / "shared" / "data" / "location30.tgz"


def location() -> Dataset:
    """The real rows if they are there, else binary rows of the same shape around class prototypes."""
    if ARCHIVE.is_file():
        with tarfile.open(ARCHIVE) as archive:
            stream = archive.extractfile("bangkok")
            assert stream is not None
            table = list(csv.reader(stream.read().decode().splitlines()))
        x = np.array([row[1:] for row in table], dtype=np.float32)
        y = np.array([int(row[0]) - 1 for row in table])
    else:
        rng = np.random.default_rng(0)
        y = rng.integers(0, CLASSES, ROWS)
        x = (rng.random((CLASSES, FEATURES))[y] * 0.5 > rng.random((ROWS, FEATURES))).astype(np.float32)
    ids = np.arange(len(y)).astype(np.str_)
    return Dataset(x, y, ids, CLASSES, tuple(map(str, range(CLASSES))), "location")


def best(function: Callable[[], object], repeats: int = 5) -> float:
    """Least wall seconds of several runs."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def main() -> None:
    """Print one line a figure."""
    print(f"# {os.cpu_count()} cores, {platform.machine()}, one thread; {package_versions()}")
    data = location()
    order = np.random.default_rng(0).permutation(data.ids)
    material = Material(data.take(order[:1803]), *(data.take(order[s : s + 300]) for s in (1803, 2103, 2403)))
    train = material.train
    recipe = Recipe.build({"data": {"source": "location"}, "training": {"patience": 10_000}})
    session = open_backend("tflite").open(recipe, CLASSES, data.input_shape)

    original, _ = session.train(material, 0)
    network = session._network
    rng = np.random.default_rng(0)
    compiled = best(lambda: network.run_epoch(rng.permutation(len(train)), 5e-4, "general"), 20)
    model = mlp((FEATURES,), CLASSES, 1.0, 0.1)
    model.compile(keras.optimizers.Adam(1e-3), keras.losses.SparseCategoricalCrossentropy())
    model.fit(train.x, train.y, batch_size=128, verbose=0)
    fitted = best(lambda: model.fit(train.x, train.y, batch_size=128, verbose=0), 10)
    ratio = fitted / compiled
    print(f"epoch: compiled {1e3 * compiled:.1f} ms, keras fit {1e3 * fitted:.1f} ms, {ratio:.1f}x")

    rows = TrainingRows(train.y, CLASSES, np.random.default_rng(1).random(len(train)))
    phases = {}
    for name in ("none", "wemem", "wemem:swmr"):
        defense = make_defense(name)
        session.compress(original, material, defense, rows, 0)  # compiles
        phases[name] = best(lambda defense=defense: session.compress(original, material, defense, rows, 0), 3)
    for name in ("wemem", "wemem:swmr"):
        print(
            f"pruning phase, 5 x 21 epochs: {name} {phases[name]:.2f} s, none {phases['none']:.2f} s, "
            f"{phases[name] / phases['none']:.2f}x"
        )

    from edgeprivacy.compressing import compress

    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        small = Recipe.build({"defense": "wemem", "audit": {"shadows": 4}})
        seconds, releases = [], []
        for number in range(2):
            started = time.perf_counter()
            audit = compress(small, Run(out=f"{folder}/out{number}"))
            seconds.append(time.perf_counter() - started)
            releases.append(audit.environment["releases"])
    print(
        f"audit of digits with 4 shadows: first {seconds[0]:.1f} s {releases[0]}, "
        f"again {seconds[1]:.1f} s {releases[1]}, {seconds[1] / seconds[0]:.2f}x"
    )


if __name__ == "__main__":
    main()
