"""The device from within: run by `TestDevice` as a program of its own.

    hardware   user and mount namespace; holds /data as long as the device exists, on or off
    boot       one a boot: process, mount namespace
    init       process 1 of those; mounts, starts adbd as the user shell, collects what dies
    adbd

Each dies with the one above it, and the hardware with whoever holds the other end of its standard input,
which brings the commands "boot", "off" and "wipe", each answered by a line of JSON.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import traceback
import uuid
from pathlib import Path
from typing import Any, NoReturn

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID = 0x20000, 0x10000000, 0x20000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
PR_SET_PDEATHSIG = 1
SHELL = 2000
ADBD = ("/apex/adbd/adbd",)
ENVIRONMENT = {
    "PATH": "/system/bin",
    "HOME": "/",
    "TMPDIR": "/data/local/tmp",
    "ANDROID_ROOT": "/system",
    "ANDROID_DATA": "/data",
    "TESTDEVICE_PROPERTIES": "/dev/__properties__",
    # A model without SVE and SME: their emulation is twenty times slower.
    "QEMU_CPU": "cortex-a72",
}
_EMULATOR = Path("/usr/bin/qemu-aarch64-static")
_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_HEADER = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xb7\0"
_HEADER_MASK = b"\xff" * 7 + b"\0" + b"\xff" * 8 + b"\xfe\xff\xff\xff"
# What a Cortex-A72 tells: the host's own file makes programs look for the host's features.
_PROCESSOR = """processor\t: {number}
BogoMIPS\t: 100.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

