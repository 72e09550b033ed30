"""Native runner against the Python interpreter, and a device against adb by hand.

Run: python tests/benchmarks/bench_device.py [--rows 100000] [--serial SERIAL --megabytes 100]

Prints ratios. Without a serial: a whole `collect` of the host runner over one of the native runner, both
warm; above 1 the native runner is faster. With one: a whole `collect` over adb against `adb push`, the
runner program by `adb shell` and `adb pull` of the same bytes; the runner lies on the device in both.
Inputs of several files go out once: the bytes say so.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from bench_runner import keras_models, torch_models

from edgeprivacy.device_runner import Queries
from edgeprivacy.device_runner.adb_runner import AdbRunner
from edgeprivacy.device_runner.base import Runner
from edgeprivacy.device_runner.host import HostRunner
from edgeprivacy.device_runner.native_runner import NativeRunner

HAND = "/data/local/tmp/edgeprivacy-bench"


def queries(shape: tuple[int, ...], rows: int) -> Queries:
    """Random rows."""
    x = np.random.default_rng(0).random((rows, *shape), np.float32)
    return Queries(x, np.arange(rows).astype(np.str_), np.full(rows, -1, np.int64))


def seconds(runner: Runner, files: list[Path], rows: Queries, repeats: int) -> float:
    """The least of some collects after a first one."""
    took = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        runner.collect(files, rows)
        took.append(time.perf_counter() - began)
    return min(took[1:])


def native(folder: Path, rows: int) -> None:
    """Print the native runner's speed beside the host's."""
    host, program = HostRunner(), NativeRunner()
    for name, (path, shape) in {**keras_models(folder), **torch_models(folder)}.items():
        if path.suffix == ".ptl":
            continue
        few = queries(shape, rows if len(shape) == 1 else rows // 8)
        theirs, ours = seconds(host, [path], few, 3), seconds(program, [path], few, 3)
        inside = [runner.collect([path], few)[0].facts["seconds"] for runner in (host, program)]
        (speed,) = program.measure([path], few)
        assert speed is not None
        print(
            f"{name:20s} native {theirs / ours:.2f}x the host ({ours:.2f} s, {theirs:.2f} s), "
            f"in the interpreter {inside[0] / inside[1]:.2f}x; one row {speed.median_us:.0f} us",
            flush=True,
        )
    program.close()
    host.close()


def device(folder: Path, serial: str, megabytes: int) -> None:
    """Print the overhead over adb by hand, and the bytes for one file and for sixteen."""
    path, shape = keras_models(folder)["mlp tflite float32"]
    rows = queries(shape, megabytes * 2**20 // (4 * int(np.prod(shape))))
    runner = AdbRunner(serial, parts=folder / "parts")
    few = queries(shape, 300)
    runner.collect([path], few)  # the bundle is there
    by_hand = hand(runner, path, rows, folder)
    began = time.perf_counter()
    runner.collect([path], rows)
    ours = time.perf_counter() - began
    ratio = ours / by_hand
    print(f"device: {megabytes} MB of rows: {ours:.1f} s, by hand {by_hand:.1f} s: {ratio:.2f}x (asked 1.2x)")
    copies = []
    for number in range(16):  # sixteen files that are not the same
        copy = folder / f"{number}.tflite"
        copy.write_bytes(path.read_bytes() + bytes(number + 1))
        copies.append(copy)
    runner.close()
    runner.collect([path], few)
    before = runner.moved["sent"]
    runner.collect([path], queries(shape, 301))
    one = runner.moved["sent"] - before
    runner.collect(copies, queries(shape, 302))
    many = runner.moved["sent"] - before - one
    inputs = 302 * int(np.prod(shape)) * 4
    print(f"device: {one:,} bytes sent for one file, {many:,} for sixteen; its rows are {inputs:,}")
    runner.close()


def hand(runner: AdbRunner, path: Path, rows: Queries, folder: Path) -> float:
    """Seconds of adb push, adb shell and adb pull with the program and arguments that the runner uses."""
    place = runner.place
    start = place.install(place.bundle("litert"))
    source = folder / "rows.bin"
    source.write_bytes(rows.x.tobytes())
    adb = ["adb", "-s", runner.serial]
    line = [
        *(*start, "--input", "rows.bin", "--input-type", "float32", "--row", str(rows.x.shape[1])),
        *("--rows", str(len(rows.x)), "--report", "report.json", "--model", path.name, "--output", "out"),
    ]
    subprocess.run([*adb, "shell", f"rm -rf {HAND}; mkdir -p {HAND}"], check=True)
    began = time.perf_counter()
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([*adb, "push", str(source), str(path), HAND], **quiet)  # type: ignore[call-overload]
    subprocess.run([*adb, "shell", f"cd {HAND} && {shlex.join(line)}"], **quiet)  # type: ignore[call-overload]
    for name in ("out", "report.json"):
        subprocess.run([*adb, "pull", f"{HAND}/{name}", str(folder)], **quiet)  # type: ignore[call-overload]
    took = time.perf_counter() - began
    subprocess.run([*adb, "shell", f"rm -rf {HAND}"], check=True)
    return took


def main() -> None:
    """The native runner always, a device where one is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--serial", help="of a device that is ready")
    parser.add_argument("--megabytes", type=int, default=100)
    asked = parser.parse_args()
    print(f"# {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(prefix="edgeprivacy-bench-") as folder:
        if asked.serial:
            device(Path(folder), asked.serial, asked.megabytes)
        else:
            native(Path(folder), asked.rows)


if __name__ == "__main__":
    main()
