"""Where runner programs run: this machine, or a device at the other end of adb. And what their end means."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprivacy.device_runner.bundle import Bundle, this_machine
from edgeprivacy.device_runner.runtimes import machine
from edgeprivacy.errors import ArtifactError, DataError, EdgePrivacyError, RunnerError, StorageError
from edgeprivacy.files import sha256_file
from edgeprivacy.scratch import scratch_folder

ERROR_PREFIX = "edgeprivacy-error:"
_KEPT = 4
"""Files of rows that lie ready for a further call; each may be large."""
STALL_SECONDS = 600.0
"""Without a new output byte for so long, a runner program is taken for hung."""


@dataclass(frozen=True)
class Ended:
    """How a program ended: its exit status (128 + the signal's number if one ended it) and its last words."""

    status: int
    errors: str


class Place(ABC):
    """A machine with a folder of this run's own, which goes with it.

    Attributes:
        name: As the user says it: "native", "adb:SERIAL".
        machine: "x86_64" or "aarch64".
        moved: Bytes sent and fetched so far.
    """

    name: str
    machine: str

    def __init__(self) -> None:
        self.moved = {"sent": 0, "fetched": 0}

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What of this place decides answers, or tells which it was."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What passes: temperature and the like, where it can be read."""

    @abstractmethod
    def bundle(self, runtime: str) -> Bundle:
        """The runner of a runtime for this machine. Errors as `bundle_for`."""

    @abstractmethod
    def install(self, bundle: Bundle) -> list[str]:
        """Make a bundle ready; the command that starts its program, and its arguments for its own files."""

    @abstractmethod
    def has(self, name: str) -> bool:
        """Whether a file that was put lies in the run's folder."""

    @abstractmethod
    def put(self, files: Mapping[str, Path], keep: bool = False) -> None:
        """Bring files into the run's folder, by new names; verified when this returns. Those that are there
        are not sent again.

        Args:
            keep: They may be needed again; dropped when there is no room for others.
        """

    @abstractmethod
    def run(self, command: Sequence[str], outputs: Sequence[str]) -> Ended:
        """Run a command in the run's folder until it ends.

        Args:
            outputs: Names of files that grow while it works.

        Raises:
            RunnerError: Place or program hang, or the link was lost.
        """

    @abstractmethod
    def fetch(self, names: Sequence[str], folder: Path) -> None:
        """Bring files of the run's folder into a local one. Not verified: the report tells their hashes."""

    @abstractmethod
    def drop(self, names: Sequence[str]) -> None:
        """Remove files from the run's folder."""

    @abstractmethod
    def close(self) -> None:
        """Remove the run's folder. Harmless when closed already, or when the place is gone."""


class LocalPlace(Place):
    """This machine. Files are not copied but linked."""

    name = "native"

    def __init__(self) -> None:
        super().__init__()
        self.machine = this_machine()
        self._stack = ExitStack()
        self._folder: Path | None = None
        self._kept: list[str] = []

    def identity(self) -> dict[str, Any]:
        """See `Place.identity`."""
        return machine()

    def state(self) -> dict[str, Any]:
        """See `Place.state`."""
        return {}

    def bundle(self, runtime: str) -> Bundle:
        """See `Place.bundle`."""
        from edgeprivacy.device_runner.bundle import bundle_for

        return bundle_for(runtime, self.machine)

    def install(self, bundle: Bundle) -> list[str]:
        """See `Place.install`. The libraries stay where the wheels put them."""
        listed = [part for path in bundle.libraries for part in ("--library", str(path))]
        check = ["--check", str(bundle.check)]
        return [str(bundle.program), *listed, "--library-sha256", bundle.library_sha256, *check]

    @property
    def folder(self) -> Path:
        """The run's folder."""
        if self._folder is None:
            self._folder = self._stack.enter_context(scratch_folder("native"))
        return self._folder

    def has(self, name: str) -> bool:
        """See `Place.has`."""
        return (self.folder / name).exists()

    def put(self, files: Mapping[str, Path], keep: bool = False) -> None:
        """See `Place.put`. What is to be kept is taken over: its own place may be gone with the next call."""
        for name, path in files.items():
            if keep:
                shutil.move(path, self.folder / name)
                self._kept.append(name)
                self.drop([self._kept.pop(0) for _ in range(len(self._kept) - _KEPT)])
                continue
            link = self.folder / name
            link.unlink(missing_ok=True)  # the file behind it may be of an earlier call
            link.symlink_to(path.absolute())

    def run(self, command: Sequence[str], outputs: Sequence[str]) -> Ended:
        """See `Place.run`."""
        libraries = sorted({str(Path(part).parent) for part in command if part.endswith(".so")})
        search = os.pathsep.join([*libraries, os.environ.get("LD_LIBRARY_PATH", "")]).rstrip(os.pathsep)
        log = self.folder / "log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env={**os.environ, "LD_LIBRARY_PATH": search},
                start_new_session=True,
            )
            try:
                self._watch(process, outputs)
            except BaseException:
                with suppress(OSError):
                    process.kill()
                process.wait()
                raise
        status = process.returncode if process.returncode >= 0 else 128 - process.returncode
        return Ended(status, log.read_text(errors="replace"))

    def _watch(self, process: subprocess.Popen[bytes], outputs: Sequence[str]) -> None:
        grown, size, wait = time.monotonic(), -1, 0.001
        while True:
            try:
                process.wait(wait)
                return
            except subprocess.TimeoutExpired:
                wait = min(1.0, 2 * wait)
            written = sum(path.stat().st_size for name in outputs if (path := self.folder / name).exists())
            if written != size:
                grown, size = time.monotonic(), written
            elif time.monotonic() - grown > STALL_SECONDS:
                raise stalled(self.name)

    def fetch(self, names: Sequence[str], folder: Path) -> None:
        """See `Place.fetch`."""
        for name in names:
            try:
                (self.folder / name).replace(folder / name)
            except FileNotFoundError:
                raise RunnerError(f"the native runner left no {name}") from None

    def drop(self, names: Sequence[str]) -> None:
        """See `Place.drop`."""
        for name in names:
            (self.folder / name).unlink(missing_ok=True)

    def close(self) -> None:
        """See `Place.close`."""
        self._folder = None
        self._stack.close()


