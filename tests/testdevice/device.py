"""An emulated device that tests boot, use, break and stop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from types import TracebackType
from typing import Any

from testdevice.host import all_processes, free_port, listens, runs, wait_until
from testdevice.place import HERE, Unavailable, device_root

_BOOT_SECONDS = 30.0
_FILLER = "filler"


class TestDevice:
    """A device on loopback, in user, mount and process namespaces of its own.

    It is off until `start`, is gone without a trace after `stop`, and dies with this process.

    Args:
        port: That adbd listens on; a free one if None.
        serial: ro.serialno, the number of the hardware. adb names it by its `address`.
        secure: Whether adbd asks for a known RSA key.
        data_mb: Size of /data; takes memory only as it fills.
        keys: Public keys (text, as in adbkey.pub) that it trusts.
        abi: ro.product.cpu.abi and abilist. The processor stays arm64.
        properties: More, or others, by name.
        root: Of the built device; found if None.

    Attributes:
        port: See above.
        address: As adb names it, "127.0.0.1:PORT".
        boot_seconds: From power on to adbd listening, last time.
    """

    __test__ = False

    def __init__(
        self,
        *,
        port: int | None = None,
        serial: str = "EMULATED01",
        secure: bool = False,
        data_mb: int = 512,
        keys: Sequence[str] = (),
        abi: str = "arm64-v8a",
        properties: Mapping[str, str] | None = None,
        root: Path | None = None,
    ) -> None:
        self.port = port or free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.serial = serial
        self.boot_seconds = 0.0
        self._keys = tuple(keys)
        self._data_mb = data_mb
        self._root = root
        self._hardware: subprocess.Popen[str] | None = None
        self._init: int | None = None
        self._log = tempfile.TemporaryFile("a+")
        self._properties = {
            "ro.product.manufacturer": "edgeprivacy",
            "ro.product.brand": "edgeprivacy",
            "ro.product.name": "emulated_arm64",
            "ro.product.device": "emulated",
            "ro.product.model": "Emulated arm64 device",
            "ro.product.cpu.abi": abi,
            "ro.product.cpu.abilist": abi,
            "ro.build.version.sdk": "34",
            "ro.build.version.release": "14",
            "ro.build.fingerprint": "edgeprivacy/emulated_arm64/emulated:14/TEST/1:userdebug/test-keys",
            "ro.hardware": "emulated",
            "ro.soc.model": "cortex-a72",
            "ro.serialno": serial,
            "ro.adb.secure": str(int(secure)),
            "service.adb.listen_addrs": f"tcp:localhost:{self.port}",
            **(properties or {}),
        }

    def start(self) -> TestDevice:
        """Make the device and boot it; returns when adbd listens.

        Raises:
            Unavailable: There is none, or namespaces are refused here.
        """
        if self._hardware is not None:
            raise RuntimeError("the device was started already")
        root = self._root = self._root or device_root()
        settings = {"root": str(root), "data_mb": self._data_mb, "properties": self._properties}
        self._hardware = subprocess.Popen(
            [sys.executable, "-I", "-S", str(HERE / "boot.py"), json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,  # Ctrl-C is for the tests, who then switch it off
        )
        try:
            self._read_answer()
            for name in ("uid_map", "gid_map"):
                Path(f"/proc/{self._hardware.pid}/{name}").write_text("0 0 65536\n")
            self._send("mapped")
            self._read_answer()
            self.authorize(*self._keys)
            self._boot()
        except OSError as error:
            self.stop()
            raise Unavailable(f"the test device does not boot: {error}") from None
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Switch it off and take it away: no process, mount or file of it is left when this returns."""
        hardware, self._hardware, self._init = self._hardware, None, None
        if hardware is None:
            return
        assert hardware.stdin is not None and hardware.stdout is not None
        try:
            hardware.stdin.close()
        except OSError:
            pass
        try:
            hardware.wait(10)
        except subprocess.TimeoutExpired:
            hardware.kill()
            hardware.wait()
        hardware.stdout.close()

    def __enter__(self) -> TestDevice:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._log.close()

    # Faults.

    def hang(self) -> None:
        """Stop adbd where it stands: the link stays up and nothing answers."""
        os.kill(self.adbd, SIGSTOP)

    def resume(self) -> None:
        """Let a stopped adbd go on."""
        os.kill(self.adbd, SIGCONT)

    def kill(self) -> None:
        """Cut the power; /data stays. `reboot` switches it on again."""
        self._command("off")
        self._init = None

    def reboot(self, keep_data: bool = True) -> None:
        """Cut the power and boot again, on the same port; returns when adbd listens.

        Args:
            keep_data: Keep /data; else it comes up empty, but for the keys it was made with.
        """
        self.kill()
        if not keep_data:
            self._command("wipe")
            self.authorize(*self._keys)
        self._boot()

    def fill(self, bytes_left: int = 0) -> None:
        """Fill /data up to `bytes_left` (whole pages), with a file that the device's user cannot remove.

        Called again, it fills anew.
        """
        filler = self.path("/data") / _FILLER
        filler.unlink(missing_ok=True)
        disk = os.statvfs(filler.parent)
        pages = disk.f_bavail - -(-bytes_left // disk.f_frsize)
        if pages > 0:
            with filler.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, pages * disk.f_frsize)

    def make_room(self) -> None:
        """Take away what `fill` put there."""
        (self.path("/data") / _FILLER).unlink(missing_ok=True)

    def authorize(self, *keys: str) -> None:
        """Trust these public keys and no others, as a user does on the screen: from the next
        connection on."""
        file = self.path("/data/misc/adb/adb_keys")
        file.write_text("".join(f"{key.strip()}\n" for key in keys))
        file.chmod(0o644)

    # What is there.

    def path(self, on_device: str) -> Path:
        """A file of /data as seen from outside: to read and write past adb, also while the device hangs or
        is off."""
        if self._hardware is None or self._root is None:
            raise RuntimeError("the device is not started")
        if not on_device.startswith("/data"):
            raise ValueError(f"only /data is held outside of the booted system, not {on_device}")
        return Path(f"/proc/{self._hardware.pid}/root{self._root}{on_device}")

    def files(self, on_device: str = "/data/local/tmp") -> list[str]:
        """All that lies below a folder of /data, folders too: relative paths, sorted; [] if it is missing."""
        folder = self.path(on_device)
        # A folder that goes while it is listed is left out; pathlib's rglob fails on it.
        return sorted(
            str((Path(here) / name).relative_to(folder))
            for here, folders, files in os.walk(folder)
            for name in (*folders, *files)
        )

    def processes(self) -> list[str]:
        """Command lines of what runs on it, beside init and adbd; emulated programs without the emulator."""
        if self._init is None:
            return []
        ours, found = {self._init, self.adbd}, []
        namespace = Path(f"/proc/{self._init}/ns/pid").readlink()
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if int(entry.name) in ours or (entry / "ns" / "pid").readlink() != namespace:
                    continue
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
            except OSError:
                continue  # ended in between
            if words and "qemu-aarch64" in words[0]:
                words = words[1:]
            if words:
                found.append(" ".join(words))
        return sorted(found)

    @property
    def alive(self) -> bool:
        """Whether it is on: its adbd runs, hanging or not."""
        return self._init is not None and self._find_adbd() is not None

    @property
    def adbd(self) -> int:
        """The process id of its adbd, as seen from outside."""
        found = self._find_adbd()
        if found is None:
            raise RuntimeError("the device is off")
        return found

    @property
    def process_ids(self) -> list[int]:
        """All processes that make it, as seen from outside: what must be gone after `stop`."""
        if self._hardware is None:
            return []
        found, parents = [self._hardware.pid], {self._hardware.pid}
        statuses = {pid: parent for pid, parent, _ in all_processes()}
        while new := {pid for pid, parent in statuses.items() if parent in parents} - set(found):
            found += sorted(new)
            parents = new
        return found

    def log(self) -> str:
        """What the device said while it booted, and adbd since."""
        self._log.seek(0)
        return self._log.read()

    def _find_adbd(self) -> int | None:
        """Init's first child: number 2 of the device."""
        for pid, parent, inner in all_processes():
            if parent == self._init and inner == 2:
                return pid
        return None

    def _boot(self) -> None:
        began = time.monotonic()
        self._init = self._command("boot")["init"]
        try:
            wait_until(self._settled, _BOOT_SECONDS, "adbd")
        except TimeoutError as error:
            raise OSError(f"{error}: {self.log()[-300:]}") from None
        if not self.alive:
            raise OSError(f"it ended at once: {self.log().strip()[-300:]}")
        self.boot_seconds = time.monotonic() - began

    def _settled(self) -> bool:
        """Whether adbd listens, or the device is off again."""
        if self._init is None or not runs(self._init):
            return True
        adbd = self._find_adbd()
        return adbd is not None and listens(adbd, self.port)

    def _send(self, line: str) -> None:
        assert self._hardware is not None and self._hardware.stdin is not None
        self._hardware.stdin.write(f"{line}\n")
        self._hardware.stdin.flush()

    def _read_answer(self) -> dict[str, Any]:
        assert self._hardware is not None and self._hardware.stdout is not None
        line = self._hardware.stdout.readline()
        said = json.loads(line) if line else {"failed": self.log().strip()[-300:] or "no answer"}
        if "failed" in said:
            raise OSError(said["failed"])
        return dict(said)

    def _command(self, name: str) -> dict[str, Any]:
        if self._hardware is None:
            raise RuntimeError("the device is not started")
        self._send(name)
        return self._read_answer()
