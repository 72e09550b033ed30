"""Time and memory of every attack of the set `release` on five versions of one model, alone and together.

    python tests/benchmarks/bench_release_set.py [ROWS SHADOWS VERSIONS CLASSES]

Made-up answers: 10,000 rows, 16 shadows, 5 versions, 10 classes, two workers. Attacks that ask a file again
(SAMIA, label-only) are in no such set. Every model stands as the target in turn, and every interval is taken,
as in an audit. Prints the slowest attacks, the whole time, and the memory of all processes together.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgeprivacy.attacks import Population, Signals, attacks
from edgeprivacy.attacks.sets import members
from edgeprivacy.measuring import FPR_LIMITS, measure_attacks
from edgeprivacy.results import ArtifactResult, Utility
from edgeprivacy.version_sets import PlannedSet, measure_set, of_one_version, plan_sets
from edgeprivacy.workers import available_cores, parallel_map

RESAMPLES = 1000
POPULATION = 1000
Task = tuple[int, tuple[str, ...]] | PlannedSet


def write_answers(folder: Path, rows: int, models: int, versions: int, classes: int) -> None:
    """Answers that tell a little of membership; versions share what rows are like."""
    rng = np.random.default_rng(0)
    trained = rng.random((models, rows)) < 0.5
    labels = rng.integers(0, classes, rows + POPULATION)
    inside = np.concatenate([trained, np.zeros((models, POPULATION), bool)], axis=1)
    like = rng.normal(size=(1, rows + POPULATION, classes))
    np.savez(folder / "rows.npz", trained=trained, labels=labels)
    for version in range(versions):
        logits = like + rng.normal(size=(models, rows + POPULATION, classes))
        logits[:, np.arange(rows + POPULATION), labels] += 2.0 + inside
        shares = np.exp(logits)
        shares /= shares.sum(axis=2, keepdims=True)
        np.save(folder / f"{version}.npy", shares.astype(np.float32))


def signals_of(folder: Path, version: int) -> Signals:
    """What an attacker holds of one version."""
    rows = np.load(folder / "rows.npz")
    trained, labels = rows["trained"], rows["labels"]
    answers, n = np.load(folder / f"{version}.npy", mmap_mode="r"), trained.shape[1]
    population = Population(np.asarray(answers[:, n:]), labels[n:], 1e-7)
    return Signals(np.asarray(answers[:, :n]), labels[:n], trained, np.ones_like(trained), 1e-7, population)


def work(folder: Path, task: Task) -> tuple[str, float, int]:
    """One task in a worker: its name, seconds, and the most memory that the worker ever took, in MiB."""
    started = time.perf_counter()
    if isinstance(task, PlannedSet):
        names = [f"v{position}" for position in task.positions]
        of_all = [signals_of(folder, position) for position in task.positions]
        measure_set(task, names, of_all, RESAMPLES, 0, FPR_LIMITS)
        name = f"{task.attacks[0]} on {len(names)}"
    else:
        version, attacked = task
        measure_attacks(signals_of(folder, version), attacked, RESAMPLES, 0)
        name = attacked[0]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return name, time.perf_counter() - started, peak


def main() -> None:
    """Print the table."""
    rows, shadows, versions, classes = (int(n) for n in sys.argv[1:] or ("10000", "16", "5", "10"))
    every = members("release")
    results = [_artifact(version, versions) for version in range(versions)]
    sets = [one for planned in plan_sets(results, every) for one in planned.one_by_one()]
    alone: list[Task] = [(v, (name,)) for name in of_one_version(every) for v in range(versions)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_answers(folder, rows, shadows + 1, versions, classes)
        started = time.perf_counter()
        done = parallel_map(partial(work, folder), [*sets, *alone], None)
        spent = time.perf_counter() - started
    by_name: dict[str, float] = {}
    for name, seconds, _ in done:
        by_name[name] = by_name.get(name, 0.0) + seconds
    for name in sorted(by_name, key=lambda name: -by_name[name])[:12]:
        print(f"  {name:32s} {by_name[name]:6.1f} s")
    cores = available_cores()
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(
        f"release set: {len(every)} attacks, {rows} rows x {shadows} shadows x {versions} versions x "
        f"{classes} classes, every model as the target in turn: {spent:.0f} s on {cores} cores "
        f"({sum(by_name.values()):.0f} s of work), at most {own + cores * max(p for _, _, p in done)} MiB"
    )


def _artifact(version: int, versions: int) -> ArtifactResult:
    """Version 0 is the original; the others are its compressed files, ever smaller."""
    about: dict[str, Any] = {"backend": "tflite", "format": "float32", "file": f"v{version}", "sha256": ""}
    role = "original" if version == 0 else "candidate"
    return ArtifactResult(
        f"v{version}", role, defense="none", size_bytes=0, gzip_bytes=versions - version, utility=Utility(),
        parity=None, attacks=(), **about,
    )  # fmt: skip


if __name__ == "__main__":
    assert attacks.names()
    main()
