"""Weights of few bits packed in a .tflite: 4 in dense, convolution and depthwise layers, 2 in dense ones, as
LiteRT's kernels multiply them with int8 activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.converters.narrow import narrowed, pack

AXES = {"FULLY_CONNECTED": 0, "CONV_2D": 0, "DEPTHWISE_CONV_2D": 3}
"""Operators whose weights may be packed, and the axis of their output channels."""


def stored_bits(operator: str, bits: int | None) -> int:
    """How many bits a weight takes in the file: 2, 4 or 8."""
    if bits is None or bits > 4 or operator not in AXES:
        return 8
    return 2 if bits == 2 and operator == "FULLY_CONNECTED" else 4


def pack_weights(content: bytes, bits: Sequence[int | None]) -> bytes:
    """The int8 file with its weights packed; biases follow their weights' scales, everything else stays.

    Args:
        content: Made by the converter just now: its tables are followed without bound.
        bits: For each weighted layer in order of execution, of the grid that its weights lie on; None for
            others.

    Raises:
        ConversionError: Weights that do not lie on their grid.
    """
    if all(wanted is None or wanted > 4 for wanted in bits):
        return content
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    graph = model.subgraphs[0]
    layers: list[tuple[str, Any]] = []
    for operator in graph.operators:
        name = names[model.operatorCodes[operator.opcodeIndex].builtinCode]
        weights = operator.inputs[1] if name in AXES else -1
        # A layer that runs twice has one tensor, and stands where it runs first.
        constant = weights >= 0 and len(_data(model, graph.tensors[weights]))
        if constant and weights not in [known.inputs[1] for _, known in layers]:
            layers.append((name, operator))
    if len(layers) != len(bits):
        return content  # the check of the file says so, with everything else that is missing
    for position, ((name, operator), wanted) in enumerate(zip(layers, bits, strict=True)):
        stored, weights = stored_bits(name, wanted), operator.inputs[1]
        if stored == 8 or wanted is None:
            continue
        users = [o for o in graph.operators if len(o.inputs) > 2 and o.inputs[1] == weights]
        factors = _narrow(model, graph.tensors[weights], AXES[name], wanted, stored, position)
        for bias in {o.inputs[2] for o in users} - {-1}:
            _rescale(model, graph.tensors[bias], factors)
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _narrow(model: Any, tensor: Any, axis: int, bits: int, stored: int, position: int) -> NDArray[np.float64]:
    """Put the tensor's weights into `stored` bits; what each output channel's scale grew by."""
    from ai_edge_litert.schema_py_generated import TensorType

    assert tensor.type == TensorType.INT8 and not np.any(tensor.quantization.zeroPoint)
    values = np.moveaxis(_data(model, tensor).view(np.int8).reshape(tensor.shape), axis, 0)
    few, factors = narrowed(values, bits, f"layer {position}")
    _set_scales(tensor, factors, axis)
    tensor.type = TensorType.INT4 if stored == 4 else TensorType.INT2
    _store(model, tensor, pack(np.moveaxis(few, 0, axis), stored))
    return factors


def _rescale(model: Any, bias: Any, factors: NDArray[np.float64]) -> None:
    """A bias stands in steps of its input's scale times its weights'."""
    steps = np.round(_data(model, bias).view("<i4") / factors)
    _set_scales(bias, factors, 0)
    _store(model, bias, steps.astype("<i4").view(np.uint8))


def _set_scales(tensor: Any, factors: NDArray[np.float64], axis: int) -> None:
    parameters = tensor.quantization
    parameters.scale = (np.asarray(parameters.scale, dtype=np.float64) * factors).astype(np.float32)
    parameters.zeroPoint = np.zeros(len(factors), np.int64)
    parameters.quantizedDimension = axis


def _data(model: Any, tensor: Any) -> NDArray[np.uint8]:
    data = model.buffers[tensor.buffer].data
    return np.empty(0, np.uint8) if data is None else np.asarray(data, np.uint8)


def _store(model: Any, tensor: Any, data: NDArray[np.uint8]) -> None:
    """Into the tensor's buffer, or into one of its own where others share that."""
    if sum(each.buffer == tensor.buffer for each in model.subgraphs[0].tensors) > 1:
        model.buffers.append(type(model.buffers[0])())
        tensor.buffer = len(model.buffers) - 1
    model.buffers[tensor.buffer].data = data
