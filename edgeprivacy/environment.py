"""Where an audit ran: versions, machine, times. The one block of audit.json that may differ between runs."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from edgeprivacy import __version__
from edgeprivacy.backends.table import BACKENDS

if TYPE_CHECKING:
    from edgeprivacy.device_runner import Runner

PACKAGES = tuple(
    dict.fromkeys(
        (
            *("numpy", "scipy", "scikit-learn", "ai-edge-litert"),
            *(package for entry in BACKENDS.values() for package in entry.packages),
        )
    )
)


def package_versions() -> dict[str, str]:
    """Versions of the packages that shape results; absent ones are left out."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def describe(seconds: float, **more: Any) -> dict[str, Any]:
    """The environment block: JSON values only."""
    return {
        "edgeprivacy": __version__,
        "python": platform.python_version(),
        "packages": package_versions(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "peak_memory_mib": peak_memory_mib(),
        **more,
    }


def moved_bytes(runners: Sequence[Runner]) -> dict[str, dict[str, dict[str, int]]]:
    """The "moved_bytes" entry of the environment block, where anything moved: by device, "sent" and
    "fetched"."""
    found = {runner.label: runner.moved for runner in runners if runner.moved}
    return {"moved_bytes": found} if found else {}


def peak_memory_mib() -> dict[str, int] | None:
    """Largest resident memory of this process and of any finished child, in MiB; None where unknown."""
    try:
        import resource
    except ImportError:  # not on every platform
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        name: resource.getrusage(who).ru_maxrss * unit // 2**20
        for name, who in (("process", resource.RUSAGE_SELF), ("largest_child", resource.RUSAGE_CHILDREN))
    }
