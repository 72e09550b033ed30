"""Worker processes: one thread each, quiet, gone with their parent."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from edgeprivacy.errors import RunnerError
from edgeprivacy.scratch import scratch_folder

Item = TypeVar("Item")
Result = TypeVar("Result")
_POLL_SECONDS = 0.25


def available_cores() -> int:
    """Cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every platform
        return os.cpu_count() or 1


def parallel_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    jobs: int | None,
    finished_one: Callable[[int], None] = lambda position: None,
) -> list[Result]:
    """Results in the order of the items, from `jobs` worker processes (default: one a core).

    On an error or Ctrl-C the workers are ended at once. `finished_one` is called here with the position of
    each item that is done, as it is done.

    Raises:
        RunnerError: A worker died (killed, or out of memory).
        Exception: What the first failing item raised, as soon as it is known.
    """
    from concurrent.futures import as_completed

    from joblib.externals.loky import get_reusable_executor
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    work = list(items)
    _start_trackers()
    with scratch_folder("log") as folder:
        log = folder / "log"
        executor = get_reusable_executor(
            max_workers=max(1, min(len(work), jobs or available_cores())),
            reuse=False,
            initializer=_prepare,
            initargs=(os.getpid(), log),
            env={"OMP_NUM_THREADS": "1"},
        )
        finished = False
        try:
            # Not executor.map: that cancels what waits when an item fails. loky's manager thread then dies of
            # the cancelled futures without ending the workers, and the program never ends.
            with _ctrl_c_held(), _stdout_into(log):  # workers start here
                futures = [executor.submit(function, item) for item in work]
            positions = {future: position for position, future in enumerate(futures)}
            for future in as_completed(futures):
                future.result()  # raises what the item raised
                finished_one(positions[future])
            results = [future.result() for future in futures]
            finished = True
        except SystemExit as error:
            raise RunnerError("a worker was told to exit", got=error.code) from None
        except TerminatedWorkerError:
            raise RunnerError(
                "a worker process died (killed, or out of memory)",
                got=_could_not_begin(log),
                hint="finished releases are kept; run again, perhaps with fewer --jobs",
            ) from None
        finally:
            if finished:
                executor.shutdown(wait=True)
            else:
                with _manager_unheard():
                    executor.shutdown(wait=True, kill_workers=True)
    return results


def _start_trackers() -> None:
    """Start the helper processes that remove left semaphores: later, they would end a hold on signals.

    They print no warnings. Their only ones are of semaphores that a thread of loky's removed in the moment
    the program ended, too late to tell them.
    """
    if os.name != "posix":
        return
    from multiprocessing import resource_tracker

    from joblib.externals.loky.backend import resource_tracker as loky_tracker

    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = "ignore"
    try:
        resource_tracker.ensure_running()
        loky_tracker.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = before


@contextmanager
def _ctrl_c_held() -> Iterator[None]:
    """Put off Ctrl-C until the block ends. Processes that start in it never see any: a starting interpreter
    would print a traceback."""
    if not hasattr(signal, "pthread_sigmask"):  # not on every platform
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _stdout_into(log: Path) -> Iterator[None]:
    """Processes that start in it have the log for their stdout from the first moment. One that cannot begin,
    because Ctrl-C has just taken from it what it was to read, prints a traceback: not among our results."""
    try:
        ours = os.dup(1)
    except OSError:  # it is closed
        yield
        return
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(descriptor, 1)
        os.close(descriptor)
        yield
    finally:
        os.dup2(ours, 1)
        os.close(ours)


def _could_not_begin(log: Path) -> str | None:
    """The last line of the traceback of a worker that did not come so far as to work."""
    said = log.read_text(errors="replace") if log.exists() else ""
    _, _, traceback = said.partition(" failed with traceback: ")
    lines = [line for line in traceback.splitlines() if line.strip("- ")]
    return lines[-1][:300] if lines else None


@contextmanager
def _manager_unheard() -> Iterator[None]:
    """Keep a traceback of loky's manager thread off the terminal: once it has killed the workers it looks for
    the items that wait, which it has just thrown away, and dies of not finding them."""
    before = threading.excepthook

    def heard(failure: threading.ExceptHookArgs) -> None:
        if failure.thread is None or failure.thread.name != "ExecutorManagerThread":
            before(failure)

    threading.excepthook = heard
    try:
        yield
    finally:
        threading.excepthook = before


def _prepare(parent: int, log: Path) -> None:
    """Once a worker: die with the parent, leave Ctrl-C to it, keep native log lines and what a user's code
    prints off the terminal and out of the results on stdout."""
    from joblib.externals.loky import process_executor

    # loky takes a worker that imports a second framework for a leak, warns the user, and starts another.
    process_executor._USE_PSUTIL = False
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _die_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    os._exit(1)
