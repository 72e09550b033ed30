"""A content-addressed cache: a key says all that an entry depends on, an entry is whole or not there."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgeprivacy.errors import StorageError
from edgeprivacy.files import sha256_json


def default_cache_folder() -> Path:
    """$XDG_CACHE_HOME/edgeprivacy, or ~/.cache/edgeprivacy."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "edgeprivacy"


class Cache:
    """Folders named by the hash of their key. Several processes may use one cache at once: who finishes first
    keeps the entry, the others drop their equal copy.

    Args:
        folder: Where entries live. Use a fresh temporary folder for a run without cache.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def key(self, stage: str, content: Mapping[str, Any]) -> str:
        """Key of an entry: a hash of the stage's name and of everything it depends on (JSON values)."""
        return sha256_json({"stage": stage, **content})

    def entry(self, stage: str, key: str, make: Callable[[Path], None]) -> tuple[Path, bool]:
        """The folder of an entry, made first if it is not there.

        Args:
            make: Fills an empty folder; only a completed one is ever seen under its name.

        Returns:
            The folder, and whether it was made now.

        Raises:
            StorageError: The disk is full or not writable.
        """
        final = self.folder / stage / key[:2] / key
        if final.is_dir():
            return final, False
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            work = Path(tempfile.mkdtemp(prefix=f".{key[:8]}-", dir=final.parent))
        except OSError as error:
            raise StorageError(
                f"cannot write to the cache {self.folder}",
                got=error.strerror,
                hint="free some space, or set XDG_CACHE_HOME to another folder",
            ) from None
        try:
            make(work)
            try:
                work.rename(final)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageError(
                    f"no space left for the cache {self.folder}",
                    hint="free some space, or set XDG_CACHE_HOME to another folder; finished work is kept",
                ) from None
            raise
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return final, True

    def sweep(self) -> int:
        """Remove what killed processes left half-made (older than a day); returns how many."""
        import time

        removed = 0
        for leftover in self.folder.glob("*/*/.*-*"):
            try:
                if time.time() - leftover.stat().st_mtime > 86400:
                    shutil.rmtree(leftover, ignore_errors=True)
                    removed += 1
            except OSError:
                continue
        return removed


def read_meta(entry: Path) -> dict[str, Any]:
    """The meta.json of an entry."""
    content: dict[str, Any] = json.loads((entry / "meta.json").read_text())
    return content
