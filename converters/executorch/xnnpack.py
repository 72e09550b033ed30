"""Reads XNNPACK's part of a .pte: its operators, tensors, weights and scales. Framework-free.

Field numbers are those of ExecuTorch's `backends/xnnpack/serialization/schema.fbs` (file identifier XN01);
the tests compare them with the schema in the installed wheel.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np

from edgeprivacy.converters.executorch.container import MAX_RANK, PteFile
from edgeprivacy.converters.executorch.flatbuffer import Buffer, Damaged, Table

NODES = (
    "NONE", "Add", "FullyConnected", "Softmax", "Sigmoid", "StaticTranspose", "Clamp", "Conv2d", "Div",
    "StaticResizeBilinear2D", "StaticConstantPad", "AvgPooling2d", "Minimum", "DepthwiseConv2d",
    "MaxPooling2d", "Multiply", "Subtract", "Floor", "Convert", "GlobalAvgPooling2d", "StaticReshape",
    "ArgMaxPooling2d", "SquareRoot", "Ceiling", "Hardswish", "LeakyReLU", "Maximum", "Negate", "Square",
    "ELU", "Abs", "PReLU", "Concatenate2", "Concatenate3", "Concatenate4", "StaticSlice",
    "ScaledDotProductAttention", "BatchMatrixMultiply", "Concatenate5", "ConvTranspose2d",
    "ReciprocalSquareRoot", "Log", "Gelu", "Tanh", "Exp", "Sin", "Copy", "Cos",
)  # fmt: skip
DATATYPES = (
    "invalid", "float32", "float16", "qint8", "quint8", "qint32", "qcint8", "qcint32", "qcint4", "qdint8",
    "qbint4", "qpint8", "int32", "pfp32", "bfloat16",
)  # fmt: skip
STORED = {
    "float32": ("float32", "<f4"), "float16": ("float16", "<f2"), "qint8": ("int8", "i1"),
    "quint8": ("uint8", "u1"), "qcint8": ("int8", "i1"), "int32": ("int32", "<i4"),
    "qcint4": ("int4", "u1"),
}  # fmt: skip
_ONE_TO_ONE = (
    "Softmax", "Sigmoid", "Clamp", "Floor", "Convert", "GlobalAvgPooling2d", "SquareRoot", "Ceiling",
    "Hardswish", "Negate", "Square", "Abs", "ReciprocalSquareRoot", "Log", "Gelu", "Tanh", "Exp", "Sin",
    "Copy", "Cos",
)  # fmt: skip
FILTERS = ("FullyConnected", "Conv2d", "DepthwiseConv2d", "ConvTranspose2d")
PORTS = {
    **{name: (0, 1) for name in _ONE_TO_ONE},
    **{name: (2, 3) for name in ("StaticTranspose", "StaticReshape")},
    "FullyConnected": (0, 3),
    **{name: (15, 18) for name in ("Conv2d", "DepthwiseConv2d", "ConvTranspose2d")},
}
"""Field numbers of a node's first input and of its output."""
FILTER_FIELD = {"FullyConnected": 1, "Conv2d": 16, "DepthwiseConv2d": 16, "ConvTranspose2d": 16}
PER_CHANNEL, PER_TENSOR, PER_GROUP = 1, 2, 4
_NO_OFFSET = (1 << 64) - 1
_TRANSPOSED = 1
"""XNN_FLAG_TRANSPOSE_WEIGHTS: a FullyConnected's filter is stored [in, out]."""


@dataclass(frozen=True)
class Value:
    """A tensor of the graph. `external` is the position among the delegate call's arguments, or None;
    `constant` is 0 for activations. `scale` and `zero_point` where one of each is for the whole tensor."""

    datatype: str
    dims: tuple[int, ...]
    constant: int
    external: int | None
    scale: float | None = None
    zero_point: int = 0
    scales: int = 0
    axis: int = 0


@dataclass(frozen=True)
class Node:
    """One operator; `source` and `output` are value numbers (-1 where the kind is not followed)."""

    name: str
    source: int
    output: int
    filter: int = -1
    transposed: bool = False


