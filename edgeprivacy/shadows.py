"""Many releases: the target and its shadows, in one-thread worker processes, resumable through the cache."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgeprivacy.backends.base import open_backend
from edgeprivacy.cache import Cache
from edgeprivacy.data.dataset import Dataset
from edgeprivacy.data.splits import Split
from edgeprivacy.device_runner import open_runner
from edgeprivacy.errors import RunnerError
from edgeprivacy.recipe import Recipe
from edgeprivacy.release import Release, ReleaseMaker, steps_per_release

Progress = Callable[[int, int, str], None]
_POLL_SECONDS = 0.25


@dataclass(frozen=True)
class _Work:
    """What every worker needs; sent with each task, large arrays by memory map."""

    recipe: Recipe
    data: Dataset
    split: Split
    cache_folder: Path
    device: str
    events: Path
    log: Path
    parent: int


def make_releases(
    recipe: Recipe,
    data: Dataset,
    split: Split,
    cache_folder: Path,
    device: str = "host",
    jobs: int | None = None,
    progress: Progress = lambda done, total, text: None,
) -> list[Release]:
    """The target (index 0) and all shadows of a recipe, in order.

    Args:
        jobs: Worker processes; default one a core. Each uses one thread.
        progress: Called with steps done, steps in all, and the last finished step.

    Raises:
        EdgePrivacyError: What the first failing release raised.
        RunnerError: A worker died (killed, or out of memory).
    """
    from joblib import Parallel, delayed, parallel_config
    from joblib.externals.loky import get_reusable_executor
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    count = recipe.audit.shadows + 1
    jobs = min(count, jobs or available_cores())
    total = count * steps_per_release(recipe)
    with tempfile.TemporaryDirectory(prefix="edgeprivacy-run-") as scratch:
        events, log = Path(scratch) / "events", Path(scratch) / "log"
        events.touch()
        work = _Work(recipe, data, split, cache_folder, device, events, log, os.getpid())
        watcher = _ProgressWatcher(events, total, progress)
        try:
            with watcher, parallel_config(backend="loky", inner_max_num_threads=1):
                releases = Parallel(n_jobs=jobs, batch_size=1, pre_dispatch="2*n_jobs", max_nbytes="1M")(
                    delayed(_make_one)(work, index) for index in range(count)
                )
        except TerminatedWorkerError:
            raise RunnerError(
                "a worker process died (killed, or out of memory)",
                hint="finished releases are kept; run again, perhaps with fewer --jobs",
            ) from None
        except BaseException:
            # On an error or Ctrl-C nobody waits for the releases still in work.
            get_reusable_executor().shutdown(wait=False, kill_workers=True)
            raise
        finally:
            get_reusable_executor().shutdown(wait=True)
    return list(releases)


def available_cores() -> int:
    """Cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every platform
        return os.cpu_count() or 1


_maker: tuple[str, ReleaseMaker] | None = None
_prepared = False


def _make_one(work: _Work, index: int) -> Release:
    global _maker
    _prepare_worker(work)
    identity = f"{work.recipe.id} {work.split.sha256} {work.data.sha256}"
    if _maker is None or _maker[0] != identity:
        backend = open_backend(work.recipe.backend)
        session = backend.open(work.recipe, work.data.classes, work.data.input_shape)
        session.check()
        _maker = (
            identity,
            ReleaseMaker(
                work.recipe,
                session,
                backend.versions(),
                work.data,
                work.split,
                open_runner(work.device),
                Cache(work.cache_folder),
                step=lambda text: _announce(work.events, text),
            ),
        )
    return _maker[1].make(index)


def _announce(events: Path, text: str) -> None:
    # One short line appended at once: whole even when several workers write.
    with events.open("a") as stream:
        stream.write(f"{text}\n")


def _prepare_worker(work: _Work) -> None:
    """Once a worker: die with the parent, leave Ctrl-C to it, keep native log lines off the terminal."""
    global _prepared
    if _prepared:
        return
    _prepared = True
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with, args=(work.parent,), daemon=True).start()
    sys.stderr.flush()
    descriptor = os.open(work.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _die_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    os._exit(1)


class _ProgressWatcher:
    """A thread that counts the workers' finished steps and reports them."""

    def __init__(self, events: Path, total: int, progress: Progress) -> None:
        self._events, self._total, self._progress = events, total, progress
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _ProgressWatcher:
        self._progress(0, self._total, "")
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        seen = 0
        with self._events.open() as stream:
            while True:
                stopping = self._stop.wait(_POLL_SECONDS)
                lines = stream.read().splitlines()
                if lines:
                    seen += len(lines)
                    self._progress(min(seen, self._total), self._total, lines[-1])
                if stopping:
                    return


__all__ = ["available_cores", "make_releases"]