"""

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_libc.unshare(flags), "unshare")


def mount(source: str | Path, target: Path, kind: str = "", flags: int = 0, options: str = "") -> None:
    """mount(2)."""
    words = (str(source), str(target), kind, options)
    source_, target_, kind_, options_ = (os.fsencode(word) for word in words)
    _check(_libc.mount(source_, target_, kind_, ctypes.c_ulong(flags), options_), f"mount {kind} {target}")


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it ends."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def answer(**said: Any) -> None:
    """One line to whoever gave the command."""
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


class Hardware:
    """The device as a thing: switched on or off, with a disk."""

    def __init__(self, root: Path, data_mb: int, properties: dict[str, str]) -> None:
        self.root = root
        self.data_mb = data_mb
        self.properties = properties
        self.boot_process: int | None = None
        self.init: int | None = None

    def assemble(self) -> None:
        """Namespaces, emulator and an empty disk. The other side writes the user map in between."""
        unshare(CLONE_NEWUSER | CLONE_NEWNS)
        answer(done="unshare")
        if sys.stdin.readline().strip() != "mapped":
            raise OSError("the users were not mapped")
        os.setgroups([])
        os.setgid(0)
        os.setuid(0)
        mount("none", Path("/"), flags=MS_REC | MS_PRIVATE)
        self._register_emulator()
        self._empty_disk()

    def _register_emulator(self) -> None:
        """For this user namespace alone: Linux 6.7 and newer have a table of formats for each."""
        try:
            mount("none", _BINFMT, "binfmt_misc")
        except OSError as error:
            if (_BINFMT / "qemu-aarch64").exists():
                return
            raise OSError(f"no arm64 emulator can be registered (before Linux 6.7?): {error}") from None

        def escaped(data: bytes) -> str:
            return "".join(f"\\x{byte:02x}" for byte in data)

        # F: opened now, from outside of the device's root.
        entry = f":qemu-aarch64:M::{escaped(_HEADER)}:{escaped(_HEADER_MASK)}:{_EMULATOR}:F"
        (_BINFMT / "register").write_text(entry)

    def _empty_disk(self) -> None:
        data = self.root / "data"
        size = f"size={self.data_mb}m,mode=771"
        mount("tmpfs", data, "tmpfs", MS_NOSUID | MS_NODEV, size)
        for name, mode, owner in (
            ("local", 0o751, 0),
            ("local/tmp", 0o771, SHELL),
            ("misc", 0o771, 0),
            ("misc/adb", 0o755, 0),
        ):
            (data / name).mkdir()
            (data / name).chmod(mode)
            os.chown(data / name, owner, owner)

    def wipe(self) -> None:
        """A new, empty disk in place of the old one."""
        _check(_libc.umount2(os.fsencode(self.root / "data"), 0), "umount /data")
        self._empty_disk()

    def boot(self) -> int:
        """Start the system; the id of its process 1 as seen from outside."""
        read, write = os.pipe()
        self.boot_process = os.fork()
        if not self.boot_process:
            os.close(read)
            _as_boot(self, write)
        os.close(write)
        with os.fdopen(read, "rb") as said:
            words = said.readline()
        if not words:
            self.off()
            raise OSError("the device's process namespace could not be made")
        self.init = int(words)
        return self.init

    def off(self) -> None:
        """Cut the power: every process of the device is gone when this returns."""
        if self.boot_process is None:
            return
        if self.init is not None and not os.waitpid(self.boot_process, os.WNOHANG)[0]:
            os.kill(self.init, signal.SIGKILL)
            os.waitpid(self.boot_process, 0)
        self.boot_process = self.init = None


def _as_boot(hardware: Hardware, write: int) -> NoReturn:
    """The process between the namespaces: it lives as long as the system does."""
    try:
        die_with_parent()
        # Neither commands nor answers are for what runs below.
        null = os.open("/dev/null", os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        os.close(null)
        unshare(CLONE_NEWPID | CLONE_NEWNS)
        init = os.fork()
        if not init:
            os.close(write)
            _as_init(hardware)
        os.write(write, f"{init}\n".encode())
        os.close(write)
        os.waitpid(init, 0)
    except OSError:
        traceback.print_exc()
    os._exit(0)


def _as_init(hardware: Hardware) -> NoReturn:
    """Process 1 of the device. The kernel ends all others when it ends."""
    try:
        die_with_parent()
        mount_system(hardware.root, hardware.properties)
        adbd = os.fork()
        if not adbd:
            _become_adbd(hardware.root)
        while os.wait()[0] != adbd:
            pass
    except BaseException:
        traceback.print_exc()
    os._exit(1)


def mount_system(root: Path, properties: dict[str, str]) -> None:
    """What a booting system finds under /proc, /sys and /dev."""
    mount("proc", root / "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("/sys", root / "sys", flags=MS_BIND | MS_REC)
    dev = root / "dev"
    mount("tmpfs", dev, "tmpfs", MS_NOSUID, "size=1m,mode=755")
    for name in ("null", "zero", "full", "random", "urandom", "tty"):
        (dev / name).touch()
        mount(f"/dev/{name}", dev / name, flags=MS_BIND)
    (dev / "pts").mkdir()
    mount("devpts", dev / "pts", "devpts", 0, "newinstance,ptmxmode=0666,mode=620")
    links = {"ptmx": "pts/ptmx", "fd": "/proc/self/fd"}
    links |= {name: f"/proc/self/fd/{i}" for i, name in enumerate(("stdin", "stdout", "stderr"))}
    for name, target in links.items():
        (dev / name).symlink_to(target)

    (dev / "__properties__").write_text("".join(f"{name}={text}\n" for name, text in properties.items()))
    (dev / "__properties__").chmod(0o444)
    processors = "".join(_PROCESSOR.format(number=i) for i in range(os.cpu_count() or 1))
    # The kernel below was not rebooted: its boot_id would stay.
    for name, text in (("cpuinfo", processors), ("sys/kernel/random/boot_id", f"{uuid.uuid4()}\n")):
        file = dev / f".{Path(name).name}"
        file.write_text(text)
        file.chmod(0o444)
        mount(file, root / "proc" / name, flags=MS_BIND)


def _become_adbd(root: Path) -> NoReturn:
    try:
        os.setsid()
        os.dup2(2, 1)
        os.chroot(root)
        os.chdir("/")
        os.setgroups([SHELL])
        os.setgid(SHELL)
        os.setuid(SHELL)
        os.execve(ADBD[0], ADBD, ENVIRONMENT)
    except OSError:
        traceback.print_exc()
    os._exit(127)


def main() -> None:
    """The hardware: assembled once, then commanded until the other side goes."""
    os.umask(0o022)
    settings = json.loads(sys.argv[1])
    hardware = Hardware(Path(settings["root"]), settings["data_mb"], settings["properties"])
    try:
        hardware.assemble()
        answer(done="assemble")
        for line in sys.stdin:
            command = line.strip()
            if command == "boot":
                answer(done=command, init=hardware.boot())
            elif command in ("off", "wipe"):
                hardware.off()
                if command == "wipe":
                    hardware.wipe()
                answer(done=command)
    except OSError as error:
        answer(failed=str(error))
    finally:
        hardware.off()


if __name__ == "__main__":
    main()
