"""PyTorch Mobile's lite interpreter for .ptl files. Loaded by child_loop.py in a process of its own.

Rows are run together only where that changes nothing: a dynamically quantized layer takes its scale from the
whole batch, and float products of one row and of many differ in the last bit.
"""

import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from edgeprivacy.device_runner.child_loop import PROBE_ROWS, Refused, as_rows, same_alone
else:
    from child_loop import PROBE_ROWS, Refused, as_rows, same_alone


def prepare() -> None:
    import torch

    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    warnings.filterwarnings("ignore")  # of the lite interpreter's age, and of rows that cannot be written to
    import torch.jit.mobile


class PtlModel:
    """A loaded module; it takes any batch."""

    def __init__(self, content: bytes, job: dict[str, Any]) -> None:
        import torch
        from torch.jit.mobile import _load_for_lite_interpreter

        torch.set_num_threads(job["threads"])
        # An int8 file answers otherwise with each library; packed weights are bound to it when they are read.
        torch.backends.quantized.engine = job["kernels"]
        try:
            self.module = _load_for_lite_interpreter(io.BytesIO(content))
        except RuntimeError as error:
            message = first_line(error)
            other = "version number does not match" in message or "operator exists" in message
            raise Refused("version" if other else "model", message) from None
        self.batch, self.resizable = 1, True
        self.facts = {"threads": torch.get_num_threads()}

    def run(self, rows: np.ndarray) -> np.ndarray:
        """[n, columns] for any n rows."""
        import torch

        try:
            out = self.module(torch.from_numpy(rows))
        except RuntimeError as error:
            raise RuntimeError(first_line(error)) from None
        if not isinstance(out, torch.Tensor) or out.is_quantized:
            raise Refused("model", f"it answers {type(out).__name__}, not one tensor of numbers")
        return as_rows(np.ascontiguousarray(out.numpy()), len(rows))


def first_line(error: Exception) -> str:
    """What torch says before its stack."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def open_model(content: bytes, job: dict[str, Any], first: np.ndarray) -> PtlModel:
    """The module at the largest batch whose answers are those of single rows, bit for bit."""
    model = PtlModel(content, job)
    try:
        model.run(first[:1])
    except RuntimeError as error:
        # It was read whole, so it was most likely made for other rows; a .ptl does not record which.
        raise Refused("rows", error) from None
    if job["batch"] > 1:
        full, few = first[: job["batch"]], first[:PROBE_ROWS]
        try:
            alike = same_alone(model.run(full), full, model) and same_alone(model.run(few), few, model)
        except (RuntimeError, Refused):
            alike = False
        if alike:
            model.batch = job["batch"]
    return model
