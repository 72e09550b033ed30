"""What this machine can do: packages of each extra, interpreter, cache, machine. Imports no framework."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement

from edgeprivacy.cache import default_cache_folder
from edgeprivacy.errors import EdgePrivacyError, MissingDependency

State = Literal["ok", "missing", "wrong", "failed", "info"]

ABOUT = {
    "litert": "run, attack and inspect a .tflite",
    "tflite": "train, compress and convert Keras models",
    "executorch": "train, compress and convert torch models, run .pte and .ptl",
    "dp": "account for differentially private training (defense dpsgd)",
    "tune": "search for the best defense within a budget",
    "adb": "run files on an Android device",
    "images": "read folders of images",
}
"""Extras by name, and what each is for; those that only serve the project's own work are left out."""
_RUN_A_FILE = {"tflite": ("litert", "tflite"), "pte": ("executorch",), "ptl": ("executorch",)}
"""Containers, and the extras that bring an interpreter for each."""
_LEAST_FREE = 2 << 30
"""Free bytes in the cache folder below which a run with shadows may not finish."""


@dataclass(frozen=True)
class Check:
    """One thing looked at. `hint` is the next step where it is not "ok" or "info"."""

    name: str
    state: State
    detail: str
    hint: str = ""


@dataclass(frozen=True)
class Extra:
    """An extra of the package: "ok" if all its packages are there in versions that fit."""

    name: str
    about: str
    state: State
    packages: tuple[Check, ...]
    hint: str = ""


@dataclass(frozen=True)
class Health:
    """All checks. `works` says whether a model file can be run here at all."""

    works: bool
    checks: tuple[Check, ...]
    extras: tuple[Extra, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready content."""
        return asdict(self)


def examine() -> Health:
    """Look at everything; nothing is raised for what is missing."""
    requirements = [Requirement(text) for text in metadata.requires("edgeprivacy") or []]
    core = _extra("core", "", [entry for entry in requirements if entry.marker is None])
    extras = tuple(
        _extra(name, about, [entry for entry in requirements if _belongs(entry, name)])
        for name, about in ABOUT.items()
    )
    interpreters = {container: check_interpreter(container) for container in _RUN_A_FILE}
    checks = (
        Check("python", "ok", f"{platform.python_version()} at {sys.executable}"),
        Check("core packages", core.state, _listed(core), core.hint),
        *interpreters.values(),
        *_devices(),
        *_cache(default_cache_folder()),
        *_machine(),
    )
    ready = {extra.name for extra in extras if extra.state == "ok"}
    works = any(
        check.state == "ok" and ready.intersection(_RUN_A_FILE[container])
        for container, check in interpreters.items()
    )
    return Health(works and core.state == "ok", checks, extras)


def check_interpreter(container: str) -> Check:
    """Write a one-operator file, run it in its interpreter's process, and compare with the arithmetic."""
    import numpy as np

    from edgeprivacy.device_runner import Queries, open_runner
    from edgeprivacy.doctor_models import CLASSES, softmax_model

    name = f"runs .{container}"
    try:
        runner = open_runner("host")
        x = np.arange(CLASSES, dtype=np.float32)[None]
        with tempfile.TemporaryDirectory(prefix="edgeprivacy-doctor-") as folder:
            path = Path(folder) / f"softmax.{container}"
            path.write_bytes(softmax_model(container))
            queries = Queries(x, np.array(["row"]), np.array([3], dtype=np.int64))
            answer = runner.collect([path], queries)[0]
        facts, answered = answer.facts, answer.probabilities[0]
        expected = np.exp(x[0]) / np.exp(x[0]).sum()
        what = f"{facts['runtime']} {facts['version']}, {facts['kernels']} kernels"
        if not np.allclose(answered, expected, atol=1e-5):
            return Check(name, "wrong", f"{what}: a softmax came out as {answered.tolist()}", "reinstall it")
        return Check(name, "ok", f"{what}: loads, runs, and gives the right answer")
    except (EdgePrivacyError, OSError, ImportError) as error:
        state: State = "missing" if isinstance(error, MissingDependency | ImportError) else "failed"
        said = [str(part) for part in (getattr(error, "what", error), getattr(error, "got", None)) if part]
        return Check(name, state, ": ".join(said), str(getattr(error, "hint", "") or ""))


def _devices() -> Iterator[Check]:
    """What --device adb and --device native need; neither is needed for files that run on the host."""
    from edgeprivacy.device_runner.adb.client import Adb
    from edgeprivacy.device_runner.building import missing_tools
    from edgeprivacy.device_runner.bundle import this_machine

    for title, machine in (("compiler", this_machine()), ("compiler for phones", "aarch64")):
        lacking = missing_tools(machine)
        state: State = "info" if lacking else "ok"
        words = f"not found: {', '.join(lacking)}" if lacking else f"builds runners for {machine}"
        yield Check(title, state, words, f"install {', '.join(lacking.values())}" if lacking else "")
    try:
        adb = Adb()
    except EdgePrivacyError as error:
        yield Check("adb", "info", error.what, error.hint or "")
        return
    # Not asked for devices: that would start a server, which stays.
    yield Check("adb", "ok", f"{adb.program}; `edgeprivacy devices` lists what is attached")


def _belongs(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is not None and requirement.marker.evaluate({"extra": extra})


def _extra(name: str, about: str, requirements: list[Requirement]) -> Extra:
    packages = tuple(_package(requirement) for requirement in requirements)
    state: State = next((entry.state for entry in packages if entry.state != "ok"), "ok")
    target = "edgeprivacy" if name == "core" else f"edgeprivacy[{name}]"
    return Extra(name, about, state, packages, "" if state == "ok" else f"pip install '{target}'")


def _package(requirement: Requirement) -> Check:
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return Check(requirement.name, "missing", "not installed")
    if not requirement.specifier.contains(version, prereleases=True):
        return Check(requirement.name, "wrong", f"{version}, needs {requirement.specifier}")
    return Check(requirement.name, "ok", version)


def _listed(extra: Extra) -> str:
    return ", ".join(f"{entry.name} {entry.detail}" for entry in extra.packages)


def _cache(folder: Path) -> Iterator[Check]:
    """Whether the cache can be written, what it holds, and how much room there is."""
    hint = "set XDG_CACHE_HOME to another folder"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as stream:
            stream.write(b"edgeprivacy")
        held = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    except OSError as error:
        yield Check("cache", "failed", f"{folder} cannot be written: {error.strerror}", hint)
        return
    yield Check("cache", "ok", f"{folder}, {_mebibytes(held)}")
    free = shutil.disk_usage(folder).free
    low = free < _LEAST_FREE
    yield Check(
        "free disk", "wrong" if low else "ok", _mebibytes(free), f"free some, or {hint}" if low else ""
    )


def _machine() -> Iterator[Check]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Check("cores", "info", f"{usable} of {os.cpu_count()} usable")
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on every platform
        return
    yield Check("memory", "info", _mebibytes(memory))


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"
