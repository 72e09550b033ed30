"""`tests/testdevice/prepare`: make sure that the test device is built and boots; a line a step.

Where it cannot be made, the reason goes to a file that the tests read, and they skip with it; with
EDGEPRIVACY_TESTDEVICE_REQUIRED=1 that is an error. A second call only looks whether it boots.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from testdevice import packages
from testdevice.build_adbd import build_adbd
from testdevice.build_root import build_root
from testdevice.device import TestDevice
from testdevice.place import Unavailable, built_folder, cache_folder, reason_file, required


@contextmanager
def _step(name: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    print(f"test device: {name} ({time.monotonic() - began:.1f} s)", flush=True)


def _prepare(log: IO[bytes]) -> None:
    packages.check_distribution()
    if os.geteuid():
        raise Unavailable("only root can give the test device its users")
    built = built_folder()
    wanted = [*packages.TO_USE, *(packages.TO_BUILD if not built.is_dir() else ())]
    if lacking := packages.missing(wanted):
        with _step(f"{len(lacking)} packages installed"):
            packages.install(lacking, log)
    if not built.is_dir():
        _build(built, log)
    with _step(f"boots, at {built}"), TestDevice(root=built / "root", data_mb=16):
        pass


def _build(built: Path, log: IO[bytes]) -> None:
    work = Path(tempfile.mkdtemp(prefix=".building-", dir=built.parent))
    try:
        made = work / "made"
        root = made / "root"
        root.mkdir(parents=True)
        with _step("lists of Debian's arm64 and source packages"):
            lists = packages.Lists(work / "apt", log)
        with _step("arm64 file system"):
            versions = build_root(lists, work, root, log)
        with _step("adbd compiled"):
            versions.append(f"adbd {build_adbd(lists, work, root, log)}")
        (made / "versions.txt").write_text("\n".join(versions) + "\n")
        made.rename(built)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def main() -> int:
    """Exit code: 0, or 1 where the device is required and cannot be had."""
    os.umask(0o022)
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock, (folder / "prepare.log").open("ab") as log:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                _prepare(log)
            except Unavailable as error:
                reason_file().write_text(f"{error}\n")
                raise
            reason_file().unlink(missing_ok=True)
    except (Unavailable, OSError) as error:
        print(f"test device: not available: {error}", file=sys.stderr)
        return 1 if required() else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
