"""Runs model files where they ship and brings their confidences back."""

from __future__ import annotations

from collections.abc import Sequence

from edgeprivacy.device_runner.base import Queries, Runner

__all__ = ["DEVICES", "Queries", "Runner", "open_runner", "open_runners"]

DEVICES = "host, host:logits, native, adb, adb:SERIAL, adb:all"


def open_runner(device: str = "host") -> Runner:
    """The runner for one device.

    Args:
        device: "host", "host:logits", "native", "adb" (the only one attached) or "adb:SERIAL".

    Raises:
        UsageError: Unknown device, or several.
        RunnerError: The device is not there or not ready.
    """
    from edgeprivacy.errors import UsageError

    runners = open_runners((device,))
    if len(runners) > 1:
        raise UsageError("one device is needed here", got=", ".join(runner.label for runner in runners))
    return runners[0]


def open_runners(devices: Sequence[str]) -> list[Runner]:
    """A runner for each device, in order; the same device asked for twice is one.

    Args:
        devices: As `open_runner`, and "adb:all" for all that are ready.

    Raises:
        UsageError: Unknown device.
        RunnerError: A device is not there or not ready; says what to do.
    """
    from edgeprivacy.errors import UsageError, did_you_mean

    runners: list[Runner] = []
    serials = [name.partition(":")[2] for name in devices if name.partition(":")[0] == "adb"]
    ready: list[str] = []
    if serials:
        from edgeprivacy.device_runner.adb.client import Adb
        from edgeprivacy.device_runner.adb.devices import choose

        ready = choose(Adb(), serials)
    for name in dict.fromkeys(devices):
        if name == "host":
            from edgeprivacy.device_runner.host import HostRunner

            runners.append(HostRunner())
        elif name == "host:logits":
            from edgeprivacy.device_runner.logits_runner import LogitsRunner

            runners.append(LogitsRunner())
        elif name == "native":
            from edgeprivacy.device_runner.native_runner import NativeRunner

            runners.append(NativeRunner())
        elif name.partition(":")[0] == "adb":
            from edgeprivacy.device_runner.adb_runner import AdbRunner

            runners += [AdbRunner(serial) for serial in ready]
            ready = []
        else:
            raise UsageError(
                f"unknown device '{name}'", allowed=DEVICES, hint=did_you_mean(name, DEVICES.split(", "))
            )
    return runners
