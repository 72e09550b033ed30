"""PyTorch Mobile's lite interpreter for .ptl files. Loaded by child_loop.py in a process of its own.

Rows are run one by one, as on a phone: a dynamically quantized layer takes its scale from the whole batch,
and float products of one row and of many differ in the last bit, for some rows and not for others.
"""

import io
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from edgeprivacy.device_runner.child_loop import Refused, as_rows
else:
    from child_loop import Refused, as_rows


def prepare() -> None:
    import torch

    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    warnings.filterwarnings("ignore")  # of the lite interpreter's age, and of rows that cannot be written to
    import torch.jit.mobile


class PtlModel:
    """A loaded module."""

    def __init__(self, content: bytes, job: dict[str, Any]) -> None:
        import torch
        import torch.jit.mobile

        load: Any = torch.jit.mobile._load_for_lite_interpreter
        torch.set_num_threads(job["threads"])
        # An int8 file answers otherwise with each library; packed weights are bound to it when they are read.
        torch.backends.quantized.engine = job["kernels"]
        try:
            self.module = load(io.BytesIO(content))
        except RuntimeError as error:
            message = first_line(error)
            other = "version number does not match" in message or "operator exists" in message
            raise Refused("version" if other else "model", message) from None
        self.batch, self.resizable = 1, True
        self.facts = {"threads": torch.get_num_threads()}

    def run(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """[rows, columns] of all rows, run one by one."""
        import torch

        try:
            tensor: Any = torch.from_numpy(rows)
            parts = [self.module(row) for row in tensor.split(1)]
            if not all(isinstance(part, torch.Tensor) and not part.is_quantized for part in parts):
                raise Refused("model", f"it answers {type(parts[0]).__name__}, not one tensor of numbers")
            out = torch.stack(parts)
        except RuntimeError as error:
            raise RuntimeError(first_line(error)) from None
        yield as_rows(out.numpy(), len(rows))


def first_line(error: Exception) -> str:
    """What torch says before its stack."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def open_model(content: bytes, job: dict[str, Any], first: np.ndarray) -> PtlModel:
    """The module, after it has run a row."""
    model = PtlModel(content, job)
    try:
        list(model.run(first[:1]))
    except RuntimeError as error:
        # It was read whole, so it was most likely made for other rows; a .ptl does not record which.
        raise Refused("rows", error) from None
    return model
