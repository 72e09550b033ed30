"""A worker makes many releases with one compiled network, and casts their files in one mold: each file is,
to the last byte, the one of a process that makes nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgeprivacy.backends.table import BACKENDS

PROGRAM = """
import sys
from pathlib import Path

from edgeprivacy.backends.table import open_backend
from edgeprivacy.cache import Cache
from edgeprivacy.compressing import prepare
from edgeprivacy.device_runner import open_runner
from edgeprivacy.files import sha256_file
from edgeprivacy.recipe import Recipe, Run
from edgeprivacy.release import ReleaseMaker

backend, folder, *numbers = sys.argv[1:]
recipe = Recipe.build({
    "backend": backend, "training": {"epochs": 3}, "prune": {"iterations": 2, "finetune_epochs": 2},
    "defense": {"name": "wemem:swmr"}, "compare": [{"name": "none"}],
    "formats": ["float32", "int8"], "audit": {"shadows": 4},
})
source, split = prepare(recipe, Run())
data = source.pool
opened = open_backend(backend).open(recipe, data.classes, data.input_shape)
maker = ReleaseMaker(
    recipe, backend, lambda: opened, data, split, open_runner("host"), Cache(Path(folder))
)
for number in map(int, numbers):
    for made in maker.make(number).artifacts:
        print(number, made.plan.name, sha256_file(made.file))
"""


def files(backend: str, folder: Path, *releases: int) -> dict[tuple[str, str], str]:
    """Hash of every file, from a process that makes these releases in this order."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, backend, str(folder), *map(str, releases)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    return {(number, name): digest for number, name, digest in lines}


@pytest.mark.parametrize("backend", BACKENDS)
def test_made_together_equals_made_alone(backend: str, tmp_path: Path) -> None:
    # Two arms a release: the second file of a format proves its mold, the others are cast.
    together = files(backend, tmp_path / "together", 0, 1, 2)
    alone = files(backend, tmp_path / "alone", 2)
    assert len(together) == 3 * len(alone) and len(alone) == 5
    assert len(set(together.values())) == len(together)
    assert {key: digest for key, digest in together.items() if key[0] == "2"} == alone
