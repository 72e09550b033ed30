"""Memory over many conversions and runs in one process tree: a worker makes release after release for hours.

Run it by `make bench`, or: python tests/benchmarks/bench_memory.py [--rounds 100]
Each round fills the network with other weights, writes a float32 and an int8 file, and runs both. Printed is
the resident memory of this process and its children together.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

PAGE = os.sysconf("SC_PAGE_SIZE")


def resident_mib() -> float:
    """Of this process and everything below it."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(status.parent.name)] = int(fields[1])
    tree, grown = {os.getpid()}, True
    while grown:
        grown = False
        for process, parent in parents.items():
            if parent in tree and process not in tree:
                tree.add(process)
                grown = True
    pages = 0
    for process in tree:
        try:
            pages += int(Path(f"/proc/{process}/statm").read_text().split()[1])
        except OSError:
            continue
    return pages * PAGE / 2**20


def convert_and_run(backend: str, rounds: int) -> None:
    """One line for one backend."""
    from edgeprivacy.backends import BACKENDS, open_backend
    from edgeprivacy.backends.base import Compressed
    from edgeprivacy.converters import Request
    from edgeprivacy.device_runner import Queries, open_runner
    from edgeprivacy.recipe import Recipe

    recipe = Recipe.build({"backend": backend, "data": {"source": "rows.npz"}})
    session = open_backend(backend).open(recipe, 30, (446,))
    rows = np.random.default_rng(0).random((500, 446), np.float32)
    queries = Queries(rows, np.arange(500).astype(np.str_), np.zeros(500, np.int64))
    runner = open_runner()
    seen: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1, rounds + 1):
            weights = session.initial_weights(number)
            files = []
            for format in ("float32", "int8"):
                file = Path(folder) / f"{format}{BACKENDS[backend].formats[format]}"
                session.convert(Compressed(weights, Request("float32")), format, rows[:100], file, rows)
                files.append(file)
            runner.collect(files, queries)
            if number in (rounds // 10, rounds // 2, rounds):
                seen[number] = resident_mib()
    said = ", ".join(f"{mib:.0f} MiB after {number}" for number, mib in seen.items())
    first, *_, last = seen.values()
    print(f"{backend}: {said} rounds of 2 files; {last / first:.2f}x", flush=True)


def main() -> None:
    """A process of its own for each backend."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--backend", help="one alone, in this process")
    arguments = parser.parse_args()
    if arguments.backend:
        convert_and_run(arguments.backend, arguments.rounds)
        return
    print(f"# {os.cpu_count()} cores, {platform.machine()}, python {platform.python_version()}")
    for backend in ("tflite", "executorch"):
        command = [sys.executable, __file__, "--backend", backend, "--rounds", str(arguments.rounds)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
