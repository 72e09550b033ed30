"""Facts of a PyTorch Mobile file (.ptl), read from its bytes. Needs no torch; nothing in it is unpickled."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from edgeprivacy.confidences import OutputGrid
from edgeprivacy.converters.facts import ArtifactFacts, TensorFacts, WeightFacts
from edgeprivacy.converters.measures import file_measures, weight_facts
from edgeprivacy.converters.ptl.archive import PtlArchive, StoredTensor, damaged
from edgeprivacy.converters.ptl.bytecode import Method, Step, read_method
from edgeprivacy.converters.ptl.pickled import Called, Made, Pairs, Unreadable

LEGACY = "PyTorch Mobile's lite interpreter: a legacy runtime, followed by ExecuTorch"
DECLARED = "extra/edgeprivacy.json"
"""Where our own files write down what the format has no place for: the shape of the input."""
WEIGHTED = {
    # Position of the weights among the arguments, and the axis of the output channels.
    "aten::linear": (1, 0), "aten::conv1d": (1, 0), "aten::conv2d": (1, 0), "aten::_convolution": (1, 0),
    "aten::convolution": (1, 0), "aten::addmm": (2, 1), "aten::matmul": (1, 1), "aten::mm": (1, 1),
    "quantized::linear": (1, 0), "quantized::linear_relu": (1, 0), "quantized::linear_dynamic": (1, 0),
    "quantized::linear_relu_dynamic": (1, 0), "quantized::conv2d": (1, 0), "quantized::conv2d_relu": (1, 0),
    "quantized::conv1d": (1, 0), "quantized::conv1d_relu": (1, 0),
}  # fmt: skip
_NORMALIZING = ("aten::softmax", "aten::_softmax", "aten::sigmoid")
_GRIDDED = ("quantized::linear", "quantized::linear_relu", "quantized::conv2d", "quantized::conv2d_relu")
_SHAPING = (
    "aten::reshape",
    "aten::view",
    "aten::flatten",
    "aten::squeeze",
    "aten::permute",
    "aten::contiguous",
)


def read_ptl_facts(path: Path) -> ArtifactFacts:
    """What the archive holds: operators in the bytecode, weights of linear and convolution layers in order of
    execution (also packed int8 ones), sizes, and the grid of quantized logits.

    The format holds no shapes of inputs and outputs; those that this project wrote down in the archive are
    given as such, otherwise they are unknown. Time and memory are bounded by the file's size.

    Raises:
        ArtifactError: Missing, unreadable, truncated, damaged, or another kind of file.
    """
    archive = PtlArchive(path)
    try:
        return _facts(archive)
    except (Unreadable, ValueError, OverflowError, MemoryError, RecursionError) as error:
        raise damaged(path, str(error) or type(error).__name__) from error


def _facts(archive: PtlArchive) -> ArtifactFacts:
    module = archive.pickle("data.pkl") if archive.has("data.pkl") else []
    method = read_method(archive.pickle("bytecode.pkl"), module[-1] if module else None)
    notes = [LEGACY]
    if method.trouble:
        notes.append(f"{method.trouble}; weights that are used there are not listed")
    weights = _weights(archive, method, notes)
    shape = _declared_shape(archive)
    if shape is None:
        notes.append("the format does not hold the shape and the type of inputs and outputs")
    else:
        notes.append("the format does not hold the input's shape; it is given as the converter wrote it down")
    inputs = tuple(
        TensorFacts(name[:60], (-1, *shape) if shape else (), "float32" if shape else "unknown")
        for name in method.inputs
    )
    return ArtifactFacts(
        container="ptl",
        **file_measures(archive.content),
        inputs=inputs,
        outputs=tuple(
            TensorFacts(f"output {n}", (), "float32" if shape else "unknown") for n in range(method.outputs)
        ),
        operators=dict(Counter(step.operator for step in method.steps)),
        weights=tuple(weights),
        output_grid=_grid(method),
        notes=tuple(dict.fromkeys(notes)),
    )


def _weights(archive: PtlArchive, method: Method, notes: list[str]) -> list[WeightFacts]:
    found: list[WeightFacts] = []
    seen: set[str] = set()
    for position, step in enumerate(method.steps):
        place, axis = WEIGHTED.get(step.operator.split(".")[0], (-1, 0))
        if step.operator.startswith("prepacked::"):
            notes.append(f"weights of {step.operator} are packed for one machine and cannot be read back")
        if not 0 <= place < len(step.args):
            continue
        source = step.args[place]
        if isinstance(source, Step) and source.operator.split(".")[0] == "aten::t" and source.args:
            source, axis = source.args[0], 1 - axis
        tensor = _packed(archive, source) if isinstance(source, Made) else archive.tensor(source)
        if tensor is None:
            notes.append(f"weights of {step.operator} are not a constant of the file: not listed")
            continue
        if tensor.key in seen:
            continue
        seen.add(tensor.key)
        if "convolution" in step.operator and len(step.args) > 6 and step.args[6] is True:
            axis = 1  # a transposed convolution's weights are [in, out, h, w]
        found.append(_weight(step.operator, f"operator {position}", tensor, axis))
    return found


def _weight(operator: str, name: str, tensor: StoredTensor, axis: int) -> WeightFacts:
    values = tensor.values
    if values.ndim <= axis or values.size == 0:
        raise Unreadable(f"the weights of {operator} have the shape {values.shape}")
    zero: Any = tensor.zero
    if isinstance(zero, np.ndarray):
        zero = zero.reshape([-1 if d == tensor.axis else 1 for d in range(values.ndim)])
    return weight_facts(operator, name, values, tensor.dtype, axis, zero, tensor.scales)


def _packed(archive: PtlArchive, packed: Made) -> StoredTensor | None:
    """The quantized tensor inside packed parameters, the first in the order of the pickle."""
    waiting, looked = [packed.state], 0
    while waiting and looked < 256:
        looked += 1
        value = waiting.pop(0)
        tensor = archive.tensor(value)
        if tensor is not None and tensor.scales:
            return tensor
        if isinstance(value, Called):
            waiting.append(value.args)
        elif isinstance(value, Pairs):
            waiting.extend(item for _, item in value.items[:64])
        elif isinstance(value, tuple | list):
            waiting.extend(value[:64])
    return None


def _grid(method: Method) -> OutputGrid | None:
    """The grid of the logits behind a float softmax or sigmoid, or of the answer itself."""
    step, normalized = method.answer, False
    for _ in range(len(method.steps) + 1):
        if step is None or not step.args:
            return None
        name = step.operator.split(".")[0]
        if name == "aten::dequantize":
            last = step.args[0]
            if isinstance(last, Step) and last.operator.split(".")[0] in _GRIDDED and len(last.args) >= 4:
                scale, zero = last.args[2], last.args[3]
                if isinstance(scale, float) and scale > 0 and isinstance(zero, int):
                    return OutputGrid(scale, zero, "logits")
            return None
        if name in _NORMALIZING and not normalized:
            normalized = True
        elif name not in _SHAPING:
            return None
        step = step.args[0] if isinstance(step.args[0], Step) else None
    return None


def _declared_shape(archive: PtlArchive) -> tuple[int, ...] | None:
    if not archive.has(DECLARED):
        return None
    try:
        shape = json.loads(archive.read(DECLARED, 4096)).get("input_shape")
    except (ValueError, AttributeError, RecursionError):
        return None
    if not isinstance(shape, list) or not 0 < len(shape) <= 8:
        return None
    if not all(isinstance(size, int) and 0 < size < 1 << 31 for size in shape):
        return None
    return tuple(shape)
