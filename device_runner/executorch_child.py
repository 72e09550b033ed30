"""ExecuTorch's runtime for .pte programs. Loaded by child_loop.py in a process of its own, never imported.

The bindings are imported without `executorch.runtime`, which adds nothing here and takes five seconds for
the whole exporter behind it.
"""

import os
import re
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from edgeprivacy.device_runner.child_loop import (
        PROBE_ROWS,
        Refused,
        as_rows,
        in_batches,
        padded,
        same_alone,
    )
else:
    from child_loop import PROBE_ROWS, Refused, as_rows, in_batches, padded, same_alone

METHOD = "forward"
FLOAT = 6
"""ExecuTorch's number of float32."""
OVERREAD_BYTES = 128
"""XNNPACK's kernels may read some bytes behind their input; more than XNN_EXTRA_BYTES of any platform."""
_OTHER_VERSION = re.compile(
    r"Program identifier|is not registered|[Mm]issing operator|Format version identifier"
)


def prepare() -> None:
    import torch

    torch.set_num_threads(1)
    # Rows are read-only memory of the parent's; nobody writes to them.
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    from executorch.extension.pybindings import _C  # noqa: F401


class Log:
    """What the runtime has said on stderr since it was made: its exceptions hold a number only."""

    def __init__(self) -> None:
        self.start = os.lseek(2, 0, os.SEEK_END)

    def reasons(self) -> str:
        """The lines that say why, in the order of their importance."""
        text = os.pread(2, 1 << 16, self.start).decode(errors="replace")
        lines = [re.sub(r"^\[\S+\.cpp:\d+\] ", "", line).strip() for line in text.splitlines()]
        version = [line for line in lines if _OTHER_VERSION.search(line)]
        return "; ".join(dict.fromkeys([*version[:2], *lines[:1]])) if lines else ""


class PteModel:
    """A loaded program; its method takes any batch up to the capacity, or the batch of its export alone."""

    def __init__(self, content: bytes, job: dict[str, Any]) -> None:
        from executorch.extension.pybindings import _C

        if _C._threadpool_get_thread_count() != job["threads"]:
            # The pool does not follow torch.set_num_threads; replaced while nothing is loaded, this is safe.
            _C._unsafe_reset_threadpool(job["threads"])
        log = Log()
        try:
            program = _C._load_program_from_buffer(
                content,
                enable_etdump=False,
                debug_buffer_size=0,
                program_verification=_C.Verification.InternalConsistency,
            )
            meta = program.method_meta(METHOD)
            method = program.load_method(METHOD)
        except RuntimeError as error:
            why = log.reasons()
            kind = "version" if _OTHER_VERSION.search(why) else "model"
            raise Refused(kind, f"{error}: {why}" if why else error) from None
        # Python clears these in this order; the runtime reads the bytes as long as it lives.
        self.method, self.program, self.content = method, program, content
        if meta.num_inputs() != 1 or meta.num_outputs() != 1:
            raise Refused(
                "model", f"{meta.num_inputs()} inputs and {meta.num_outputs()} outputs; one of each is needed"
            )
        entry = meta.input_tensor_meta(0)
        if len(entry.sizes()) != 1 + len(job["row_shape"]):
            raise Refused("rows", f"it takes inputs of shape {list(entry.sizes())}")
        self.capacity = max(1, int(entry.sizes()[0]))
        self.copied = bool(entry.is_memory_planned())
        self.batch, self.resizable = 1, True
        self.facts = {"threads": _C._threadpool_get_thread_count(), "batch_capacity": self.capacity}

    def run(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """[rows, columns] a batch. A last partial batch is padded where the program takes none."""
        for part in in_batches(rows, self.batch):
            yield self.execute(part if self.resizable else padded(part, self.batch))[: len(part)]

    def execute(self, rows: np.ndarray) -> np.ndarray:
        """[rows, columns], by one call."""
        import torch

        # Always C-contiguous: with other strides the runtime returns wrong numbers without a word.
        rows = np.ascontiguousarray(rows)
        log = Log()
        try:
            (out,) = self.method((torch.from_numpy(rows if self.copied else guarded(rows)),))
        except RuntimeError as error:
            raise RuntimeError(f"{error}: {log.reasons()}") from None
        return as_rows(out.numpy(), len(rows))


def guarded(rows: np.ndarray) -> np.ndarray:
    """A copy with readable bytes behind it."""
    memory = np.empty(rows.nbytes + OVERREAD_BYTES, np.uint8)
    result = memory[: rows.nbytes].view(rows.dtype).reshape(rows.shape)
    result[...] = rows
    return result


def open_model(content: bytes, job: dict[str, Any], first: np.ndarray) -> PteModel:
    """The program at the largest batch whose answers are those of single rows, bit for bit.

    Whether a program takes any batch, it does not say: it is tried with a single row. A program of a fixed
    batch is run at that.
    """
    model = PteModel(content, job)
    try:
        model.execute(first[:1])
    except RuntimeError:
        if model.capacity == 1:
            raise
        model.batch, model.resizable = model.capacity, False
        model.execute(padded(first[:1], model.batch))
        return model
    want = min(job["batch"], model.capacity)
    if want > 1:
        full, few = first[:want], first[:PROBE_ROWS]
        try:
            alike = all(same_alone(model.execute(rows), rows, model.execute) for rows in (full, few))
        except (RuntimeError, Refused):
            alike = False  # some graphs hold their batch in a constant: they still run row by row
        if alike:
            model.batch = want
    return model
