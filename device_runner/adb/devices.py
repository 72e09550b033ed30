"""What is attached: which device is meant, what it is, and what to do where it cannot be used."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from edgeprivacy.device_runner.adb.client import Adb, Attached, next_step
from edgeprivacy.errors import RunnerError

ROOT = "/data/local/tmp/edgeprivacy"
"""Everything of ours on a device lies below this folder."""
MACHINES = {"arm64-v8a": "aarch64", "x86_64": "x86_64"}
"""Android's names of the processors that there are runner programs for, and the compilers' names."""
_PROPERTIES = {
    "manufacturer": "ro.product.manufacturer",
    "model": "ro.product.model",
    "abi": "ro.product.cpu.abi",
    "abis": "ro.product.cpu.abilist",
    "android": "ro.build.version.release",
    "sdk": "ro.build.version.sdk",
    "fingerprint": "ro.build.fingerprint",
    "soc": "ro.soc.model",
    "hardware": "ro.hardware",
    "serialno": "ro.serialno",
}


@dataclass(frozen=True)
class DeviceFacts:
    """What a device says of itself.

    Attributes:
        serial: As adb names it.
        properties: See `_PROPERTIES`; empty texts where it does not say.
        kernel: Name, release and machine of its kernel.
        user: Who commands run as.
        boot: Changes when it is rebooted.
        free_bytes: Room below /data/local/tmp.
    """

    serial: str
    properties: dict[str, str]
    kernel: str
    user: str
    boot: str
    free_bytes: int

    @property
    def machine(self) -> str | None:
        """The first of its processors' names that there is a runner for, as compilers write it."""
        listed = (self.properties["abis"] or self.properties["abi"]).split(",")
        return next((MACHINES[abi] for abi in listed if abi in MACHINES), None)

    @property
    def identity(self) -> dict[str, str]:
        """What decides a device's answers beside the runner, and which device it was; the serial number is
        that of the hardware, as a hash: reports travel."""
        number = self.properties["serialno"] or self.serial
        named = ("manufacturer", "abi", "android", "sdk", "fingerprint", "soc", "hardware")
        return {
            **{name: self.properties[name] for name in named},
            "model_name": self.properties["model"],
            "kernel": self.kernel,
            "serial_sha256": hashlib.sha256(number.encode()).hexdigest()[:16],
        }


def choose(adb: Adb, serials: Sequence[str]) -> list[str]:
    """The serials of the devices that are meant, each ready for use.

    Args:
        serials: As asked for: a serial, "" for the only device, or "all".

    Raises:
        RunnerError: None, several where one is meant, not attached, or not ready; says what to do.
    """
    attached = adb.attached()
    states = {entry.serial: entry.state for entry in attached}
    listed = ", ".join(f"{serial} ({state})" for serial, state in states.items()) or "none"
    chosen: list[str] = []
    for asked in serials:
        if asked not in ("", "all"):
            found = [asked]
        elif not states:
            raise RunnerError(
                "no device is attached",
                hint="plug one in with USB debugging on, or: adb connect HOST:PORT",
            )
        elif asked == "all":
            found = [serial for serial, state in states.items() if state == "device"]
            if not found:
                raise RunnerError("no attached device is ready", got=listed, hint=_steps(attached))
        elif len(states) == 1:
            found = list(states)
        else:
            # Not the only ready one of several: which device was audited must not depend on a loose cable.
            raise RunnerError(
                "several devices are attached",
                got=listed,
                hint="say which: --device adb:SERIAL, several times for several, or adb:all",
            )
        for serial in found:
            state = states.get(serial, "not attached")
            if state != "device":
                got = f"state {state}; attached: {listed}"
                raise RunnerError(f"{serial} cannot be used", got=got, hint=next_step(state))
            if serial not in chosen:
                chosen.append(serial)
    return chosen


def _steps(attached: Sequence[Attached]) -> str:
    return "; ".join(f"{e.serial}: {step}" for e in attached if (step := next_step(e.state)))


def read_facts(adb: Adb) -> DeviceFacts:
    """Ask a ready device what it is, in one call.

    Raises:
        RunnerError: The link was lost or the device hangs.
    """
    asked = [f"getprop {shlex.quote(name)}" for name in _PROPERTIES.values()]
    lines = [
        *(f'echo "$({command})"' for command in asked),
        'echo "$(uname -s -r -m)"',
        'echo "$(id -u -n)"',
        'echo "$(cat /proc/sys/kernel/random/boot_id)"',
        "df -k /data/local/tmp | tail -n 1",
    ]
    answer = adb.shell("; ".join(lines)).output.splitlines()
    if len(answer) < len(lines):
        raise RunnerError(f"{adb.serial} does not answer like an Android device", got=answer[-1:])
    values = [line.strip() for line in answer]
    properties = dict(zip(_PROPERTIES, values, strict=False))
    kernel, user, boot, free = values[len(_PROPERTIES) : len(lines)]
    return DeviceFacts(adb.serial or "", properties, kernel, user, boot, _available(free))


def free_bytes(adb: Adb) -> int:
    """Room below /data/local/tmp."""
    return _available(adb.shell("df -k /data/local/tmp | tail -n 1").output)


def _available(line: str) -> int:
    """Bytes available, from a line of `df -k`: the third column from its end."""
    words = line.split()
    if len(words) < 5 or not words[-3].isdigit():
        raise RunnerError("the device does not say how much room it has", got=line.strip()[:200])
    return int(words[-3]) * 1024
