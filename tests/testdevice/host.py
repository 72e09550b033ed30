"""What tests ask of the machine that they run on: ports, processes, and to wait."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from pathlib import Path


def free_port() -> int:
    """A TCP port of the loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(true: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for a condition.

    Raises:
        TimeoutError: It did not come; `what` is told.
    """
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come within {seconds:g} s")
        time.sleep(0.02)


def all_processes() -> list[tuple[int, int, int]]:
    """Id, parent's id, and id in the innermost namespace of every process."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            status = (entry / "status").read_text()
        except OSError:
            continue  # ended in between
        parent = re.search(r"^PPid:\s+(\d+)$", status, re.MULTILINE)
        inner = re.search(r"^NSpid:.*?(\d+)$", status, re.MULTILINE)
        if parent and inner:
            found.append((int(entry.name), int(parent[1]), int(inner[1])))
    return found


def runs(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    return re.search(r"^State:\s+[ZX]", status, re.MULTILINE) is None


def listens(pid: int, port: int) -> bool:
    """Whether a process has the socket that listens on a port. No connection is tried: adbd would see it."""
    for table in ("tcp", "tcp6"):
        file = Path(f"/proc/net/{table}")
        for line in file.read_text().splitlines() if file.exists() else ():
            words = line.split()
            if words[3] == "0A" and words[1].endswith(f":{port:04X}"):
                return f"socket:[{words[9]}]" in _open_files(pid)
    return False


def _open_files(pid: int) -> set[str]:
    found = set()
    for entry in Path(f"/proc/{pid}/fd").glob("*"):
        try:
            found.add(str(entry.readlink()))
        except OSError:
            continue
    return found
