"""Debian's packages by apt-get: what this machine lacks, and what the device is made from.

The device's parts are another architecture's packages and a source package. Their lists are kept in a folder
of their own, so that the machine's own configuration and state stay as they are.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from testdevice.place import Unavailable

TO_USE = ("adb", "qemu-user-static", "g++", "gcc-aarch64-linux-gnu", "g++-aarch64-linux-gnu")
"""For the tests: the client, the emulator, and the compilers of the runner programs."""
TO_BUILD = (
    "clang",
    "dpkg-dev",
    "make",
    "patchelf",
    "libcap-dev",
    "android-libboringssl-dev",
    "android-libbase-dev",
    "android-libcutils-dev",
    "android-liblog-dev",
)
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_TARGET = "$(CREATED_BY)|$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)"


def call(command: Sequence[str | Path], log: IO[bytes], folder: Path | None = None) -> None:
    """Run a program, what it says into the log.

    Raises:
        Unavailable: It failed; with its last words.
    """
    words = [str(word) for word in command]
    log.write(f"\n$ {' '.join(words)}\n".encode())
    log.flush()
    began = log.tell()
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, env=environment, check=False
    )
    if done.returncode:
        said = Path(log.name).read_bytes()[began:].decode(errors="replace").split("\n")
        wrong = [line.strip() for line in said if "error" in line.lower() or line.startswith("E:")]
        last = (wrong or [line.strip() for line in said if line.strip()] or ["nothing"])[-1]
        raise Unavailable(f"{words[0]} failed with {done.returncode}: {last[:200]} (log: {log.name})")


def missing(packages: Sequence[str]) -> list[str]:
    """Those that are not installed."""
    listed = subprocess.run(
        ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *packages],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    installed = {line.split()[0] for line in listed.splitlines() if line.endswith(" installed")}
    return [name for name in packages if name not in installed]


def install(packages: Sequence[str], log: IO[bytes]) -> None:
    """Install packages.

    Raises:
        Unavailable: Not root, or apt-get failed.
    """
    if os.geteuid():
        raise Unavailable(f"packages are missing and only root can install them: {' '.join(packages)}")
    wait = ("-o", "DPkg::Lock::Timeout=300")
    call(["apt-get", *wait, "update"], log)
    call(["apt-get", *wait, "install", "--yes", "--no-install-recommends", *packages], log)


def check_distribution() -> None:
    """Raise Unavailable where the device's parts cannot be had."""
    if not all(shutil.which(program) for program in ("apt-get", "dpkg-query")):
        raise Unavailable("the test device is made of Debian's packages: there is no apt-get here")
    words = dict(
        line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line
    )
    name = words.get("ID", "").strip('"')
    if name != "debian":
        raise Unavailable(f"the test device is made of Debian's packages: this is {name or 'another system'}")
    if os.uname().machine != "x86_64":
        raise Unavailable(f"the test device's adbd is built for x86-64: this is {os.uname().machine}")


class Lists:
    """Debian's arm64 and source packages, from the repositories that this machine already uses.

    Args:
        folder: For lists and downloads.
    """

    def __init__(self, folder: Path, log: IO[bytes]) -> None:
        self._log = log
        for name in ("lists/partial", "cache/archives/partial"):
            (folder / name).mkdir(parents=True)
        (folder / "status").touch()
        (folder / "sources.list").write_text("\n".join(self._sources()) + "\n")
        settings = {
            "Dir::Etc::sourcelist": folder / "sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::State": folder,
            "Dir::State::status": folder / "status",
            "Dir::Cache": folder / "cache",
            "APT::Architecture": "arm64",
            "APT::Architectures::": "arm64",
            "APT::Sandbox::User": "root",
        }
        self._options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        call(["apt-get", *self._options, "update"], log)

    def _sources(self) -> list[str]:
        """Lines of a sources.list. Asked of apt, which understands every way of writing them."""
        for attempt in range(2):
            listed = subprocess.run(
                ["apt-get", "indextargets", "--format", _TARGET], capture_output=True, text=True, check=False
            ).stdout
            found = {line for line in listed.splitlines() if line.startswith("Packages|Debian|")}
            if found:
                break
            if not attempt:
                # A slim system comes without lists: the origin of a repository stands in them.
                call(["apt-get", "update"], self._log)
        else:
            raise Unavailable("none of this machine's apt repositories is Debian's")
        signed = f"[signed-by={_KEYRING}] " if _KEYRING.is_file() else ""
        return [
            f"{kind} {signed}{address} {release} {component}"
            for _, _, address, release, component in (line.split("|") for line in sorted(found))
            for kind in ("deb", "deb-src")
        ]

    def download(self, packages: Sequence[str], folder: Path) -> list[Path]:
        """Packages for arm64."""
        folder.mkdir()
        call(["apt-get", *self._options, "download", *packages], self._log, folder)
        return sorted(folder.glob("*.deb"))

    def source(self, package: str, folder: Path) -> Path:
        """The release's source package, unpacked, with Debian's patches."""
        folder.mkdir()
        call(["apt-get", *self._options, "source", "--download-only", package], self._log, folder)
        (description,) = folder.glob("*.dsc")
        # apt-get has checked its hashes against the signed lists.
        call(["dpkg-source", "--no-check", "--extract", description, folder / "unpacked"], self._log)
        return folder / "unpacked"