def stalled(name: str) -> RunnerError:
    """The error for a program that works no more."""
    return RunnerError(
        f"the runner program on {name} does not get on", got=f"no new output in {STALL_SECONDS:g} s"
    )


def failure(ended: Ended, name: str, files: Sequence[Path]) -> EdgePrivacyError:
    """The error for a program that did not end with 0.

    Args:
        name: Of the place.
        files: The models that it was given, in their order.
    """
    told = _told(ended.errors)
    if told is None:
        return _unforeseen(ended, name)
    kind, number, text = told
    file = str(files[number]) if 0 <= number < len(files) else "a file"
    if kind == "model":
        return ArtifactError(f"the interpreter on {name} refuses {file}", got=text)
    if kind == "version":
        return ArtifactError(
            f"{file} was made for another version of the interpreter",
            got=text,
            hint="convert the model again with the installed version, or install the file's",
        )
    if kind == "changed":
        return RunnerError(
            f"a file on {name} is not the one that was sent",
            got=text,
            hint="something changed it on the way or on the device; run the same command again",
        )
    if kind == "rows":
        return DataError(f"the rows do not fit {file}", got=text)
    if kind == "library":
        return RunnerError(
            f"the runtime on {name} is not the one that it should be, or does not work there",
            got=text,
            hint="`edgeprivacy devices --clean` removes it; the next run sends it anew",
        )
    if kind == "storage" and name != LocalPlace.name:
        from edgeprivacy.device_runner.adb.client import no_room

        return no_room(name, text)
    if kind == "storage":
        return StorageError("the runner cannot write its output", got=text, hint="free some space")
    return RunnerError(f"the interpreter on {name} failed while running {file}", got=text)


def _told(errors: str) -> tuple[str, int, str] | None:
    """Kind, model and text of the program's own error line."""
    for line in reversed(errors.splitlines()):
        if line.startswith(ERROR_PREFIX):
            with suppress(ValueError, TypeError, KeyError):
                said = json.loads(line.removeprefix(ERROR_PREFIX))
                return str(said["kind"]), int(said["model"]), " ".join(str(said["message"]).split())[:300]
    return None


def _unforeseen(ended: Ended, name: str) -> RunnerError:
    lines = [line for line in ended.errors.splitlines() if line.strip()]
    said = f": {lines[-1][:200]}" if lines else ""
    if ended.status in (126, 127):
        return RunnerError(
            f"the runner program cannot be started on {name}",
            got=f"status {ended.status}{said}",
            hint="its processor or system is not the one that it was built for",
        )
    if ended.status > 128:
        with suppress(ValueError):
            return RunnerError(
                f"the interpreter on {name} crashed",
                got=f"signal {signal.Signals(ended.status - 128).name}{said}",
                hint="the file may be damaged, or the device may be out of memory",
            )
    return RunnerError(f"the runner program on {name} failed", got=f"status {ended.status}{said}")


def read_report(path: Path) -> dict[str, Any]:
    """A runner program's report.

    Raises:
        RunnerError: It is none.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != "edgeprivacy.native/1":
            raise ValueError(f"schema {content['schema']}")
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise RunnerError("the runner program's report cannot be read", got=error) from None
    return content


def check_fetched(path: Path, sha256: str, size: int, what: str) -> None:
    """Compare a fetched file with the report.

    Raises:
        RunnerError: They differ.
    """
    if path.stat().st_size != size or sha256_file(path) != sha256:
        raise RunnerError(
            f"{what} was changed on its way back",
            got=f"{path.stat().st_size} bytes of {size}, or another hash",
            hint="check the cable or the network, and run the same command again",
        )


if sys.platform == "win32":  # pragma: no cover
    raise ImportError("native runners need a POSIX system")