class XnnpackGraph:
    """The graph of one XNNPACK delegate.

    Raises:
        Damaged: The payload does not hold what its tables say.
        LookupError: It is of a version that is not known here.
    """

    def __init__(self, file: PteFile, payload: memoryview) -> None:
        self.file = file
        if bytes(payload[4:8]) != b"XH00":
            raise LookupError("XNNPACK payload without the header XH00")
        _, at, size, start, length = struct.unpack_from("<HIIIQ", payload, 8)
        if at + size > len(payload) or start + length > len(payload):
            raise Damaged("XNNPACK's header points outside its payload")
        graph = payload[at : at + size]
        if bytes(graph[4:8]) != b"XN01":
            raise LookupError(f"XNNPACK graph of version {bytes(graph[4:8])!r}")
        self._constants = payload[start : start + length]
        root = Buffer(graph).root
        self._where = [
            (table.integer(0, "<Q", 0), table.integer(1, "<Q"), table.text(2)) for table in root.tables(8)
        ]
        self.values = [self._value(table) for table in root.tables(2)]
        self.nodes = [self._node(table) for table in root.tables(1)]
        self.payload_bytes = len(payload) + sum(
            len(file.segments[file.named[key]])
            for key in {key for _, _, key in self._where if key in file.named}
        )

    def _value(self, union: Table) -> Value:
        outer = union.table(1)
        if outer is None:
            raise Damaged("XNNPACK's graph has a value without a tensor")
        quantized = union.integer(0, "<B") == 2
        tensor = outer.table(0) if quantized else outer
        if tensor is None:
            raise Damaged("XNNPACK's graph has a value without a tensor")
        dims, code = tensor.integers(2, "<u4"), tensor.integer(0, "<h")
        if len(dims) > MAX_RANK:
            raise Damaged("XNNPACK's graph has a tensor of too many dimensions")
        scale, zero, scales, axis = None, 0, 0, 0
        if quantized:
            kind, parameters = outer.integer(1, "<B"), outer.table(2)
            if kind == PER_TENSOR and parameters is not None:
                scale, zero, scales = parameters.real(0), parameters.integer(1), 1
                if not math.isfinite(scale):
                    raise Damaged("XNNPACK's graph has a scale that is not finite")
            elif kind == PER_CHANNEL and parameters is not None:
                scales = len(parameters.numbers(0, "<f4")) or parameters.integer(3, "<I")
                axis = parameters.integer(1)
            elif kind == PER_GROUP and parameters is not None:
                scales = len(parameters.numbers(0, "<f4")) or parameters.integer(5, "<I")
                axis = parameters.integer(1)
        external = tensor.integer(4, "<I")
        flagged = tensor.integer(5, "<I") & 3  # XNN_VALUE_FLAG_EXTERNAL_INPUT | _OUTPUT
        return Value(
            datatype=DATATYPES[code] if 0 <= code < len(DATATYPES) else f"datatype {code}",
            dims=dims,
            constant=tensor.integer(3, "<I"),
            external=external if flagged else None,
            scale=scale,
            zero_point=zero,
            scales=scales,
            axis=axis,
        )

    def _node(self, union: Table) -> Node:
        kind, table = union.integer(0, "<B"), union.table(1)
        name = NODES[kind] if kind < len(NODES) else f"node {kind}"
        ports = PORTS.get(name)
        if table is None or ports is None:
            return Node(name, -1, -1)
        source, output = (self._known(table.integer(port, "<I")) for port in ports)
        if name not in FILTERS:
            return Node(name, source, output)
        flags = table.integer(4 if name == "FullyConnected" else 19, "<I")
        return Node(
            name,
            source,
            output,
            self._known(table.integer(FILTER_FIELD[name], "<I")),
            bool(flags & _TRANSPOSED),
        )

    def _known(self, index: int) -> int:
        if index >= len(self.values):
            raise Damaged("XNNPACK's graph names a tensor that does not exist")
        return index

    def _nibbles(self, data: memoryview, dims: tuple[int, ...]) -> np.ndarray:
        """Two numbers a byte, the first in the low bits, 8 standing for zero; a row begins with a byte."""
        if not dims:
            raise Damaged("XNNPACK's graph has a packed constant of no dimension")
        width = -(-dims[-1] // 2)
        rows = math.prod(dims[:-1])
        packed = self.file.numbers(data, "u1", rows * width).reshape(rows, width)
        apart = np.stack([packed & 15, packed >> 4], axis=-1).reshape(rows, 2 * width)[:, : dims[-1]]
        return apart.astype(np.int8).reshape(dims) - np.int8(8)

    def key(self, value: Value) -> str:
        """What tells one constant from another."""
        if value.constant >= len(self._where):
            raise Damaged("XNNPACK's graph names a constant that does not exist")
        offset, _, key = self._where[value.constant]
        return key or f"{id(self)} {offset}"

    def constant(self, value: Value) -> np.ndarray | None:
        """The content of a constant in its own shape; None where its type is one that is not unpacked here.

        Raises:
            Damaged: The file does not hold it.
        """
        if value.datatype not in STORED:
            return None
        self.key(value)
        offset, size, key = self._where[value.constant]
        if key:
            if key not in self.file.named:
                raise Damaged("XNNPACK's graph names data that is not in the file")
            data = self.file.segments[self.file.named[key]]
        elif offset == _NO_OFFSET or offset + size > len(self._constants):
            raise Damaged("XNNPACK's graph names a constant that is not in the file")
        else:
            data = self._constants[offset : offset + size]
        if value.datatype == "qcint4":
            return self._nibbles(data, value.dims)
        count = math.prod(value.dims)
        return self.file.numbers(data, STORED[value.datatype][1], count).reshape(value.dims)
