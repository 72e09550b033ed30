"""Many releases: the target and its shadows, in one-thread worker processes, resumable through the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from edgeprivacy.backends.table import open_backend
from edgeprivacy.cache import Cache
from edgeprivacy.data.dataset import Dataset
from edgeprivacy.data.splits import Split
from edgeprivacy.device_runner import open_runner
from edgeprivacy.errors import StorageError
from edgeprivacy.recipe import Recipe
from edgeprivacy.release import MadeArtifact, Release, ReleaseMaker, steps_per_release
from edgeprivacy.scratch import scratch_folder
from edgeprivacy.worker_progress import Progress, ProgressWatcher, announce
from edgeprivacy.workers import parallel_map


@dataclass(frozen=True)
class _Work:
    """What every worker needs; small, for it is sent with each task. The rows wait in a file beside."""

    recipe: Recipe
    split: Split
    cache_folder: Path
    scratch: Path
    classes: int
    class_names: tuple[str, ...]
    source: str

    @property
    def events(self) -> Path:
        """Where workers append a line for every finished step."""
        return self.scratch / "events"

    def save_rows(self, data: Dataset) -> None:
        """Write the rows once for all workers.

        Raises:
            StorageError: There is no room for them.
        """
        try:
            for name, array in (("x", data.x), ("y", data.y), ("ids", data.ids)):
                np.save(self.scratch / f"{name}.npy", array, allow_pickle=False)
        except OSError as error:  # numpy's own has no number that would tell a full disk from others
            raise StorageError(
                f"cannot write the rows for the workers into {self.scratch.parent}",
                got=error.strerror or error,
                hint="free some space, or set TMPDIR to another folder",
            ) from None

    def rows(self) -> Dataset:
        """The rows, as a memory map that all workers share."""
        x, y, ids = (
            np.load(self.scratch / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in ("x", "y", "ids")
        )
        return Dataset(x, np.asarray(y), np.asarray(ids), self.classes, self.class_names, self.source)


def make_releases(
    recipe: Recipe,
    data: Dataset,
    split: Split,
    cache_folder: Path,
    jobs: int | None = None,
    progress: Progress = lambda done, total, text: None,
) -> list[Release]:
    """The target (index 0) and all shadows of a recipe, in order; each with the files of all versions and
    backends, as `every_artifact` has them, and what these answered on the host.

    Args:
        jobs: Worker processes; default one a core. Each uses one thread.
        progress: Called with steps done, steps in all, and the last finished step.

    Raises:
        EdgePrivacyError: What the first failing release raised.
        RunnerError: A worker died (killed, or out of memory).
    """
    count = recipe.audit.shadows + 1
    with scratch_folder("run") as folder:
        work = _Work(recipe, split, cache_folder, folder, data.classes, data.class_names, data.source)
        work.events.touch()
        work.save_rows(data)
        kinds = [
            (number, backend) for number, _ in enumerate(recipe.all_versions) for backend in recipe.backends
        ]
        steps = count * sum(steps_per_release(recipe.all_versions[n], backend) for n, backend in kinds)
        tasks = [(number, backend, index) for number, backend in kinds for index in range(count)]
        with ProgressWatcher(work.events, steps, progress):
            made = parallel_map(partial(_make_one, work), tasks, jobs)
    return [_together(made[index::count]) for index in range(count)]


def _together(releases: Sequence[Release]) -> Release:
    """One membership's releases by several backends and of several versions, as one."""
    every = [made for release in releases for made in release.artifacts]
    return Release(
        releases[0].index,
        # The original of a later version is that of the first.
        tuple({made.plan.name: made for made in reversed(every)}[name] for name in _names(every)),
        tuple(arm for release in releases for arm in release.trained),
        tuple(arm for release in releases for arm in release.cached),
    )


def _names(made: Sequence[MadeArtifact]) -> list[str]:
    return list(dict.fromkeys(artifact.plan.name for artifact in made))


_makers: dict[tuple[Path, int, str], ReleaseMaker] = {}


def _make_one(work: _Work, task: tuple[int, str, int]) -> Release:
    """In a worker: open a backend on its first release of a version, then make releases with it."""
    version, backend, index = task
    maker = (work.scratch, version, backend)
    if maker not in _makers:
        _makers.clear()  # the releases of one backend and version come one after another
        data = work.rows()
        recipe = work.recipe.all_versions[version]
        _makers[maker] = ReleaseMaker(
            recipe,
            backend,
            lambda: open_backend(backend).open(recipe, data.classes, data.input_shape, data.label_sets),
            data,
            work.split,
            open_runner("host"),
            Cache(work.cache_folder),
            step=lambda text: announce(work.events, text),
        )
    return _makers[maker].make(index)


__all__ = ["Progress", "make_releases"]
