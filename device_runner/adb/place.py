"""A device at the other end of adb as a place for runner programs.

Below ROOT on the device:

    cache/NAME      folders of a bundle's files, named by their content; `edgeprivacy devices --clean`
    job-HEX         the folder of one run

A run's folder is removed by a guard: a shell on the device that waits for the end of its input. That comes
when this side closes it, is killed, or loses the link; then the guard ends what runs and removes the folder.
Only a reboot leaves one behind; the next run removes folders whose guard is gone.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import selectors
import shlex
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgeprivacy.device_runner.adb.client import Adb, no_room, read_status, time_limit, with_status
from edgeprivacy.device_runner.adb.devices import ROOT, DeviceFacts, free_bytes, read_facts
from edgeprivacy.device_runner.bundle import Bundle, bundle_for
from edgeprivacy.device_runner.place import STALL_SECONDS, Ended, Place, stalled
from edgeprivacy.errors import RunnerError
from edgeprivacy.files import sha256_file
from edgeprivacy.scratch import scratch_folder

_MARGIN_BYTES = 1 << 22
"""Room that is left on the device beside what is sent: outputs and reports."""
_BEAT_SECONDS = 2
_LOADERS = {"aarch64": "ld-linux-aarch64.so.1", "x86_64": "ld-linux-x86-64.so.2"}


class AdbPlace(Place):
    """One device.

    Args:
        adb: Bound to the device.

    Raises:
        RunnerError: The device cannot be used; says why and what to do.
    """

    def __init__(self, adb: Adb) -> None:
        super().__init__()
        self.adb = adb
        self.name = f"adb:{adb.serial}"
        self.facts: DeviceFacts = read_facts(adb)
        machine = self.facts.machine
        if machine is None:
            said = self.facts.properties["abis"] or self.facts.properties["abi"] or "nothing"
            raise RunnerError(
                f"there is no runner for the processor of {adb.serial}",
                got=f"ABI {said}",
                allowed="arm64-v8a, x86_64",
            )
        self.machine = machine
        self._guard: _Guard | None = None
        self._there: dict[str, bool] = {}
        self._installed: dict[str, str] = {}
        self._hasher: list[str] = []

    def identity(self) -> dict[str, Any]:
        """See `Place.identity`. The bundle brings its own C library: that, too, is part of what ran."""
        return {**self.facts.identity, "machine": self.machine, "runtime_build": "linux-glibc"}

    def state(self) -> dict[str, Any]:
        """See `Place.state`: temperature and charge of the battery, and the hottest sensor, where they can be
        read."""
        command = (
            "dumpsys battery 2>/dev/null | grep -E 'temperature|level'; "
            "cat /sys/class/thermal/thermal_zone*/temp 2>/dev/null | sort -n | tail -n 1"
        )
        found: dict[str, Any] = {}
        for line in self.adb.shell(command, check=False).output.splitlines():
            name, _, value = line.strip().partition(":")
            with suppress(ValueError):
                if name == "temperature":
                    found["battery_celsius"] = int(value) / 10
                elif name == "level":
                    found["battery_percent"] = int(value)
                elif not value and name:
                    found["hottest_celsius"] = int(name) / 1000
        return found

    def bundle(self, runtime: str) -> Bundle:
        """See `Place.bundle`. A device has another C library than the runtimes were built for."""
        return bundle_for(runtime, self.machine, static=True)

    @property
    def folder(self) -> str:
        """The run's folder on the device."""
        if self._guard is None or not self._guard.alive:
            self.close()
            self._guard = _Guard(self.adb)
        return self._guard.folder

    def install(self, bundle: Bundle) -> list[str]:
        """See `Place.install`. What the device's cache holds is hashed once a run, and sent anew if wrong."""
        digests = {name: sha256_file(path) for name, path in sorted(bundle.files.items())}
        identity = hashlib.sha256("".join(f"{n}:{d};" for n, d in digests.items()).encode()).hexdigest()[:16]
        folder = f"{ROOT}/cache/{bundle.runtime}-{bundle.machine}-{identity}"
        if self._installed.get(bundle.runtime) != folder:
            self._bring(bundle, folder, digests)
            self._installed[bundle.runtime] = folder
        loader = [f"{folder}/{_LOADERS[bundle.machine]}", "--library-path", folder]
        start = [*loader, f"{folder}/{bundle.program.name}"]
        self._hasher = self._hasher or [*start, "--hash"]
        return [*start, *bundle.arguments(folder)]

    def _bring(self, bundle: Bundle, folder: str, digests: Mapping[str, str]) -> None:
        self.folder  # noqa: B018 - the run's folder first: a cleaning leaves caches alone while there is one
        self.adb.shell(f"mkdir -p {shlex.quote(folder)}")
        found = self._hashes([f"{folder}/{name}" for name in digests])
        missing = [name for name, digest in digests.items() if found.get(f"{folder}/{name}") != digest]
        if missing:
            self._send({name: bundle.files[name] for name in missing}, folder)
        programs = [bundle.program.name, _LOADERS[bundle.machine]]
        quoted = " ".join(shlex.quote(f"{folder}/{name}") for name in programs)
        self.adb.shell(f"chmod 755 {quoted}")

    def has(self, name: str) -> bool:
        """See `Place.has`."""
        self.folder  # noqa: B018 - a new folder forgets what the last one held
        return name in self._there

    def put(self, files: Mapping[str, Path], keep: bool = False) -> None:
        """See `Place.put`."""
        self.folder  # noqa: B018 - a new folder forgets what the last one held
        missing = {name: path for name, path in files.items() if name not in self._there}
        if missing:
            self._make_room(sum(path.stat().st_size for path in missing.values()))
            self._send(missing, self.folder)
            self._there.update(dict.fromkeys(missing, keep))

    def _make_room(self, size: int) -> None:
        free = free_bytes(self.adb)
        kept = [name for name, keep in self._there.items() if keep]
        while free < size + _MARGIN_BYTES and kept:
            self.drop([kept.pop(0)])
            free = free_bytes(self.adb)
        if free < size + _MARGIN_BYTES:
            raise no_room(self.name, f"{free >> 20} MiB free, {(size + _MARGIN_BYTES) >> 20} MiB needed")

    def _send(self, files: Mapping[str, Path], folder: str) -> None:
        """Push files into a part of the run's folder, which goes with the run; hash them on the device, then
        rename them to where they are meant."""
        name = f"part-{secrets.token_hex(4)}"
        part = f"{self.folder}/{name}"
        with scratch_folder("push") as staging:
            (staging / name).mkdir()
            for own, path in files.items():
                (staging / name / own).symlink_to(path.absolute())
            self.adb.shell(f"mkdir {shlex.quote(part)}")
            self.adb.push(list((staging / name).iterdir()), f"{part}/")
        self.moved["sent"] += sum(path.stat().st_size for path in files.values())
        found = self._hashes([f"{part}/{own}" for own in files])
        for own, path in files.items():
            if found.get(f"{part}/{own}") != sha256_file(path):
                raise RunnerError(
                    f"{path.name} did not arrive on {self.adb.serial} as it was sent",
                    got="another hash",
                    hint="check the cable or the network, and run the same command again",
                )
        moves = [f"mv -f {shlex.quote(f'{part}/{own}')} {shlex.quote(f'{folder}/{own}')}" for own in files]
        self.adb.shell(" && ".join([*moves, f"rmdir {shlex.quote(part)}"]))

    def _hashes(self, paths: Sequence[str]) -> dict[str, str]:
        """sha256 of files on the device; those that are not there are left out."""
        # The runner program, once it is known to be right, hashes several times as fast as Android's tool.
        hasher = shlex.join(self._hasher or ["sha256sum"])
        quoted = " ".join(map(shlex.quote, paths))
        answer = self.adb.shell(f"{hasher} {quoted} 2>/dev/null", seconds=4 * time_limit(), check=False)
        lines = (line.split(None, 1) for line in answer.output.splitlines())
        return {words[1].strip(): words[0] for words in lines if len(words) == 2}

    def run(self, command: Sequence[str], outputs: Sequence[str]) -> Ended:
        """See `Place.run`. The device says every two seconds how far it got."""
        nonce = secrets.token_hex(8)
        sizes = " ".join(map(shlex.quote, outputs))
        # Its number first, and only then the look for the guard, which goes the other way round: whichever
        # comes second sees the other, and no program outlives the end of its run.
        start = f"echo $$ > running && [ -f guard ] && exec {shlex.join(command)}"
        line = (
            f"cd {shlex.quote(self.folder)} && {{ sh -c {shlex.quote(start)} </dev/null >log 2>&1 & pid=$!; "
            f"( while kill -0 $pid 2>/dev/null; do echo beat $(stat -c %s {sizes} 2>/dev/null); "
            f"sleep {_BEAT_SECONDS}; done ) & "
            f"wait $pid; status=$?; rm -f running; kill $! 2>/dev/null; tail -c 4000 log; exit $status; }}"
        )
        process = subprocess.Popen(
            self.adb.command("shell", with_status(line, nonce)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            said = self._listen(process)
        finally:
            with suppress(OSError):
                process.kill()
            process.wait()
        answer = read_status(said, nonce)
        if answer is None:
            words = [line for line in said.splitlines() if line.strip() and not line.startswith("beat")]
            raise self.adb.lost("a run", words[-1] if words else "")
        status, output = answer
        return Ended(status, "\n".join(x for x in output.splitlines() if not x.startswith("beat")))

    def _listen(self, process: subprocess.Popen[bytes]) -> str:
        """All that the command says; an error if it falls silent, or its outputs stop growing."""
        assert process.stdout is not None
        said, last_beat, grown = b"", b"", time.monotonic()
        limit = time_limit()
        os.set_blocking(process.stdout.fileno(), False)
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while True:
                if not selector.select(limit):
                    raise self.adb.hung("a run", limit)
                received = os.read(process.stdout.fileno(), 1 << 16)
                if not received:
                    return said.decode(errors="replace")
                said = (said + received)[-(1 << 16) :]
                beats = [line for line in said.splitlines() if line.startswith(b"beat")]
                if beats and beats[-1] != last_beat:
                    last_beat, grown = beats[-1], time.monotonic()
                elif time.monotonic() - grown > STALL_SECONDS:
                    raise stalled(self.name)

    def fetch(self, names: Sequence[str], folder: Path) -> None:
        """See `Place.fetch`."""
        quoted = " ".join(shlex.quote(f"{self.folder}/{name}") for name in names)
        sizes = self.adb.shell(f"stat -c %s {quoted}").output.split()
        size = sum(int(word) for word in sizes if word.isdigit())
        come = f".come-{secrets.token_hex(4)}"
        moved = (
            f"cd {shlex.quote(self.folder)} && mkdir {come} && mv {' '.join(map(shlex.quote, names))} {come}/"
        )
        self.adb.shell(moved)
        with scratch_folder("pull") as staging:
            self.adb.pull(f"{self.folder}/{come}", staging / "come", size)
            self.moved["fetched"] += size
            for name in names:
                if not (staging / "come" / name).is_file():
                    raise self.adb.lost("a pull", f"{name} did not come")
                shutil.move(staging / "come" / name, folder / name)
        self.adb.shell(f"rm -rf {shlex.quote(f'{self.folder}/{come}')}")

    def drop(self, names: Sequence[str]) -> None:
        """See `Place.drop`."""
        for name in names:
            self._there.pop(name, None)
        quoted = " ".join(shlex.quote(f"{self.folder}/{name}") for name in names)
        if quoted:
            self.adb.shell(f"rm -f {quoted}")

    def close(self) -> None:
        """See `Place.close`."""
        guard, self._guard = self._guard, None
        self._there, self._installed, self._hasher = {}, {}, []
        if guard is not None:
            guard.release()


class _Guard:
    """The shell on the device that removes a run's folder when this side goes."""

    def __init__(self, adb: Adb) -> None:
        self.folder = f"{ROOT}/job-{secrets.token_hex(8)}"
        remove_stale(adb)
        folder = shlex.quote(self.folder)
        # A folder that appears whole: a cleaning never sees one without its guard's number.
        script = (
            "trap '' HUP INT TERM PIPE; "
            f"mkdir -p {ROOT}/cache && chmod 771 {ROOT} && "
            f"mkdir -m 700 {folder}.new && echo $$ > {folder}.new/guard && "
            f"cat /proc/sys/kernel/random/boot_id > {folder}.new/boot && mv {folder}.new {folder} && "
            f"echo guarding && cat >/dev/null; rm -f {folder}/guard; "
            # Again while a command that started this very moment still writes into it.
            f"for i in 1 2 3 4 5 6 7 8 9; do [ -s {folder}/running ] && kill -9 $(cat {folder}/running); "
            f"rm -rf {folder} {folder}.new; [ -d {folder} ] || break; sleep 1; done 2>/dev/null; echo removed"
        )
        self._errors = b""
        self._process = subprocess.Popen(
            adb.command("shell", script),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        line = self._line(time_limit())
        if line != b"guarding":
            self.release()
            if line is None:
                raise adb.hung("shell", time_limit())
            said = line.decode(errors="replace")
            if "No space left" in said:
                raise no_room(f"adb:{adb.serial}", said)
            raise adb.lost("the start of a run", said)

    @property
    def alive(self) -> bool:
        """Whether the link that it hangs on is still up."""
        return self._process.poll() is None

    def _line(self, seconds: float) -> bytes | None:
        """The next line that it says; None if it says nothing for so long, b"" at its end."""
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                return None
            return self._process.stdout.readline().strip()

    def release(self) -> None:
        """Have the folder removed, and wait for that if the device still answers."""
        with suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        deadline = time.monotonic() + min(10.0, time_limit())
        with suppress(OSError, ValueError):
            while (left := deadline - time.monotonic()) > 0:
                line = self._line(left)
                if line in (None, b"", b"removed"):
                    break
        with suppress(OSError):
            self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def remove_stale(adb: Adb) -> None:
    """Remove run folders whose guard is gone: what a reboot in the middle of a run left."""
    adb.shell(
        f"cd {ROOT} 2>/dev/null || exit 0; boot=$(cat /proc/sys/kernel/random/boot_id); "
        "for job in job-*; do [ -d $job ] || continue; "
        # One that is being made this very moment has no number yet; a whole one without is being removed.
        "case $job in *.new) [ -f $job/guard ] || continue;; esac; "
        '[ "$(cat $job/boot)" = "$boot" ] && kill -0 $(cat $job/guard) && continue; '
        "rm -rf $job; done 2>/dev/null",
        check=False,
    )


def live_jobs(adb: Adb) -> list[str]:
    """Names of the runs that are going on on a device."""
    remove_stale(adb)
    answer = adb.shell(f"cd {ROOT} 2>/dev/null && ls -d job-* 2>/dev/null", check=False)
    return answer.output.split()


def clean(adb: Adb) -> int:
    """Empty a device of all that this tool keeps there; bytes that were freed.

    Raises:
        RunnerError: A run is going on there.
    """
    jobs = live_jobs(adb)
    if jobs:
        raise RunnerError(
            f"a run is going on on {adb.serial}",
            got=", ".join(jobs),
            hint="clean it when that has ended",
        )
    before = free_bytes(adb)
    adb.shell(f"rm -rf {ROOT}", seconds=4 * time_limit())
    return max(0, free_bytes(adb) - before)
