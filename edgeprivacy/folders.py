"""An output folder that belongs to one recipe and to one process at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeprivacy.errors import StorageError, UsageError

try:
    import fcntl
except ImportError:  # not on every platform: there the folder is not locked
    fcntl = None  # type: ignore[assignment]


@contextmanager
def output_folder(path: Path, identity: str) -> Iterator[Path]:
    """Hold a folder while the block runs. The kernel drops the lock with its process, however that ends.

    Args:
        identity: What the folder is for; written on first use, compared later.

    Raises:
        UsageError: The folder is for something else, in use, or not empty and not ours.
        StorageError: It cannot be written.
    """
    marker, lock_path = path / ".edgeprivacy", path / ".lock"
    try:
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path} is no folder", hint="choose another --out")
        path.mkdir(parents=True, exist_ok=True)
        if not marker.exists() and any(entry.name != ".lock" for entry in path.iterdir()):
            raise UsageError(f"the folder {path} holds other files", hint="choose an empty or a new --out")
        descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StorageError(f"cannot use the folder {path}", got=error.strerror) from None
    try:
        if fcntl is not None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
                raise UsageError(
                    f"another process works in {path}",
                    got=f"process {holder}",
                    hint="wait for it, or choose another --out",
                ) from None
        # Empty where a process was killed between creating and filling it.
        holds = marker.read_text().strip() if marker.exists() else ""
        if holds not in ("", identity):
            raise UsageError(
                f"the folder {path} belongs to another recipe",
                got=holds,
                allowed=identity,
                hint="choose another --out, or remove that folder",
            )
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            if not holds:
                marker.write_text(identity + "\n")
        except OSError as error:
            raise StorageError(f"cannot write into {path}", got=error.strerror) from None
        yield path
    finally:
        os.close(descriptor)
