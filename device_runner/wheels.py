"""Libraries out of a wheel for another machine, fetched by pip and checked against the wheel's RECORD."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from edgeprivacy.cache import Cache, default_cache_folder
from edgeprivacy.errors import RunnerError

_SECONDS = 600


def fetched_wheel(
    package: str, version: str, platforms: Sequence[str], wanted: Sequence[str]
) -> tuple[Path, ...]:
    """Files of a package's wheel for another platform, from the cache or fetched now.

    Args:
        platforms: pip's tags, tried in order.
        wanted: Paths inside the wheel.

    Raises:
        RunnerError: pip cannot get it, or it does not hold what it should.
    """
    kept = Cache(default_cache_folder())
    key = kept.key("wheels", {"package": package, "version": version, "platforms": list(platforms)})

    def make(folder: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="edgeprivacy-wheel-") as work:
            wheel = _download(package, version, platforms, Path(work))
            for name, content in _read(wheel, wanted).items():
                (folder / Path(name).name).write_bytes(content)

    entry, _ = kept.entry("wheels", key, make)
    return tuple(entry / Path(name).name for name in wanted)


def _download(package: str, version: str, platforms: Sequence[str], work: Path) -> Path:
    said = ""
    for platform in platforms:
        command = [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"),
            *("--only-binary=:all:", "--python-version", f"{sys.version_info[0]}.{sys.version_info[1]}"),
            *("--platform", platform, "--dest", str(work), f"{package}=={version}"),
        ]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            said = f"no answer in {_SECONDS} s"
            continue
        if done.returncode == 0 and (found := list(work.glob("*.whl"))):
            return found[0]
        lines = [line for line in done.stderr.splitlines() if "ERROR" in line] or done.stderr.splitlines()
        said = lines[-1] if lines else f"exit code {done.returncode}"
    raise RunnerError(
        f"{package} {version} for {platforms[0].split('_', 3)[-1]} cannot be fetched",
        got=said[:300],
        hint="pip must reach a registry once; or put the wheel into a folder and set PIP_FIND_LINKS to it",
    )


def _read(wheel: Path, wanted: Sequence[str]) -> dict[str, bytes]:
    """The wanted members, as RECORD says they are."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            (record,) = [name for name in archive.namelist() if name.endswith(".dist-info/RECORD")]
            hashes = {row[0]: row[1] for row in csv.reader(io.TextIOWrapper(archive.open(record))) if row}
            found = {name: archive.read(name) for name in wanted}
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise RunnerError(f"{wheel.name} does not hold what it should", got=error) from None
    for name, content in found.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        if hashes.get(name) != f"sha256={digest}":
            raise RunnerError(f"{name} in {wheel.name} is damaged", got="another hash than its RECORD's")
    return found
