"""A scratch folder that is swept by the next run when its owner was killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgeprivacy.errors import StorageError

_PREFIX = "edgeprivacy-"
_LOCK = "lock"
_TRIES = 5


@contextmanager
def scratch_folder(kind: str) -> Iterator[Path]:
    """A folder edgeprivacy-KIND-* for one run.

    The lock in it is the kernel's: it is free as soon as the owner is dead.

    Raises:
        StorageError: The folder for temporary files is full or not writable.
    """
    sweep()
    try:
        folder, lock = _locked(f"{_PREFIX}{kind}-")
    except OSError as error:
        raise StorageError(
            f"cannot write temporary files in {tempfile.gettempdir()}",
            got=error.strerror,
            hint="free some space or set TMPDIR",
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _locked(prefix: str) -> tuple[Path, int]:
    """A new folder and the descriptor that holds its lock."""
    for attempt in range(_TRIES):
        folder = Path(tempfile.mkdtemp(prefix=prefix))
        try:
            lock = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A sweep that came and went between the two lines leaves a lock that stands in no folder.
            (folder / _LOCK).stat()
        except (BlockingIOError, FileNotFoundError):
            # Another run's sweep came between the lines.
            if attempt == _TRIES - 1:
                raise
            continue
        return folder, lock
    raise AssertionError("the last attempt returns or raises")


def sweep() -> None:
    """Remove scratch folders of this user whose owner died."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if folder.stat().st_uid != os.getuid():
                continue
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
