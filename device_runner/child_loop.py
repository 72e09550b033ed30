"""Runs model files in an interpreter, in a process of its own. Started by child.py, never imported by it.

A damaged or hostile file may crash native code; then only this process dies. The first argument names the
program that knows one interpreter (litert_child.py, executorch_child.py, torch_child.py), the second, if
there is one, the parent's process id. Such a program imports numpy and its interpreter alone, so that the
process starts fast, and has two functions:

    prepare()                       import the interpreter, while the parent prepares the first rows
    open_model(content, job, first) a `Model` for a file's bytes; `first` are the first rows that it will run

Lines of JSON on stdin:
    {"job": {"models": [{"path", "output"}], "ring": path, "slots", "slot_bytes", "chunk_rows", "rows",
             "row_shape", "dtype", "kernels", "threads", "batch"}}
    {"ready": chunk}                rows [chunk * chunk_rows, ...) lie in slot chunk % slots of the ring
Lines of JSON on stdout:
    {"run": model}                  this model is opened, or runs a chunk
    {"free": chunk}                 all models have run this chunk; its slot can be written again
    {"done": [report, ...]}         one report a model
    {"error": {"kind", "message", "model"}}
                                    kinds: "model" (the file is refused), "version" (it was made for another
                                    version of the interpreter), "rows" (it does not take such rows),
                                    "runtime" (it failed while running), "storage" (an output cannot be
                                    written)

The ring is a memory-mapped file: rows in the models' own dtype go from the parent's cache to the
interpreter without ever being a whole file. All models of a job take the same rows and run chunk by chunk.
An output is a .npy file of [rows, columns], the output tensor as it is.
The process ends with stdin, that is with its parent.

Exit codes: 0 stdin ended, 3 the error reported on stdout, 4 an unforeseen error (on stderr), else a crash.
"""

import ctypes
import hashlib
import importlib.util
import json
import mmap
import os
import queue
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

FLUSH_BYTES = 1 << 22
PROBE_ROWS = 8


class Refused(Exception):
    """An error to report: kind and message."""

    def __init__(self, kind: str, message: object) -> None:
        super().__init__(str(message))
        self.kind = kind


class Model(Protocol):
    """A file that is open in its interpreter.

    `batch` rows are run at once; `resizable` says whether that was a choice. `facts` are added to the report.
    """

    batch: int
    resizable: bool
    facts: dict[str, Any]

    def run(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Blocks of [rows, columns] for any number of rows. A ValueError or RuntimeError is a failure."""


class Program(Protocol):
    """The module that knows one interpreter."""

    def prepare(self) -> None: ...

    def open_model(self, content: bytes, job: dict[str, Any], first: np.ndarray) -> Model: ...


def as_rows(out: np.ndarray, rows: int) -> np.ndarray:
    """An output tensor as [rows, columns].

    Raises:
        Refused: It is no vector a row.
    """
    wide = [size for size in out.shape[1:] if size != 1]
    if out.ndim == 0 or out.shape[0] != rows or len(wide) > 1:
        raise Refused(
            "model", f"output of shape {list(out.shape)} for {rows} rows; [rows, classes] is needed"
        )
    return out.reshape(rows, -1)


def same_alone(together: np.ndarray, rows: np.ndarray, execute: Callable[[np.ndarray], np.ndarray]) -> bool:
    """Whether rows that were run together got, bit for bit, the answers that they get one by one."""
    return all(
        np.array_equal(together[i : i + 1], execute(rows[i : i + 1]))
        for i in range(min(PROBE_ROWS, len(rows)))
    )


def in_batches(rows: np.ndarray, batch: int) -> Iterator[np.ndarray]:
    """The rows, `batch` at a time; the last may be fewer."""
    for start in range(0, len(rows), batch):
        yield rows[start : start + batch]


def padded(rows: np.ndarray, batch: int) -> np.ndarray:
    """[batch, ...]: the rows, and zeros behind them."""
    if len(rows) == batch:
        return rows
    result = np.zeros((batch, *rows.shape[1:]), rows.dtype)
    result[: len(rows)] = rows
    return result


class Mailbox(threading.Thread):
    """Reads stdin in the background and ends the process with it, even in the middle of native code."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.ready: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def run(self) -> None:
        for line in sys.stdin.buffer:
            message = json.loads(line)
            if "job" in message:
                self.jobs.put(message["job"])
            else:
                self.ready.put(message["ready"])
        os._exit(0)


class Voice:
    """Lines of JSON on stdout, whole, from any thread."""

    def __init__(self) -> None:
        # Native code prints to descriptor 1: keep the conversation on a descriptor of its own.
        self.stream = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)
        self.lock = threading.Lock()

    def say(self, message: dict[str, Any]) -> None:
        with self.lock:
            self.stream.write(json.dumps(message) + "\n")


