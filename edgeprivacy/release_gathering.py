"""What attacks ask the files of a release audit beyond its rows: asked once, kept in the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from edgeprivacy.attacks import attacks
from edgeprivacy.cache import Cache
from edgeprivacy.data.dataset import Dataset
from edgeprivacy.data.splits import Split
from edgeprivacy.device_collecting import Column
from edgeprivacy.device_runner import Queries, Runner, open_runner
from edgeprivacy.files import read_npz, sha256_arrays, sha256_file, write_npz
from edgeprivacy.gathering import gather, query_attacks
from edgeprivacy.scratch import scratch_folder
from edgeprivacy.seeding import derive_seed
from edgeprivacy.worker_progress import Progress, ProgressWatcher, announce
from edgeprivacy.workers import parallel_map

Asked = dict[tuple[Path, ...], dict[str, Path]]
"""By the confidences of one artifact, the target's and then every shadow's: each attack's answers."""


@dataclass(frozen=True)
class _Work:
    """What every worker needs; the rows wait in a file beside."""

    rows: Path
    rows_hash: str
    cache_folder: Path
    events: Path
    seed: int


def ask_files(
    columns: Sequence[Column],
    data: Dataset,
    split: Split,
    names: Sequence[str],
    cache: Cache,
    seed: int,
    jobs: int | None = None,
    progress: Progress = lambda done, total, text: None,
) -> Asked:
    """Ask all files of all columns what the named attacks want to know of the pool's rows.

    Args:
        columns: Where files are run; the host's releases among them.
        names: Attacks; those that ask nothing further need nothing here.
        seed: The recipe's.

    Raises:
        DataError, RunnerError: See `gathering.gather`.
    """
    asking = query_attacks(names)
    if not asking or data.label_sets:  # then these attacks say themselves why they cannot run
        return {}
    rows = data.take(split.roles["pool"])
    rows_hash = sha256_arrays(rows.x, rows.y)
    tasks = []
    for column in columns:
        for position in range(len(column.releases[0].artifacts)):
            made = [release.artifacts[position] for release in column.releases]
            files = tuple(artifact.file for artifact in made)
            tasks += [(tuple(m.confidences for m in made), files, name, column.runner) for name in asking]
    with scratch_folder("asked") as folder:
        np.savez(folder / "rows.npz", allow_pickle=False, x=rows.x, y=rows.y)
        (folder / "events").touch()
        work = _Work(
            folder / "rows.npz", rows_hash, cache.folder, folder / "events", derive_seed(seed, "ask")
        )
        with ProgressWatcher(work.events, len(tasks), progress):
            here = [task for task in tasks if task[3].name != "host"]  # a device is asked by its one client
            found = {task[:3]: _ask(work, task[3], task[1], task[2]) for task in here}
            hosted = [task for task in tasks if task[3].name == "host"]
            answers = (
                parallel_map(partial(_ask_here, work), [task[1:3] for task in hosted], jobs) if hosted else []
            )
            found |= {task[:3]: path for task, path in zip(hosted, answers, strict=True)}
    asked: Asked = {}
    for (confidences, _, name), path in found.items():
        asked.setdefault(confidences, {})[name] = path
    return asked


def _ask_here(work: _Work, task: tuple[tuple[Path, ...], str]) -> Path:
    """In a worker."""
    files, name = task
    return _ask(work, open_runner("host"), files, name)


def _ask(work: _Work, runner: Runner, files: Sequence[Path], name: str) -> Path:
    cache = Cache(work.cache_folder)
    key = cache.key(
        "asked",
        {
            "attack": [name, attacks[name].version],
            "files": [sha256_file(file) for file in files],
            "rows": work.rows_hash,
            "runner": runner.identity(files[0]),
            "seed": work.seed,
        },
    )

    def make(folder: Path) -> None:
        rows = read_npz(work.rows)
        queries = Queries(rows["x"], np.arange(len(rows["y"])).astype(np.str_), rows["y"])
        found = gather([name], runner, files, queries, seed=work.seed)
        write_npz(folder / "answers.npz", answers=found[name])

    entry, _ = cache.entry("asked", key, make)
    announce(work.events, f"{name} asked {files[0].parent.name[:8]}")
    return entry / "answers.npz"
