"""The adb binary by subprocess. Every call has a time limit; what a command returned travels in its output.

adb's own exit status cannot be trusted: some versions end with 0 when their server is killed in the middle of
a command, or when a push found no room (both seen). A shell command therefore ends with a line of its own,
a random word and its status; without that line the link was lost.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from edgeprivacy.errors import RunnerError, UsageError

TIMEOUT_VARIABLE = "EDGEPRIVACY_ADB_TIMEOUT"
_TIMEOUT_SECONDS = 30.0
_SLOWEST_LINK = 1 << 19
"""Bytes a second that a push or pull is given time for: a tenth of a bad wireless link's."""
_STATES = (
    "device|offline|unauthorized|authorizing|connecting|recovery|sideload|rescue|bootloader|no permissions"
)
_LINE = re.compile(rf"^(\S+)\s+({_STATES})\b(.*)$")
_SAID = 300


@dataclass(frozen=True)
class Attached:
    """A line of `adb devices -l`.

    Attributes:
        state: "device" for one that can be used.
        about: What adb says of it by name, e.g. {"model": "Pixel_8"}; empty where it may not ask.
    """

    serial: str
    state: str
    about: dict[str, str]


@dataclass(frozen=True)
class Answer:
    """What a command on the device returned."""

    status: int
    output: str
    errors: str


def find_adb() -> Path:
    """The adb binary: $ADB, else on PATH, else in $ANDROID_HOME, else the one that adbutils brings.

    Raises:
        UsageError: $ADB names no program.
        RunnerError: There is none.
    """
    given = os.environ.get("ADB")
    if given:
        found = shutil.which(given)
        if found is None:
            raise UsageError("this adb cannot be run", got=given, hint="correct --adb or $ADB")
        return Path(found)
    found = shutil.which("adb")
    if found is not None:
        return Path(found)
    for variable in ("ANDROID_HOME", "ANDROID_SDK_ROOT"):
        if home := os.environ.get(variable):
            program = Path(home) / "platform-tools" / ("adb.exe" if sys.platform == "win32" else "adb")
            if program.is_file():
                return program
    spec = find_spec("adbutils")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        program = Path(folder) / "binaries" / ("adb.exe" if sys.platform == "win32" else "adb")
        if program.is_file():
            return program
    raise RunnerError(
        "adb was not found",
        hint="install Android's platform tools, or: pip install 'edgeprivacy[adb]'; --adb or $ADB names "
        "another place",
    )


def time_limit() -> float:
    """Seconds without a sign of life after which a device is taken for hung."""
    text = os.environ.get(TIMEOUT_VARIABLE, "")
    try:
        seconds = float(text) if text else _TIMEOUT_SECONDS
    except ValueError:
        seconds = -1.0
    if not seconds > 0:
        raise UsageError(f"${TIMEOUT_VARIABLE} is no time limit", got=text, allowed="seconds above 0")
    return seconds


