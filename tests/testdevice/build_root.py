"""The device's file system: Android's shell and tools for arm64, under Android's paths."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import IO

from testdevice.packages import Lists, call
from testdevice.place import Unavailable

PACKAGES = ("mksh", "toybox", "libc6", "libcrypt1")
_LIBRARIES = ("ld-linux-aarch64.so.1", "libc.so.6", "libm.so.6", "libcrypt.so.1")
_LOADER = "/system/lib64/ld-linux-aarch64.so.1"
_MOUNT_POINTS = ("data", "dev", "proc", "sys")
_NOT_ANDROIDS = {"sh", "bash", "getprop", "setprop", "start", "stop", "su", "login", "passwd"}
_GETPROP = """#!/system/bin/sh
# All properties as [name]: [value], or the value of one, or the default that is given.
while IFS='=' read -r name value; do
  if [ $# = 0 ]; then
    echo "[$name]: [$value]"
  elif [ "$name" = "$1" ]; then
    echo "$value"
    exit 0
  fi
done < /dev/__properties__
[ $# = 0 ] || echo "$2"
"""
_USERS = {
    "passwd": "root:x:0:0::/:/system/bin/sh\nshell:x:2000:2000::/:/system/bin/sh\n",
    "group": "root:x:0:\nshell:x:2000:\n",
}


def build_root(lists: Lists, work: Path, root: Path, log: IO[bytes]) -> list[str]:
    """Lay out the file system; the names of the packages that it is made of, with their versions.

    Raises:
        Unavailable: A package cannot be had, or its programs do not run.
    """
    packages = lists.download(PACKAGES, work / "packages")
    unpacked = work / "unpacked"
    for package in packages:
        call(["dpkg-deb", "--extract", package, unpacked], log)

    for name in (*_MOUNT_POINTS, "bin", "etc", "system/bin", "system/lib64"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in _LIBRARIES:
        shutil.copyfile(unpacked / "lib" / "aarch64-linux-gnu" / name, root / "system" / "lib64" / name)
        (root / "system" / "lib64" / name).chmod(0o755)
    tools = root / "system" / "bin"
    for source, name in (("mksh", "sh"), ("toybox", "toybox")):
        shutil.copyfile(unpacked / "bin" / source, tools / name)
        (tools / name).chmod(0o755)
        # Their libraries are theirs alone: a runner that lacks one must not find it here.
        change = ["--set-interpreter", _LOADER, "--set-rpath", "/system/lib64"]
        call(["patchelf", *change, tools / name], log)
    (root / "bin" / "sh").symlink_to("/system/bin/sh")
    for name in _applets(root):
        (tools / name).symlink_to("toybox")
    (tools / "getprop").write_text(_GETPROP)
    (tools / "getprop").chmod(0o755)
    for name, text in _USERS.items():
        (root / "etc" / name).write_text(text)
    return [package.stem for package in packages]


def _applets(root: Path) -> list[str]:
    """The names of toybox's tools, as it lists them itself."""
    command = ["qemu-aarch64-static", "-L", str(root), str(root / "system" / "bin" / "toybox")]
    command[3:3] = ["-E", f"LD_LIBRARY_PATH={root / 'system' / 'lib64'}"]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    names = [name for name in said.split() if name not in _NOT_ANDROIDS]
    if "sha256sum" not in names:
        raise Unavailable(f"toybox for arm64 does not run here: {said.strip()[:200] or 'no answer'}")
    return names
