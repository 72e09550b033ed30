"""Runs .tflite files in LiteRT's interpreter, in a process of its own. Started by host.py, never imported.

A damaged or hostile file may crash native code; then only this process dies. It imports numpy and
ai_edge_litert alone, so that it starts fast.

Lines of JSON on stdin:
    {"job": {"models": [{"path", "output"}], "ring": path, "slots", "slot_bytes", "chunk_rows", "rows",
             "row_shape", "dtype", "kernels", "threads", "batch"}}
    {"ready": chunk}                rows [chunk * chunk_rows, ...) lie in slot chunk % slots of the ring
Lines of JSON on stdout:
    {"run": model}                  this model is opened, or runs a chunk
    {"free": chunk}                 all models have run this chunk; its slot can be written again
    {"done": [report, ...]}         one report a model
    {"error": {"kind", "message", "model"}}
                                    kinds: "model" (the file is refused), "runtime" (it failed while running),
                                    "storage" (an output cannot be written)

The ring is a memory-mapped file: rows in the models' own dtype go from the parent's cache to the
interpreter without ever being a whole file. All models of a job take the same rows and run chunk by chunk.
An output is a .npy file of [rows, columns], the output tensor as it is.
The process ends with stdin, that is with its parent.

Exit codes: 0 stdin ended, 3 the error reported on stdout, 4 an unforeseen error (on stderr), else a crash.
"""

import ctypes
import hashlib
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
from typing import Any

import numpy as np

FLUSH_BYTES = 1 << 22
PROBE_ROWS = 8


class Refused(Exception):
    """An error to report: kind and message."""

    def __init__(self, kind: str, message: object) -> None:
        super().__init__(str(message))
        self.kind = kind


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


class Model:
    """An interpreter at one batch size."""

    def __init__(self, content: bytes, job: dict[str, Any], row_shape: list[int], batch: int | None) -> None:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        resolver = {
            "XNNPACK": OpResolverType.AUTO,
            "built-in": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        }[job["kernels"]]
        self.interpreter = Interpreter(
            model_content=content, num_threads=job["threads"], experimental_op_resolver_type=resolver
        )
        inputs, outputs = self.interpreter.get_input_details(), self.interpreter.get_output_details()
        if len(inputs) != 1 or len(outputs) != 1:
            raise Refused("model", f"{len(inputs)} inputs and {len(outputs)} outputs; one of each is needed")
        self.input, self.output = inputs[0]["index"], outputs[0]["index"]
        signature = inputs[0]["shape_signature"]
        self.resizable = bool(len(signature) > 0 and signature[0] == -1)
        self.batch = (batch or 1) if self.resizable else int(signature[0])
        shape = [self.batch, *row_shape]
        if list(inputs[0]["shape"]) != shape:
            self.interpreter.resize_tensor_input(self.input, shape)
        self.interpreter.allocate_tensors()
        self.dtype = inputs[0]["dtype"]
        self.shape = shape

    def run(self, rows: np.ndarray) -> np.ndarray:
        """[n, columns] for n <= batch rows; a last partial batch is padded with zeros."""
        n = len(rows)
        if n < self.batch:
            padded = np.zeros(self.shape, rows.dtype)
            padded[:n] = rows
            rows = padded
        self.interpreter.set_tensor(self.input, rows)
        self.interpreter.invoke()
        out = self.interpreter.get_tensor(self.output)
        wide = [size for size in out.shape[1:] if size != 1]
        if out.ndim == 0 or out.shape[0] != self.batch or len(wide) > 1:
            raise Refused(
                "model", f"output of shape {list(out.shape)} for {self.batch} rows; [rows, classes] is needed"
            )
        columns: np.ndarray = out.reshape(self.batch, -1)[:n]
        return columns


def open_model(content: bytes, job: dict[str, Any], row_shape: list[int], first: np.ndarray) -> Model:
    """The interpreter at the largest batch whose answers are those of single rows, bit for bit.

    XNNPACK's kernels are bit-equal at any batch; built-in float kernels are not, and neither is an operator
    that XNNPACK leaves to them, so a few rows are tried both ways.
    """
    want = job["batch"] if job["kernels"] == "XNNPACK" else 1
    if want > 1:
        try:
            model = Model(content, job, row_shape, want)
            if not model.resizable:
                return model
            together = model.run(first)
        except (ValueError, RuntimeError, Refused):
            pass  # some graphs hold their batch in a constant: they still run row by row
        else:
            single = Model(content, job, row_shape, 1)
            if all(
                np.array_equal(together[i : i + 1], single.run(first[i : i + 1])) for i in range(len(first))
            ):
                return model
            return single
    return Model(content, job, row_shape, 1)


class Task:
    """One model file of a job: opened at its first rows, run chunk by chunk."""

    def __init__(self, entry: dict[str, Any], job: dict[str, Any]) -> None:
        self.entry, self.job = entry, job
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
                self.model = open_model(content, self.job, self.job["row_shape"], x[:PROBE_ROWS])
        except (ValueError, RuntimeError, TypeError, OSError) as error:
            raise Refused("model", error) from None
        try:
            began = time.perf_counter()
            for start in range(0, len(x), self.model.batch):
                self.output.append(self.model.run(x[start : start + self.model.batch]))
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
        }


def run_job(job: dict[str, Any], mailbox: Mailbox, voice: Voice) -> None:
    rows, dtype = job["rows"], np.dtype(job["dtype"])
    with open(job["ring"], "rb") as stream:  # noqa: PTH123
        ring = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    width = int(np.prod(job["row_shape"], dtype=np.int64))
    current, said = 0, -1
    try:
        tasks = []
        for current, entry in enumerate(job["models"]):  # noqa: B007
            tasks.append(Task(entry, job))
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


def main() -> None:
    if len(sys.argv) > 1:
        die_with(int(sys.argv[1]))
    limit()
    voice, mailbox = Voice(), Mailbox()
    mailbox.start()
    import ai_edge_litert.interpreter  # noqa: F401 - while the parent prepares the first rows

    while True:
        run_job(mailbox.jobs.get(), mailbox, voice)


if __name__ == "__main__":
    try:
        main()
    except BaseException:
        # A plain exit would wait for the thread that reads stdin.
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(4)
