"""What is attached, for people: what it is, what fits it, and the next step where something is wrong."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from edgeprivacy.device_runner.adb.client import Adb, Attached, next_step
from edgeprivacy.device_runner.adb.devices import read_facts
from edgeprivacy.device_runner.bundle import PROGRAMS
from edgeprivacy.errors import RunnerError

LEAST_FREE = 256 << 20
"""Room below which the runners, a model and a chunk of rows may not fit."""


@dataclass(frozen=True)
class Listed:
    """One device.

    Attributes:
        state: As adb says it.
        model, android, abi: Empty where the device cannot be asked.
        free_bytes: Room for what is sent; None where unknown.
        runs: Containers that a runner program fits; empty for none.
        next_step: What to do, or "" where it is ready.
    """

    serial: str
    state: str
    model: str = ""
    android: str = ""
    abi: str = ""
    free_bytes: int | None = None
    runs: tuple[str, ...] = ()
    next_step: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready content."""
        return asdict(self)


def list_devices(adb: Adb) -> list[Listed]:
    """Everything that is attached; a device that does not answer is listed with what to do.

    Raises:
        RunnerError: adb itself does not answer.
    """
    return [_look_at(adb, entry) for entry in adb.attached()]


def _look_at(adb: Adb, entry: Attached) -> Listed:
    step = next_step(entry.state)
    if entry.state != "device":
        model = entry.about.get("model", "").replace("_", " ")
        return Listed(entry.serial, entry.state, model, next_step=step or "")
    try:
        facts = read_facts(adb.of(entry.serial))
    except RunnerError as error:
        return Listed(entry.serial, entry.state, next_step=str(error))
    asked = facts.properties
    android = f"{asked['android']} (API {asked['sdk']})" if asked["sdk"] else asked["android"]
    name = " ".join(word for word in (asked["manufacturer"], asked["model"]) if word)
    fits = facts.machine is not None
    if not fits:
        step = (
            f"no runner for {asked['abis'] or asked['abi'] or 'its processor'}: arm64-v8a or x86_64 is needed"
        )
    elif facts.free_bytes < LEAST_FREE:
        step = "free some space on it; `edgeprivacy devices --clean` removes what this tool keeps there"
    return Listed(
        entry.serial,
        entry.state,
        name,
        android,
        asked["abi"],
        facts.free_bytes,
        tuple(PROGRAMS) if fits else (),
        step or "",
    )
