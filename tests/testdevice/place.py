"""Where the built device lies, and why there is none where there is none."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

HERE = Path(__file__).resolve().parent
_RECIPE = (
    "adbd/adbd.patch",
    "adbd/build.mk",
    "adbd/properties.cpp",
    "build_adbd.py",
    "build_root.py",
    "packages.py",
)


class Unavailable(Exception):
    """There is no test device here; the text is the reason, in a line."""


def required() -> bool:
    """Whether a missing device is an error: continuous integration says so."""
    return os.environ.get("EDGEPRIVACY_TESTDEVICE_REQUIRED", "") not in ("", "0")


def cache_folder() -> Path:
    """Where devices are built: $EDGEPRIVACY_TESTDEVICE, else in the user's cache."""
    if given := os.environ.get("EDGEPRIVACY_TESTDEVICE"):
        return Path(given).absolute()
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home).absolute() / "edgeprivacy-testdevice"


def recipe_id() -> str:
    """A hash of the files that decide what is built."""
    digest = hashlib.sha256()
    for name in _RECIPE:
        digest.update(name.encode() + b"\0" + (HERE / name).read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def built_folder() -> Path:
    """What `prepare` makes: root/ (the device's file system) and versions.txt."""
    return cache_folder() / recipe_id()


def reason_file() -> Path:
    """Holds the reason where `prepare` could not make a device that boots."""
    return cache_folder() / f"{recipe_id()}.unavailable"


def device_root() -> Path:
    """The file system of the built device.

    Raises:
        Unavailable: There is none, or it cannot boot here.
    """
    if reason_file().is_file():
        raise Unavailable(reason_file().read_text().strip())
    root = built_folder() / "root"
    if not root.is_dir():
        raise Unavailable("the test device is not built: run tests/testdevice/prepare")
    return root
