"""A run's scratch folder is there as long as the run, whatever other runs sweep meanwhile."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from edgeprivacy import scratch


def test_a_folder_that_was_swept_before_its_lock_was_held_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    lock = fcntl.flock
    swept: list[Path] = []

    def flock(descriptor: int, how: int) -> Any:
        # Another run's sweep comes, and goes, right before the first lock is taken.
        if not swept:
            swept.extend(tmp_path.glob("edgeprivacy-test-*"))
            shutil.rmtree(swept[0])
        return lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with scratch.scratch_folder("test") as folder:
        assert swept and folder not in swept
        (folder / "ring").write_bytes(b"rows")
        scratch.sweep()
        assert (folder / "ring").read_bytes() == b"rows"
    assert not list(tmp_path.iterdir())
