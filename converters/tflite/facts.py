"""Facts of a .tflite file, read from its bytes. Needs the LiteRT wheel's schema only, no TensorFlow."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

from edgeprivacy.converters.facts import ArtifactFacts, TensorFacts, WeightFacts
from edgeprivacy.converters.measures import NOTABLE, file_measures, weight_facts
from edgeprivacy.converters.tflite.container import Tensor, TfliteFile, damaged

_CHANNEL_AXIS = {"FULLY_CONNECTED": 0, "CONV_2D": 0, "DEPTHWISE_CONV_2D": 3}
_UNPACKING = ("DEQUANTIZE", "DENSIFY")


def read_tflite_facts(path: Path) -> ArtifactFacts:
    """What the file really holds: inputs, outputs, operators, weights, sizes and the output's grid.

    Weights are the constants of FULLY_CONNECTED, CONV_2D and DEPTHWISE_CONV_2D in order of execution, also
    behind DEQUANTIZE (float16 files) and DENSIFY (sparse storage); a constant that several operators share is
    listed once. `gzip_bytes` is for gzip's default level 6. Time and memory are linear in the file's size.

    Raises:
        ArtifactError: Missing, unreadable, truncated, damaged, or another kind of file.
        MissingDependency: The extra "litert" is not installed.
    """
    return facts_of(TfliteFile(path))


def facts_of(file: TfliteFile) -> ArtifactFacts:
    """`read_tflite_facts` for a file that is already open."""
    notes = []
    if file.subgraphs > 1:
        notes.append(f"{file.subgraphs} subgraphs (control flow); facts are of the main one")
    weights, used = _weights(file)
    others = _other_constants(file, used)
    if others:
        notes.append(f"large constants not counted as weights: {', '.join(others)}")
    return ArtifactFacts(
        container="tflite",
        **file_measures(file.content),
        inputs=tuple(tensor_facts(tensor) for tensor in file.inputs),
        outputs=tuple(tensor_facts(tensor) for tensor in file.outputs),
        operators=dict(Counter(operator.name for operator in file.operators)),
        weights=tuple(weights),
        output_grid=file.output_grid[0],
        notes=tuple(notes),
    )


def tensor_facts(tensor: Tensor) -> TensorFacts:
    """Name, shape (-1 where dynamic), dtype and per-tensor quantization of an input or output."""
    return TensorFacts(
        name=tensor.name,
        shape=tensor.signature,
        dtype=tensor.dtype,
        scale=float(tensor.scales[0]) if tensor.quantized else None,
        zero_point=int(tensor.zero_points[0]) if tensor.quantized else None,
    )


def _weights(file: TfliteFile) -> tuple[list[WeightFacts], set[int]]:
    found: list[WeightFacts] = []
    seen: set[int] = set()
    read = 0
    for operator in file.operators:
        axis = _CHANNEL_AXIS.get(operator.name)
        if axis is None or len(operator.inputs) < 2 or operator.inputs[1] < 0:
            continue
        index, _ = file.chain(operator.inputs[1], _UNPACKING)
        if index in seen or not file.is_constant(index):
            continue
        seen.add(index)
        # Honest files store a weight once; many tensors over one buffer would cost more than the file's size.
        read += math.prod(file.tensors[index].shape)
        if read > 64 * len(file.content):
            raise damaged(file.path, "its tensors claim more weights than the file can hold")
        found.append(_weight(file, operator.name, axis, index))
    return found, seen


def _weight(file: TfliteFile, operator: str, axis: int, index: int) -> WeightFacts:
    tensor = file.tensors[index]
    values = file.constant(index)
    if values.ndim <= axis or values.size == 0:
        raise damaged(file.path, f"the weights of a {operator} have the shape {tensor.shape}")
    zero: Any = 0
    if tensor.quantized:
        zero = tensor.zero_points
        if len(zero) > 1:
            if not 0 <= tensor.axis < values.ndim or len(zero) != values.shape[tensor.axis]:
                raise damaged(file.path, "quantization parameters do not fit their tensor")
            zero = zero.reshape([-1 if d == tensor.axis else 1 for d in range(values.ndim)])
    scales = int(tensor.scales.size) if tensor.quantized else 0
    return weight_facts(operator, tensor.name, values, tensor.dtype, axis, zero, scales)


def _other_constants(file: TfliteFile, used: set[int]) -> list[str]:
    names = set()
    for operator in file.operators:
        if operator.name in _UNPACKING:
            continue
        for position, index in enumerate(operator.inputs):
            if index < 0 or index in used or (position == 2 and operator.name in _CHANNEL_AXIS):  # a bias
                continue
            source, _ = file.chain(index, _UNPACKING)
            if source not in used and file.is_constant(source):
                if math.prod(file.tensors[source].shape) >= NOTABLE:
                    names.add(operator.name)
    return sorted(names)
