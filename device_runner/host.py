"""The host runner: each file's own interpreter on this machine, in a child process."""

from __future__ import annotations

import errno
import hashlib
import math
import mmap
import os
import threading
import weakref
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.confidences import Confidences
from edgeprivacy.device_runner.answers import confidences_of
from edgeprivacy.device_runner.base import Queries, Runner
from edgeprivacy.device_runner.child import Child
from edgeprivacy.device_runner.inputs import InputFormat, check_rows, encode, input_format
from edgeprivacy.device_runner.runtimes import ModelFile, Runtime, machine, runtime_for, runtime_of
from edgeprivacy.errors import StorageError, UsageError
from edgeprivacy.scratch import scratch_folder

_CHUNK_BYTES = 1 << 22
_SLOTS = 3
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS)
_TOGETHER = 16
"""Files that are open in the interpreter at the same time."""
_BATCH = 256
_BATCH_BYTES = 1 << 20
"""Input bytes a batch: larger rows gain nothing from batching, their activations would leave the cache."""


class HostRunner(Runner):
    """Runs model files in their interpreters, each each in a child process kept for the next call.

    LiteRT runs .tflite files, ExecuTorch .pte programs, the lite interpreter .ptl files; a call may mix them.
    Inputs are prepared once per input format (integers: quantized with the file's own scale) and streamed in
    chunks through shared memory; all files of that format run on a chunk while the next one is prepared.
    Files that take any batch are run in batches whose answers are bit-equal to single rows (the child
    tries), others at their own batch.

    Args:
        kernels: Of LiteRT: "XNNPACK" (its default) or "built-in"; on int8 files not the same model. The other
            files name their own.
        threads: Of the interpreter.
        stall_seconds: Without a sign of life for so long, the child is taken for hung.
        largest_batch: Rows that are asked together, at most; 1 asks one by one, as an app does.
    """

    name: ClassVar[str] = "host"

    def __init__(
        self,
        kernels: Literal["XNNPACK", "built-in"] = "XNNPACK",
        threads: int = 1,
        stall_seconds: float = 600.0,
        largest_batch: int = _BATCH,
    ) -> None:
        if kernels not in ("XNNPACK", "built-in"):
            raise UsageError(f"unknown kernels '{kernels}'", allowed="XNNPACK, built-in")
        if threads < 1:
            raise UsageError("the interpreter needs a thread", got=threads)
        self.kernels, self.threads, self.stall_seconds = kernels, threads, stall_seconds
        self.largest_batch = largest_batch
        self._lock = threading.Lock()
        self._children: dict[Path, Child] = {}

    def __getstate__(self) -> dict[str, Any]:
        names = ("kernels", "threads", "stall_seconds", "largest_batch")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def identity(self, artifact: Path | None = None) -> dict[str, Any]:
        """See `Runner.identity`: runtime, version, library hash, kernels, threads, platform, machine, cpu.

        Raises:
            ArtifactError: The file is of no known container.
            MissingDependency: The extra that runs it is not installed.
        """
        return self._identity(artifact, runtime_for("tflite") if artifact is None else runtime_of(artifact))

    def _identity(self, artifact: Path | None, runtime: Runtime) -> dict[str, Any]:
        return {
            "device": self.name,
            "runtime": runtime.name,
            **runtime.version(),
            **machine(),
            "kernels": runtime.kernels(artifact, self.kernels),
            "threads": self.threads,
        }

    def ready(self, containers: Sequence[str]) -> None:
        """See `Runner.ready`: that the interpreters are installed."""
        for container in containers:
            runtime_for(container).version()

    def collect(
        self, artifacts: Sequence[Path], queries: Queries, *, logits: bool = False
    ) -> list[Confidences]:
        """See `Runner.collect`. Facts of each result: those of `identity`; sha256 of the file and of the
        input rows' bytes as the child saw them; batch, rows, seconds in the interpreter, rows per second."""
        paths = [Path(path) for path in artifacts]
        runtimes = [runtime_of(path) for path in paths]
        known = zip(paths, runtimes, strict=True)
        identities = [self._identity(path, runtime) for path, runtime in known]
        if not paths:
            return []
        check_rows(queries.x, queries.labels, queries.row_ids)
        runs = []
        for path, runtime, identity in zip(paths, runtimes, identities, strict=True):
            file = runtime.open(path)
            format_ = input_format(path, file.input, queries.x)
            runs.append(_Run(file, runtime, identity, format_))
        with self._lock, scratch_folder("rows") as folder:
            try:
                reports = self._run(runs, queries, folder)
            except OSError as error:
                self.close()
                if error.errno not in _NO_SPACE:
                    raise
                raise StorageError(
                    "cannot write temporary files", got=error.strerror, hint="free some space or set TMPDIR"
                ) from error
            except BaseException:
                self.close()
                raise
            return [
                confidences_of(
                    run.file,
                    np.load(folder / f"output{i}.npy", allow_pickle=False),
                    queries,
                    logits,
                    {**run.identity, **report},
                )
                for i, (run, report) in enumerate(zip(runs, reports, strict=True))
            ]

    def close(self) -> None:
        """Stop the child processes. The next call starts others."""
        while self._children:
            self._children.popitem()[1].stop()

    def _run(self, runs: list[_Run], queries: Queries, folder: Path) -> list[dict[str, Any]]:
        """Reports in the order of the runs; files that take the same rows and batch run together."""
        groups: dict[tuple[Hashable, int], list[int]] = {}
        counts: Counter[Hashable] = Counter()
        for i, run in enumerate(runs):
            kind = (run.runtime.program, run.identity["kernels"], run.format, run.file.fixed_batch)
            groups.setdefault((kind, counts[kind] // _TOGETHER), []).append(i)
            counts[kind] += 1
        reports: dict[int, dict[str, Any]] = {}
        for members in groups.values():
            first = runs[members[0]]
            outputs = [folder / f"output{i}.npy" for i in members]
            batch = first.file.fixed_batch or self._batch(queries.x, first.format)
            stream = _plan(queries.x, first.format, batch, folder / "ring")
            child = self._open_child(first.runtime.program)
            child.start_job(
                {
                    "models": [
                        {"path": str(runs[i].file.path.absolute()), "output": str(output)}
                        for i, output in zip(members, outputs, strict=True)
                    ],
                    "kernels": first.identity["kernels"],
                    "threads": self.threads,
                    **stream,
                },
                [runs[i].file.path for i in members],
            )
            inputs = {"inputs_sha256": _feed(child, stream, first.format, queries)}
            reports |= zip(members, ({**inputs, **report} for report in child.finish()), strict=True)
        return [reports[i] for i in range(len(runs))]

    def _batch(self, x: NDArray[Any], format_: InputFormat) -> int:
        """Of a resizable file: the largest power of two of rows whose input stays small."""
        return min(self.largest_batch, 1 << (max(1, _BATCH_BYTES // _row_bytes(x, format_)).bit_length() - 1))

    def _open_child(self, program: Path) -> Child:
        if program in self._children and not self._children[program].alive:
            self._children.pop(program).stop()
        if program not in self._children:
            child = self._children[program] = Child(program, self.stall_seconds)
            weakref.finalize(self, child.stop)
        return self._children[program]


@dataclass(frozen=True)
class _Run:
    """A file of a call, what will run it, and how it takes the rows."""

    file: ModelFile
    runtime: Runtime
    identity: dict[str, Any]
    format: InputFormat


def _row_bytes(x: NDArray[Any], format_: InputFormat) -> int:
    return max(1, math.prod(x.shape[1:]) * np.dtype(format_.dtype).itemsize)


def _plan(x: NDArray[Any], format_: InputFormat, batch: int, ring: Path) -> dict[str, Any]:
    """How rows are streamed to the child: a ring of slots of whole batches each."""
    row_bytes = _row_bytes(x, format_)
    chunk_rows = batch * max(1, _CHUNK_BYTES // (batch * row_bytes))
    page = mmap.ALLOCATIONGRANULARITY
    slot_bytes = -(-min(chunk_rows, len(x)) * row_bytes // page) * page
    with ring.open("wb") as stream:
        # Reserved for real: a full disk is an error here, and a signal when a mapped page is written.
        os.posix_fallocate(stream.fileno(), 0, _SLOTS * slot_bytes)
    return {
        "ring": str(ring),
        "slots": _SLOTS,
        "slot_bytes": slot_bytes,
        "chunk_rows": chunk_rows,
        "rows": len(x),
        "row_shape": list(x.shape[1:]),
        "dtype": np.dtype(format_.dtype).str,
        "batch": batch,
    }


def _feed(child: Child, plan: dict[str, Any], format_: InputFormat, queries: Queries) -> str:
    """Prepare the rows chunk by chunk, the child runs one while the next are prepared; their sha256."""
    known = queries.sha256.get(format_)
    x, rows, slots = queries.x, plan["chunk_rows"], plan["slots"]
    ring = np.memmap(plan["ring"], np.uint8, mode="r+").reshape(slots, plan["slot_bytes"])
    digest = hashlib.sha256()
    for chunk, start in enumerate(range(0, len(x), rows)):
        part = x[start : start + rows]
        if chunk >= slots:
            child.wait_free(chunk - slots)
        content = ring[chunk % slots, : part.size * np.dtype(format_.dtype).itemsize]
        encode(
            part,
            format_,
            queries.row_ids[start : start + rows],
            out=content.view(format_.dtype).reshape(part.shape),
        )
        child.ready(chunk)
        if known is None:
            digest.update(content.data)
    return queries.sha256.setdefault(format_, digest.hexdigest())
