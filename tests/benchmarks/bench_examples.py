"""The CIFAR-10 example as it stands (half an hour on two cores), where the images are there: wall time,
memory, and what the audit found.

Run it by `make bench`, or: python tests/benchmarks/bench_examples.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
ARCHIVE = ROOT.parent / "shared" / "data" / "cifar10-jpeg.tar.xz"


def main() -> None:
    """Print one line an artifact."""
    if not ARCHIVE.is_file():
        print("cifar: skipped, the images are not beside the project")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with tarfile.open(ARCHIVE) as stream:
            stream.extractall(folder, filter="data")
        environment = {**os.environ, "CIFAR10": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
        program = Path(sys.executable).parent / "edgeprivacy"
        subprocess.run(
            [program, "compress", "examples/cifar/recipe.toml", "--out", str(folder / "out")],
            env=environment,
            cwd=ROOT,
            check=True,
        )
        audit = json.loads((folder / "out" / "audit.json").read_text())
    environment_block = audit["environment"]
    print(
        f"cifar: {environment_block['seconds']} s on {environment_block['cores']} cores, "
        f"peak memory {environment_block['peak_memory_mib']} MiB, {environment_block['packages']}"
    )


if __name__ == "__main__":
    main()
