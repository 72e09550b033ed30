"""Steps that worker processes finish, told to whoever waits: a line a step in a file that all append to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

Progress = Callable[[int, int, str], None]
_POLL_SECONDS = 0.25


def announce(events: Path, text: str) -> None:
    """In a worker: a step is done."""
    # One short line appended at once: whole even when several workers write.
    with events.open("a") as stream:
        stream.write(f"{text}\n")


class ProgressWatcher:
    """A thread that counts the workers' finished steps and reports them.

    Args:
        events: The file that workers append to.
        total: Steps in all.
        progress: Called with steps done, steps in all, and the last finished step.
    """

    def __init__(self, events: Path, total: int, progress: Progress) -> None:
        self._events, self._total, self._progress = events, total, progress
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> ProgressWatcher:
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
