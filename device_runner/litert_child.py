"""LiteRT's interpreter for .tflite files. Loaded by child_loop.py in a process of its own, never imported."""

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


def prepare() -> None:
    import ai_edge_litert.interpreter  # noqa: F401


class LitertModel:
    """An interpreter at one batch size."""

    def __init__(self, content: bytes, job: dict[str, Any], batch: int) -> None:
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
        self.batch = batch if self.resizable else int(signature[0])
        shape = [self.batch, *job["row_shape"]]
        if list(inputs[0]["shape"]) != shape:
            self.interpreter.resize_tensor_input(self.input, shape)
        self.interpreter.allocate_tensors()
        self.facts: dict[str, Any] = {}

    def run(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """[rows, columns] a batch."""
        return map(self.execute, in_batches(rows, self.batch))

    def execute(self, rows: np.ndarray) -> np.ndarray:
        """[n, columns] for n <= batch rows; a last partial batch is padded with zeros."""
        self.interpreter.set_tensor(self.input, padded(rows, self.batch))
        self.interpreter.invoke()
        return as_rows(self.interpreter.get_tensor(self.output), self.batch)[: len(rows)]


def open_model(content: bytes, job: dict[str, Any], first: np.ndarray) -> LitertModel:
    """The interpreter at the largest batch whose answers are those of single rows, bit for bit.

    XNNPACK's kernels are bit-equal at any batch; built-in float kernels are not, and neither is an operator
    that XNNPACK leaves to them, so a few rows are tried both ways.
    """
    want = job["batch"] if job["kernels"] == "XNNPACK" else 1
    if want > 1:
        rows = first[:PROBE_ROWS]
        try:
            model = LitertModel(content, job, want)
            if not model.resizable:
                return model
            together = model.execute(rows)
        except (ValueError, RuntimeError, Refused):
            pass  # some graphs hold their batch in a constant: they still run row by row
        else:
            single = LitertModel(content, job, 1)
            return model if same_alone(together, rows, single.execute) else single
    return LitertModel(content, job, 1)
