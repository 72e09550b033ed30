"""An adb server of the tests' own: the user's, and what is attached to it, is left alone."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Protocol

from testdevice.host import free_port, wait_until
from testdevice.place import Unavailable

_PR_SET_PDEATHSIG = 1
_CALL_SECONDS = 30.0
_NOT_INHERITED = (
    "ANDROID_SERIAL",
    "ADB_VENDOR_KEYS",
    "ADB_SERVER_SOCKET",
    "ANDROID_ADB_SERVER_ADDRESS",
    "ADB_TRACE",
)
_libc = ctypes.CDLL(None)


class Connectable(Protocol):
    """A device, or a link to one."""

    address: str


def adb_program() -> Path:
    """$ADB, else on PATH, else the one that adbutils brings.

    Raises:
        Unavailable: There is none.
    """
    if found := shutil.which(os.environ.get("ADB") or "adb"):
        return Path(found)
    spec = find_spec("adbutils")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        program = Path(folder) / "binaries" / "adb"
        if program.is_file():
            return program
    raise Unavailable("there is no adb here")


class AdbServer:
    """A server on a free port, with keys, a home and logs of its own; dies with this process.

    Args:
        program: The adb binary; found if None.
        home: For keys and logs; a temporary folder if None. Removed by `stop`.

    Attributes:
        port: It listens there.
        environment: Variables that send any adb client to it, and away from other devices.
    """

    def __init__(self, program: Path | None = None, home: Path | None = None) -> None:
        self.program = program or adb_program()
        self.port = free_port()
        self._home = home or Path(tempfile.mkdtemp(prefix="edgeprivacy-adb-"))
        self.environment = {
            "ANDROID_ADB_SERVER_PORT": str(self.port),
            "ADB": str(self.program),
            "HOME": str(self._home),
            "ANDROID_USER_HOME": str(self._home / ".android"),
            "TMPDIR": str(self._home),
            # Neither emulators on their usual ports nor what is plugged in or announced.
            "ADB_LOCAL_TRANSPORT_MAX_PORT": "0",
            "ADB_USB": "0",
            "ADB_MDNS_AUTO_CONNECT": "0",
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> AdbServer:
        """Start it; returns when it answers."""
        (self._home / ".android").mkdir(exist_ok=True)
        if not self._key.exists():
            self.adb("keygen", str(self._key))
        self._process = subprocess.Popen(
            [self.program, "-P", str(self.port), "nodaemon", "server"],
            env=self._whole_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        wait_until(self._listens, 10, "an adb server")
        return self

    def kill(self) -> None:
        """End it at once, as a crash does: clients lose what they were doing. `start` starts another."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """End it, and any other that a client has started in its place; its keys and logs go too."""
        self.kill()
        if self._listens():
            self.adb("kill-server", check=False)
            wait_until(lambda: not self._listens(), 10, "the end of an adb server that a client started")
        shutil.rmtree(self._home, ignore_errors=True)

    def __enter__(self) -> AdbServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def process_id(self) -> int | None:
        """Of the server, while it runs."""
        return self._process.pid if self._process else None

    @property
    def public_key(self) -> str:
        """The key that it shows to devices, for `TestDevice(keys=...)` and `authorize`."""
        return self._key.with_suffix(".pub").read_text()

    def adb(
        self, *arguments: str, serial: str | None = None, check: bool = True, seconds: float = _CALL_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """A call of the client, on this server.

        Raises:
            AssertionError: Its exit code is not 0, with what it said.
        """
        chosen = ["-s", serial] if serial else []
        done = subprocess.run(
            [str(self.program), *chosen, *arguments],
            env=self._whole_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
        assert not check or done.returncode == 0, f"adb {arguments}: {done.stdout}{done.stderr}"
        return done

    def shell(self, device: Connectable, command: str, **more: float) -> str:
        """What a command prints on a device."""
        return self.adb("shell", command, serial=device.address, **more).stdout

    def states(self) -> dict[str, str]:
        """State by address, of all that is attached."""
        return dict(re.findall(r"^(\S+)\t(\w+)$", self.adb("devices").stdout, re.MULTILINE))

    def connect(self, device: Connectable, state: str | None = "device", seconds: float = 15) -> str:
        """Attach a device, also one that was attached before it was rebooted; its address.

        Args:
            device: A device, or a link to one.
            state: To wait for; any if None.
            seconds: To wait.
        """
        self.disconnect(device)
        self.adb("connect", device.address, check=False)
        if state is not None:
            what = f"{device.address} in state {state}"
            wait_until(lambda: self.states().get(device.address) == state, seconds, what)
        return device.address

    def disconnect(self, device: Connectable) -> None:
        """Detach a device; nothing happens if it is not attached."""
        self.adb("disconnect", device.address, check=False)

    @property
    def _key(self) -> Path:
        return self._home / ".android" / "adbkey"

    def _whole_environment(self) -> dict[str, str]:
        kept = {name: text for name, text in os.environ.items() if name not in _NOT_INHERITED}
        return {**kept, **self.environment}

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def _die_with_parent() -> None:
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
