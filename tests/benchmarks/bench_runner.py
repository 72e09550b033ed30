"""Host collection against a bare interpreter loop in the same mode (same file, kernels, batch, one thread).

Run: python tests/benchmarks/bench_runner.py [--rows 200000] [--conv-rows 30000] [--only pte]
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
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgeprivacy.device_runner import Queries
from edgeprivacy.device_runner.host import HostRunner

Files = dict[str, tuple[Path, tuple[int, ...]]]
Step = Callable[[int], np.ndarray[Any, Any]]

MLP, IMAGE = (446,), (32, 32, 3)


def keras_models(folder: Path) -> Files:
    """MLP 446-256-128-30 and a small conv net as .tflite, float32 and int8."""
    import tf_keras as keras

    from edgeprivacy.converters.tflite.convert import convert

    keras.utils.set_random_seed(0)
    layers = keras.layers
    mlp = keras.Sequential(
        [
            layers.Input(MLP),
            layers.Dense(256, activation="relu"),
            layers.Dense(128, activation="relu"),
            layers.Dense(30, activation="softmax"),
        ]
    )
    conv = keras.Sequential(
        [
            layers.Input(IMAGE),
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
    for name, model, shape in (("mlp", mlp, MLP), ("conv", conv, IMAGE)):
        for format_ in ("float32", "int8"):
            path = folder / f"{name}-{format_}.tflite"
            convert(model, format_, rng.random((64, *shape), np.float32), path)
            files[f"{name} tflite {format_}"] = (path, shape)
    return files


def torch_models(folder: Path) -> Files:
    """The same networks as .pte, float32 and int8, and as .ptl, float32."""
    import torch
    from torch import nn

    from edgeprivacy.converters.executorch.convert import convert
    from edgeprivacy.converters.ptl.convert import convert_ptl

    class Images(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(3, 16, 3, bias=False),
                nn.BatchNorm2d(16),
                nn.ReLU(),
                nn.Conv2d(16, 32, 3, stride=2),
                nn.ReLU(),
                nn.Conv2d(32, 32, 3),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(32, 10),
                nn.Softmax(1),
            )

        def forward(self, x: Any) -> Any:
            return self.body(x.permute(0, 3, 1, 2))

    torch.set_num_threads(1)
    torch.manual_seed(0)
    mlp = nn.Sequential(
        nn.Linear(446, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 30), nn.Softmax(1)
    )
    rng = np.random.default_rng(0)
    files = {}
    for name, module, shape in (("mlp", mlp.eval(), MLP), ("conv", Images().eval(), IMAGE)):
        rows = rng.random((64, *shape), np.float32)
        for format_ in ("float32", "int8"):
            path = folder / f"{name}-{format_}.pte"
            convert(module, format_, rows, path, input_shape=shape)
            files[f"{name} pte {format_}"] = (path, shape)
        path = folder / f"{name}-float32.ptl"
        convert_ptl(module, "ptl-float32", rows, path, input_shape=shape)
        files[f"{name} ptl float32"] = (path, shape)
    return files


def bare(path: Path, x: np.ndarray[Any, Any], batch: int) -> float:
    """Seconds of the plainest loop over rows that already are in the file's type."""
    run = {".tflite": bare_litert, ".pte": bare_executorch, ".ptl": bare_torch}[path.suffix](path, x, batch)
    results = []
    began = time.perf_counter()
    for start in range(0, len(x) - batch + 1, batch):
        results.append(run(start))
    np.concatenate(results)
    return time.perf_counter() - began


def bare_litert(path: Path, x: np.ndarray[Any, Any], batch: int) -> Step:
    """One batch in LiteRT's interpreter."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    index = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(index, [batch, *x.shape[1:]])
    interpreter.allocate_tensors()
    output = interpreter.get_output_details()[0]["index"]

    def run(start: int) -> np.ndarray[Any, Any]:
        interpreter.set_tensor(index, x[start : start + batch])
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(output))

    return run


def bare_executorch(path: Path, x: np.ndarray[Any, Any], batch: int) -> Step:
    """One batch in ExecuTorch's runtime; its pool has one thread, as in the runner."""
    import torch
    from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
    from executorch.runtime import Runtime

    _unsafe_reset_threadpool(1)
    method = Runtime.get().load_program(path).load_method("forward")
    tensor = torch.from_numpy(x)
    return lambda start: method.execute((tensor[start : start + batch],))[0].numpy()


def bare_torch(path: Path, x: np.ndarray[Any, Any], batch: int) -> Step:
    """One batch in the lite interpreter."""
    import torch
    from torch.jit.mobile import _load_for_lite_interpreter

    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, as it says
        module = _load_for_lite_interpreter(str(path))
    tensor = torch.from_numpy(x)
    return lambda start: module(tensor[start : start + batch]).numpy()


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
    dtype = entry.dtype if path.suffix == ".tflite" else "float32"
    prepared = encode(x, InputFormat(dtype, entry.scale, entry.zero_point))
    bare_best = loop_best = warm_best = float("inf")
    for _ in range(repeats):  # in turns, so that a noisy neighbour disturbs all of them alike
        bare_best = min(bare_best, bare(path, prepared, facts["batch"]))
        warm, facts = collect()
        warm_best, loop_best = min(warm_best, warm), min(loop_best, facts["seconds"])
    runner.close()
    print(
        f"{name:19} rows {rows:>7} batch {facts['batch']:>3}  bare {rows / bare_best:>11,.0f} rows/s  "
        f"loop {bare_best / loop_best:.2f}  warm {bare_best / warm_best:.2f}  cold {bare_best / cold:.2f}"
    )


def main() -> None:
    """Measure all and say on what."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--conv-rows", type=int, default=30_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="", help="words that a file's line must hold, e.g. 'pte int8'")
    arguments = parser.parse_args()
    words = set(arguments.only.split())
    print(
        f"host collection / bare interpreter loop; {os.cpu_count()} cores, numpy {np.__version__}, "
        f"python {platform.python_version()}"
    )
    with tempfile.TemporaryDirectory() as folder:
        files: Files = {}
        if not words & {"pte", "ptl"}:
            files |= keras_models(Path(folder))
        if "tflite" not in words:
            files |= torch_models(Path(folder))
        runner = HostRunner()
        for suffix in sorted({path.suffix for path, _ in files.values()}):
            identity = runner.identity(next(path for path, _ in files.values() if path.suffix == suffix))
            print(
                f"{suffix}: {', '.join(str(identity[k]) for k in ('runtime', 'version', 'kernels', 'cpu'))}"
            )
        for name, (path, shape) in files.items():
            if words <= set(name.split()):
                rows = arguments.rows if name.startswith("mlp") else arguments.conv_rows
                # The lite interpreter takes row by row.
                measure(name, path, shape, rows // 4 if "ptl" in name else rows, arguments.repeats)


if __name__ == "__main__":
    main()