class Adb:
    """The client, bound to one device where a serial is given.

    Args:
        program: The binary; found if None.
        serial: Of the device that every call names.
    """

    def __init__(self, program: Path | None = None, serial: str | None = None) -> None:
        self.program = program or find_adb()
        self.serial = serial

    def of(self, serial: str) -> Adb:
        """The same client for a device."""
        return Adb(self.program, serial)

    def command(self, *arguments: str) -> list[str]:
        """The command line of a call."""
        chosen = ["-s", self.serial] if self.serial is not None else []
        return [str(self.program), *chosen, *arguments]

    def attached(self) -> list[Attached]:
        """What is attached, in adb's order; starts adb's server where none runs.

        Raises:
            RunnerError: adb does not answer.
        """
        done = Adb(self.program)._call(["devices", "-l"], time_limit())
        if done.returncode:
            raise RunnerError("adb cannot list devices", got=_said(done) or f"exit code {done.returncode}")
        found = []
        for line in done.stdout.decode(errors="replace").splitlines():
            if match := _LINE.match(line.strip()):
                about = dict(word.split(":", 1) for word in match[3].split() if ":" in word)
                found.append(Attached(match[1], match[2], about))
        return found

    def shell(self, command: str, *, seconds: float | None = None, check: bool = True) -> Answer:
        """Run a line on the device, as the user `shell`.

        Args:
            command: For the device's shell; quote what comes from elsewhere.
            seconds: Time limit; that of every call if None.
            check: Raise if the command's status is not 0.

        Raises:
            RunnerError: The link was lost, the device hangs, or the command failed.
        """
        nonce = secrets.token_hex(8)
        done = self._call(["shell", with_status(command, nonce)], seconds or time_limit())
        answer = read_status(done.stdout.decode(errors="replace"), nonce)
        errors = done.stderr.decode(errors="replace").strip()
        if answer is None:
            raise self.lost("a command", _said(done))
        status, output = answer
        if check and status:
            raise RunnerError(
                f"a command failed on {self.serial}",
                got=f"status {status} of {shlex.quote(command[:80])}: {(errors or output.strip())[-_SAID:]}",
            )
        return Answer(status, output, errors)

    def push(self, files: Sequence[Path], folder: str) -> None:
        """Copy files, or the content of a folder, into a folder on the device; nothing is verified here.

        Raises:
            RunnerError: It failed: no room, link lost, device hung.
        """
        size = sum(path.stat().st_size for path in files if path.is_file())
        self._transfer("push", [*map(str, files), folder], size)

    def pull(self, remote: str, local: Path, size: int) -> None:
        """Copy a file or a folder of about `size` bytes from the device; errors as `push`."""
        self._transfer("pull", [remote, str(local)], size)

    def _transfer(self, what: str, arguments: list[str], size: int) -> None:
        done = self._call([what, *arguments], time_limit() + size / _SLOWEST_LINK)
        said = _said(done)
        if "No space left" in said:
            raise no_room(self.serial or "the device", said)
        # Version 36 says "1 file pushed" and means none: only the status and the words of an error tell.
        if done.returncode or "error:" in said:
            raise self.lost(f"a {what}", said)

    def _call(self, arguments: Sequence[str], seconds: float) -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(
                self.command(*arguments),
                stdin=subprocess.DEVNULL,  # adb shell would read ours
                capture_output=True,
                timeout=seconds,
                check=False,
                start_new_session=True,  # Ctrl-C is for us, who then clean up on the device
            )
        except subprocess.TimeoutExpired:
            raise self.hung(arguments[0], seconds) from None
        except OSError as error:
            raise RunnerError("adb cannot be run", got=f"{self.program}: {error.strerror}") from None

    def hung(self, what: str, seconds: float) -> RunnerError:
        """The error for a device that says nothing any more."""
        return RunnerError(
            f"{self.serial or 'adb'} gave no sign of life",
            got=f"silence of {seconds:g} s during adb {what}",
            hint="unlock the device, plug it in again, or restart it; the same command goes on where it "
            f"stopped. ${TIMEOUT_VARIABLE} sets the limit",
        )

    def lost(self, during: str, said: str) -> RunnerError:
        """The error for a link that broke: with the state that adb sees now, and what to do about it."""
        try:
            states = {entry.serial: entry.state for entry in self.attached()}
            state = states.get(self.serial or "", "not attached")
        except RunnerError:
            state = "unknown: adb does not answer"
        hint = next_step(state) or "check the cable or the network; the same command goes on where it stopped"
        return RunnerError(
            f"the link to {self.serial} was lost during {during}",
            got=f"{said[-_SAID:] or 'no answer'} (state now: {state})",
            hint=hint,
        )


def with_status(command: str, nonce: str) -> str:
    """A line for the device's shell that ends its output with the nonce and the command's status."""
    return f"( {command}\n); status=$?; echo; echo {nonce}:$status"


def read_status(output: str, nonce: str) -> tuple[int, str] | None:
    """Status and output of a line made by `with_status`; None if it never came to its end."""
    found = re.search(rf"\r?\n?^{nonce}:(\d+)\r?$", output, re.MULTILINE)
    if found is None:
        return None
    return int(found[1]), output[: found.start()].replace("\r\n", "\n")


def next_step(state: str) -> str | None:
    """What a user does about a device in this state; None for one that is ready."""
    return {
        "device": None,
        "unauthorized": "unlock the device and accept this computer's RSA key in the dialog; if none shows, "
        "revoke USB debugging authorisations in its developer options and plug it in again",
        "authorizing": "wait a moment, and accept this computer's RSA key on the device's screen",
        "connecting": "wait a moment and try again",
        "offline": "plug it in again; over the network: adb disconnect, then adb connect",
        "no permissions": "this user may not open the USB device: add a udev rule (on Debian: the package "
        "android-sdk-platform-tools-common) and log in again",
        "recovery": "reboot it into Android",
        "sideload": "reboot it into Android",
        "rescue": "reboot it into Android",
        "bootloader": "reboot it into Android: fastboot reboot",
        "not attached": "plug it in, or adb connect HOST:PORT; `edgeprivacy devices` shows what is there",
    }.get(state)


def no_room(where: str, said: str) -> RunnerError:
    """The error for a full device."""
    return RunnerError(
        f"there is no room left on {where}",
        got=said[-_SAID:],
        hint="free some space on it; `edgeprivacy devices --clean` removes what this tool keeps there",
    )


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    """What adb said, without its chatter about servers and progress."""
    text = (done.stderr + b"\n" + done.stdout[-4096:]).decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("* ")]
    wrong = [line for line in lines if re.search(r"error|fail|cannot|couldn't|denied|No space", line)]
    return "; ".join((wrong or lines)[:3])
