"""The host runner: LiteRT's interpreter on this machine, in a child process."""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import importlib.util
import math
import mmap
import os
import platform
import threading
import weakref
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.confidences import Confidences, OutputGrid
from edgeprivacy.converters.tflite.container import TfliteFile
from edgeprivacy.converters.tflite.facts import tensor_facts
from edgeprivacy.device_runner.base import Queries, Runner
from edgeprivacy.device_runner.child import Child
from edgeprivacy.device_runner.inputs import InputFormat, check_rows, encode, input_format
from edgeprivacy.device_runner.outputs import OutputFormat, probabilities_of
from edgeprivacy.device_runner.scratch import scratch_folder
from edgeprivacy.errors import ArtifactError, MissingDependency, StorageError, UsageError
from edgeprivacy.files import sha256_file

_CHUNK_BYTES = 1 << 22
_SLOTS = 3
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS)
_TOGETHER = 16
"""Files that are open in the interpreter at the same time."""
_BATCH = 256
_BATCH_BYTES = 1 << 20
"""Input bytes a batch: larger rows gain nothing from batching, their activations would leave the cache."""


class HostRunner(Runner):
    """Runs .tflite files in LiteRT's interpreter, isolated in one child process, kept for the next call.

    Inputs are prepared once per input format (integers: quantized with the file's own scale) and streamed in
    chunks through shared memory; all files of that format run on a chunk while the next one is prepared.
    Files with a resizable batch are run in batches whose answers are bit-equal to single rows (the child
    tries), others at their own batch.

    Args:
        kernels: "XNNPACK" (the interpreter's default) or "built-in"; on int8 files not the same model.
        threads: Of the interpreter.
        stall_seconds: Without a sign of life for so long, the child is taken for hung.
    """

    name: ClassVar[str] = "host"

    def __init__(
        self,
        kernels: Literal["XNNPACK", "built-in"] = "XNNPACK",
        threads: int = 1,
        stall_seconds: float = 600.0,
    ) -> None:
        if kernels not in ("XNNPACK", "built-in"):
            raise UsageError(f"unknown kernels '{kernels}'", allowed="XNNPACK, built-in")
        if threads < 1:
            raise UsageError("the interpreter needs a thread", got=threads)
        self.kernels, self.threads, self.stall_seconds = kernels, threads, stall_seconds
        self._lock = threading.Lock()
        self._child: Child | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"kernels": self.kernels, "threads": self.threads, "stall_seconds": self.stall_seconds}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def identity(self) -> dict[str, Any]:
        """What decides the answers: runtime, version, library hash, kernels, threads, platform, machine, cpu.

        Raises:
            MissingDependency: The extra "litert" is not installed.
        """
        return {
            "device": self.name,
            "runtime": "litert",
            **_runtime(),
            "kernels": self.kernels,
            "threads": self.threads,
        }

    def collect(
        self, artifacts: Sequence[Path], queries: Queries, *, logits: bool = False
    ) -> list[Confidences]:
        """See `Runner.collect`. Facts of each result: those of `identity`; sha256 of the file and of the
        input rows' bytes as the child saw them; batch, rows, seconds in the interpreter, rows per second."""
        identity = self.identity()
        if not artifacts:
            return []
        check_rows(queries.x, queries.labels, queries.row_ids)
        files = [_open(Path(path)) for path in artifacts]
        formats = [input_format(f.path, tensor_facts(f.inputs[0]), queries.x) for f in files]
        with self._lock, scratch_folder() as folder:
            try:
                reports = self._run(files, formats, queries, folder)
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
                self._confidences(file, folder / f"output{i}.npy", queries, logits, {**identity, **report})
                for i, (file, report) in enumerate(zip(files, reports, strict=True))
            ]

    def close(self) -> None:
        """Stop the child process. The next call starts another."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    def _run(
        self, files: list[TfliteFile], formats: list[InputFormat], queries: Queries, folder: Path
    ) -> list[dict[str, Any]]:
        """Reports in the order of the files; files that take the same rows and batch run together."""
        groups: dict[tuple[InputFormat, int, int], list[int]] = {}
        counts: Counter[tuple[InputFormat, int]] = Counter()
        for i, (file, format_) in enumerate(zip(files, formats, strict=True)):
            kind = (format_, max(0, file.inputs[0].signature[0]))
            groups.setdefault((*kind, counts[kind] // _TOGETHER), []).append(i)
            counts[kind] += 1
        reports: dict[int, dict[str, Any]] = {}
        for (format_, fixed_batch, _), members in groups.items():
            outputs = [folder / f"output{i}.npy" for i in members]
            stream = _plan(queries.x, format_, fixed_batch, folder / "ring")
            child = self._open_child()
            child.start_job(
                {
                    "models": [
                        {"path": str(files[i].path.absolute()), "output": str(output)}
                        for i, output in zip(members, outputs, strict=True)
                    ],
                    "kernels": self.kernels,
                    "threads": self.threads,
                    **stream,
                },
                [files[i].path for i in members],
            )
            inputs = {"inputs_sha256": _feed(child, stream, format_, queries)}
            reports |= zip(members, ({**inputs, **report} for report in child.finish()), strict=True)
        return [reports[i] for i in range(len(files))]

    def _open_child(self) -> Child:
        if self._child is not None and not self._child.alive:
            self.close()
        if self._child is None:
            self._child = Child(self.stall_seconds)
            weakref.finalize(self, self._child.stop)
        return self._child

    def _confidences(
        self, file: TfliteFile, output: Path, queries: Queries, logits: bool, facts: dict[str, Any]
    ) -> Confidences:
        raw: NDArray[Any] = np.load(output, allow_pickle=False)
        tensor = tensor_facts(file.outputs[0])
        grid, own = file.output_grid
        if grid is not None and own:
            # Without a softmax of ours the file's grid is the grid of the probabilities themselves.
            grid = OutputGrid(grid.scale, grid.zero_point, "logits" if logits else "probabilities")
        step = grid.scale if grid is not None and own else 0.0
        how = OutputFormat(file.path, tensor.scale, tensor.zero_point, step, file.ends_in)
        seconds = facts["seconds"]
        facts |= {
            "rows_per_second": facts["rows"] / seconds if seconds > 0 else None,
            "logits": logits,
            "model": file.path.name,
        }
        return Confidences(
            probabilities=probabilities_of(raw, how, logits),
            row_ids=queries.row_ids,
            labels=queries.labels,
            raw=raw if raw.dtype.kind in "iu" else None,
            grid=grid,
            facts=facts,
        )


def _open(path: Path) -> TfliteFile:
    file = TfliteFile(path)
    for what, tensors in (("input", file.inputs), ("output", file.outputs)):
        if len(tensors) != 1:
            raise ArtifactError(
                f"{path} has {len(tensors)} {what} tensors",
                allowed=f"one {what}",
                hint="split or wrap the model",
            )
    return file


def _plan(x: NDArray[Any], format_: InputFormat, fixed_batch: int, ring: Path) -> dict[str, Any]:
    """How rows are streamed to the child: the batch, and a ring of slots of whole batches each.

    The batch of a resizable file is the largest power of two of rows, at most 256, whose input stays small.
    """
    row_bytes = max(1, math.prod(x.shape[1:]) * np.dtype(format_.dtype).itemsize)
    batch = fixed_batch or min(_BATCH, 1 << (max(1, _BATCH_BYTES // row_bytes).bit_length() - 1))
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


@cache
def _runtime() -> dict[str, Any]:
    if importlib.util.find_spec("ai_edge_litert") is None:
        raise MissingDependency("running a .tflite file", extra="litert")
    return {
        "version": importlib.metadata.version("ai-edge-litert"),
        "library_sha256": _library_sha256(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu": _cpu(),
    }


def _library_sha256() -> str | None:
    """Hash of the wheel's native interpreter, found without importing it."""
    found = importlib.util.find_spec("ai_edge_litert")
    folders = [Path(p) for p in (found.submodule_search_locations or [])] if found else []
    for pattern in ("libpywrap_litert_common*", "_pywrap_litert_interpreter_wrapper*"):
        for folder in folders:
            for library in sorted(folder.glob(pattern)):
                return sha256_file(library)
    return None


def _cpu() -> str:
    """The processor's name: XNNPACK picks its kernels by it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()
