"""Host collection against a bare interpreter loop in the same mode (same file, kernels, batch, one thread).

Run: python tests/benchmarks/bench_runner.py [--rows 200000] [--conv-rows 30000]
Prints ratios; 1.00 is the speed of the bare loop. "loop" compares the time in the interpreter, "warm" a whole
`collect` on a runner that has its process already and has hashed these rows before (inputs prepared and
checked, outputs read back), "cold" the first `collect` of a runner.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from edgeprivacy.device_runner import Queries
from edgeprivacy.device_runner.host import HostRunner


def models(folder: Path) -> dict[str, tuple[Path, tuple[int, ...]]]:
    """The files to run: MLP 446-256-128-30 and a small conv net, float32 and int8."""
    import tf_keras as keras

    from edgeprivacy.converters.tflite.convert import convert

    keras.utils.set_random_seed(0)
    layers = keras.layers
    mlp = keras.Sequential(
        [
            layers.Input((446,)),
            layers.Dense(256, activation="relu"),
            layers.Dense(128, activation="relu"),
            layers.Dense(30, activation="softmax"),
        ]
    )
    conv = keras.Sequential(
        [
            layers.Input((32, 32, 3)),
            layers.Conv2D(16, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2D(32, 3, strides=2, activation="relu"),
            layers.Conv2D(32, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    rng = np.random.default_rng(0)
    files = {}
    for name, model in (("mlp", mlp), ("conv", conv)):
        shape = tuple(model.input_shape[1:])
        for format_ in ("float32", "int8"):
            path = folder / f"{name}-{format_}.tflite"
            convert(model, format_, rng.random((64, *shape), np.float32), path)
            files[f"{name} {format_}"] = (path, shape)
    return files


def bare(path: Path, x: np.ndarray[Any, Any], batch: int) -> float:
    """Seconds of the plainest loop over rows that already are in the file's type."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    index = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(index, [batch, *x.shape[1:]])
    interpreter.allocate_tensors()
    output = interpreter.get_output_details()[0]["index"]
    results = []
    began = time.perf_counter()
    for start in range(0, len(x) - batch + 1, batch):
        interpreter.set_tensor(index, x[start : start + batch])
        interpreter.invoke()
        results.append(interpreter.get_tensor(output))
    np.concatenate(results)
    return time.perf_counter() - began


def measure(name: str, path: Path, shape: tuple[int, ...], rows: int, repeats: int) -> None:
    """Print one line."""
    x = np.random.default_rng(1).random((rows, *shape), np.float32)
    queries = Queries(x, np.arange(rows).astype(np.str_), np.zeros(rows, np.int64))
    runner = HostRunner()

    def collect() -> tuple[float, Any]:
        began = time.perf_counter()
        result = runner.collect([path], queries)[0]
        return time.perf_counter() - began, result.facts

    cold, facts = collect()
    from edgeprivacy.converters import read_facts
    from edgeprivacy.device_runner.inputs import InputFormat, encode

    entry = read_facts(path).inputs[0]
    prepared = encode(x, InputFormat(entry.dtype, entry.scale, entry.zero_point))
    bare_best = loop_best = warm_best = float("inf")
    for _ in range(repeats):  # in turns, so that a noisy neighbour disturbs all of them alike
        bare_best = min(bare_best, bare(path, prepared, facts["batch"]))
        warm, facts = collect()
        warm_best, loop_best = min(warm_best, warm), min(loop_best, facts["seconds"])
    runner.close()
    print(
        f"{name:14} rows {rows:>7} batch {facts['batch']:>3}  bare {rows / bare_best:>11,.0f} rows/s  "
        f"loop {bare_best / loop_best:.2f}  warm {bare_best / warm_best:.2f}  cold {bare_best / cold:.2f}"
    )


def main() -> None:
    """Measure all and say on what."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--conv-rows", type=int, default=30_000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    identity = HostRunner().identity()
    print(
        f"host collection / bare interpreter loop; {os.cpu_count()} cores, {identity['cpu']}, "
        f"litert {identity['version']}, {identity['kernels']}, numpy {np.__version__}, "
        f"python {platform.python_version()}"
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, (path, shape) in models(Path(folder)).items():
            rows = arguments.rows if name.startswith("mlp") else arguments.conv_rows
            measure(name, path, shape, rows, arguments.repeats)


if __name__ == "__main__":
    main()
