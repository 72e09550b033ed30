"""How long a file takes for a row, measured where the search runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgeprivacy.data.dataset import Dataset
from edgeprivacy.device_runner import Queries
from edgeprivacy.device_runner.host import HostRunner
from edgeprivacy.files import write_json

ROWS, PASSES = 200, 5
SAME = 1.1
"""Files whose times differ by less than this factor are taken for equally fast: a host is not that steady."""


def host_latencies(folder: Path, files: Mapping[str, str], rows: Dataset) -> dict[str, float]:
    """Milliseconds a row of each file, one row at a time: the least of some passes, which what else the
    machine does disturbs least. Kept in `folder`, so that a resumed search compares the same numbers.

    Args:
        folder: Of one setting's audit.
        files: Name of an artifact to its file below `folder`.
        rows: Of the pool; the first ones are asked.
    """
    kept = folder / "latency.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(kept.read_text())
        return {name: float(known[name]) for name in files}
    some = rows.take(rows.ids[:ROWS])
    measured = {name: _milliseconds(folder / file, some.x, some) for name, file in files.items()}
    write_json(kept, measured)
    return measured


def _milliseconds(path: Path, x: NDArray[Any], rows: Dataset) -> float:
    runner = HostRunner(largest_batch=1)
    try:
        runs = [runner.collect([path], Queries(x, rows.ids, rows.y))[0].facts for _ in range(PASSES)]
    finally:
        runner.close()
    return round(min(1000 * float(run["seconds"]) / len(x) for run in runs), 5)
