"""Android's own adbd, compiled for this machine from Debian's source package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import IO

from testdevice.packages import Lists, call
from testdevice.place import HERE, Unavailable

SOURCE_PACKAGE = "android-platform-tools"


def build_adbd(lists: Lists, work: Path, root: Path, log: IO[bytes]) -> str:
    """Compile adbd and put it with its libraries into the device's /apex/adbd; the source's version.

    Raises:
        Unavailable: Debian's source is another one than the patch was made for, or it does not compile.
    """
    source = lists.source(SOURCE_PACKAGE, work / "source")
    recipe = HERE / "adbd"
    changes = (source / "debian" / "changelog").read_text(errors="replace")
    found = re.match(r"\S+ \((?:\d+:)?([^)]+)\)", changes)
    version = found[1] if found else "unknown"
    try:
        # Without fuzz: a source that has moved on is to be looked at, not guessed about.
        patch = ["patch", "--batch", "--forward", "--fuzz=0", "--strip=1", "--input", recipe / "adbd.patch"]
        call(patch, log, source)
    except Unavailable as error:
        raise Unavailable(
            f"tests/testdevice/adbd/adbd.patch does not fit {SOURCE_PACKAGE} {version}: {error}"
        ) from None
    objects = work / "objects"
    objects.mkdir()
    settings = [f"SOURCE={source}", f"RECIPE={recipe}", f"VERSION={version.split('-')[0]}"]
    jobs = f"--jobs={os.cpu_count() or 1}"
    call(["make", "--silent", jobs, f"--file={recipe / 'build.mk'}", *settings, "adbd"], log, objects)

    folder = root / "apex" / "adbd"
    (folder / "lib").mkdir(parents=True)
    program = objects / "adbd"
    for library in _libraries(program):
        shutil.copyfile(library, folder / "lib" / library.name)
        (folder / "lib" / library.name).chmod(0o755)
    shutil.copyfile(program, folder / "adbd")
    (folder / "adbd").chmod(0o755)
    return version


def _libraries(program: Path) -> list[Path]:
    """All that a program loads, and the loader itself."""
    loader = Path("/lib64/ld-linux-x86-64.so.2")
    android = f"/usr/lib/{os.uname().machine}-linux-gnu/android"
    command = [str(loader), "--library-path", android, "--list", str(program)]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    if "not found" in said or not said:
        raise Unavailable(f"the libraries of adbd are not all there: {said.strip()[:200]}")
    found = [Path(match) for match in re.findall(r"=> (/\S+)", said)]
    return [*(path for path in found if path.name != loader.name), loader]