class Output:
    """A .npy file that grows by rows; a full disk is an error, not a signal."""

    def __init__(self, path: str, rows: int) -> None:
        self.stream = open(path, "wb")  # noqa: PTH123 - no import that is not needed
        self.rows = rows
        self.waiting: list[np.ndarray] = []
        self.bytes = 0

    def append(self, block: np.ndarray) -> None:
        if self.rows:
            header = {"descr": block.dtype.str, "fortran_order": False, "shape": (self.rows, block.shape[1])}
            np.lib.format.write_array_header_1_0(self.stream, header)
            self.rows = 0
        self.waiting.append(block)
        self.bytes += block.nbytes

    def flush(self) -> None:
        for block in self.waiting:
            self.stream.write(block.data)
        self.waiting, self.bytes = [], 0
        self.stream.flush()


class Task:
    """One model file of a job: opened at its first rows, run chunk by chunk."""

    def __init__(self, entry: dict[str, Any], job: dict[str, Any], program: Program) -> None:
        self.entry, self.job, self.program = entry, job, program
        self.model: Model | None = None
        self.output = Output(entry["output"], job["rows"])
        self.seconds = 0.0
        self.sha256 = ""

    def run(self, x: np.ndarray) -> None:
        try:
            if self.model is None:
                with open(self.entry["path"], "rb") as stream:  # noqa: PTH123
                    content = stream.read()
                self.sha256 = hashlib.sha256(content).hexdigest()
                self.model = self.program.open_model(content, self.job, x)
        except (ValueError, RuntimeError, TypeError, OSError) as error:
            raise Refused("model", error) from None
        try:
            began = time.perf_counter()
            for block in self.model.run(x):
                self.output.append(block)
            self.seconds += time.perf_counter() - began
        except (ValueError, RuntimeError) as error:
            raise Refused("runtime", error) from None
        if self.output.bytes >= FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        try:
            self.output.flush()
        except OSError as error:
            raise Refused("storage", error) from None

    def report(self) -> dict[str, Any]:
        assert self.model is not None
        self.flush()
        self.output.stream.close()
        return {
            "model_sha256": self.sha256,
            "batch": self.model.batch,
            "batch_resizable": self.model.resizable,
            "rows": self.job["rows"],
            "seconds": self.seconds,
            **self.model.facts,
        }


def run_job(job: dict[str, Any], program: Program, mailbox: Mailbox, voice: Voice) -> None:
    rows, dtype = job["rows"], np.dtype(job["dtype"])
    with open(job["ring"], "rb") as stream:  # noqa: PTH123
        ring = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    width = int(np.prod(job["row_shape"], dtype=np.int64))
    current, said = 0, -1
    try:
        tasks = []
        for current, entry in enumerate(job["models"]):  # noqa: B007
            tasks.append(Task(entry, job, program))
        for start in range(0, rows, job["chunk_rows"]):
            number = mailbox.ready.get()
            n = min(job["chunk_rows"], rows - start)
            slot = number % job["slots"] * job["slot_bytes"]
            x = np.frombuffer(ring, dtype, n * width, slot).reshape(n, *job["row_shape"])
            for current, task in enumerate(tasks):
                if current != said:
                    voice.say({"run": current})
                    said = current
                task.run(x)
            voice.say({"free": number})
        reports = []
        for current, task in enumerate(tasks):  # noqa: B007
            reports.append(task.report())
        voice.say({"done": reports})
    except (Refused, MemoryError) as error:
        kind = error.kind if isinstance(error, Refused) else "runtime"
        message = str(error) or "out of memory"
        voice.say({"error": {"kind": kind, "message": message, "model": current}})
        os._exit(3)


def limit() -> None:
    """No core files, and at most three quarters of the machine's memory: a damaged shape may ask for any."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 3 // 4
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def die_with(parent: int) -> None:
    """Linux: be killed when the parent dies, also where native code never returns."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)


def load_program(path: str) -> Any:
    """The program that knows the interpreter; it imports this module as `child_loop`."""
    sys.modules["child_loop"] = sys.modules[__name__]
    spec = importlib.util.spec_from_file_location("child_program", path)
    assert spec is not None and spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    return program


def main() -> None:
    if len(sys.argv) > 2:
        die_with(int(sys.argv[2]))
    limit()
    voice, mailbox = Voice(), Mailbox()
    mailbox.start()
    program = load_program(sys.argv[1])
    program.prepare()
    while True:
        run_job(mailbox.jobs.get(), program, mailbox, voice)


if __name__ == "__main__":
    try:
        main()
    except BaseException:
        # A plain exit would wait for the thread that reads stdin.
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(4)
