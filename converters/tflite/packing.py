"""How .tflite stores numbers: plain, several to a byte, or sparse. Framework-free."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PLAIN = {
    "float32": "<f4", "float16": "<f2", "float64": "<f8", "int64": "<i8", "int32": "<i4", "int16": "<i2",
    "int8": "i1", "uint8": "u1", "uint16": "<u2", "uint32": "<u4", "uint64": "<u8", "bool": "u1",
}  # fmt: skip
_BITS = {"int4": 4, "uint4": 4, "int2": 2}


class CorruptTensor(ValueError):
    """The stored bytes do not fit what the tables say about them."""


def unpack(data: NDArray[np.uint8], dtype: str, count: int) -> NDArray[Any]:
    """`count` numbers out of a tensor's bytes, [count]; bfloat16 becomes float32, 4- and 2-bit integers int8.

    Raises:
        CorruptTensor: Too few or too many bytes, or a type that holds no numbers.
    """
    if dtype in _BITS:
        bits = _BITS[dtype]
        per_byte = 8 // bits
        if data.size != -(-count // per_byte):
            raise CorruptTensor(f"{data.size} bytes for {count} numbers of {bits} bits")
        shifts = np.arange(per_byte, dtype=np.uint8) * bits  # the lowest bits come first
        values = ((data[:, None] >> shifts) & ((1 << bits) - 1)).ravel()[:count].astype(np.int8)
        if dtype.startswith("int"):
            values[values >= 1 << (bits - 1)] -= np.int8(1 << bits)
        return values
    stored = "<u2" if dtype == "bfloat16" else _PLAIN.get(dtype)
    if stored is None:
        raise CorruptTensor(f"a constant of type {dtype}")
    if data.size != count * np.dtype(stored).itemsize:
        raise CorruptTensor(f"{data.size} bytes for {count} numbers of type {dtype}")
    values = data.view(stored) if data.flags.c_contiguous else data.copy().view(stored)
    if dtype == "bfloat16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values


def dense_from_sparse(
    data: NDArray[np.uint8], dtype: str, shape: tuple[int, ...], sparsity: Any, limit: int
) -> NDArray[Any]:
    """Unpack TFLite's sparse storage (traversal order over dimensions and blocks, each dense or CSR).

    Args:
        data: The stored values.
        sparsity: The file's `SparsityParameters` table.
        limit: Size of the file in bytes; a claimed dense size beyond 64 times that is refused.

    Raises:
        CorruptTensor: The index structure does not fit the shape.
    """
    size = math.prod(shape)
    order = [int(v) for v in sparsity.TraversalOrderAsNumpy()]
    blocks = sparsity.BlockMapAsNumpy()
    block_map = [int(v) for v in blocks] if isinstance(blocks, np.ndarray) else []
    rank = len(shape)
    if size > limit * 64 or sorted(order) != list(range(rank + len(block_map))):
        raise CorruptTensor("damaged sparse tensor")
    if sparsity.DimMetadataLength() != len(order) or not all(0 <= d < rank for d in block_map):
        raise CorruptTensor("damaged sparse tensor")
    # One entry a stored node; level by level every node gets its coordinates.
    coordinates: dict[int, NDArray[np.int64]] = {}
    block_sizes: dict[int, int] = {}
    nodes = 1
    for level, dimension in enumerate(order):
        meta = sparsity.DimMetadata(level)
        if meta.Format() == 0:
            width = int(meta.DenseSize())
            if not 0 < width or nodes * width > size:
                raise CorruptTensor("damaged sparse tensor")
            parents = np.repeat(np.arange(nodes), width)
            here = np.tile(np.arange(width), nodes)
            if dimension >= rank:
                block_sizes[dimension] = width
        else:
            segments, here = _index_vector(meta, "Segments"), _index_vector(meta, "Indices")
            lengths = np.diff(segments)
            if len(segments) != nodes + 1 or (lengths < 0).any() or lengths.sum() != len(here):
                raise CorruptTensor("damaged sparse tensor")
            parents = np.repeat(np.arange(nodes), lengths)
        coordinates = {d: c[parents] for d, c in coordinates.items()}
        coordinates[dimension] = here
        nodes = len(here)
    for i, dimension in enumerate(block_map):
        block = block_sizes.get(rank + i, 1)
        coordinates[dimension] = coordinates[dimension] * block + coordinates[rank + i]
    values = unpack(data, dtype, nodes)
    dense = np.zeros(shape, values.dtype)
    where = tuple(coordinates[d] for d in range(rank))
    if any((c < 0).any() or (c >= shape[d]).any() for d, c in enumerate(where)):
        raise CorruptTensor("damaged sparse tensor")
    dense[where] = values
    return dense


def _index_vector(meta: Any, part: str) -> NDArray[np.int64]:
    """`ArraySegments` or `ArrayIndices`: a union of vectors of int32, uint16 or uint8."""
    from ai_edge_litert import schema_py_generated as schema

    kind = getattr(meta, f"Array{part}Type")()
    table = getattr(meta, f"Array{part}")()
    vector = {1: schema.Int32Vector, 2: schema.Uint16Vector, 3: schema.Uint8Vector}[kind]()
    vector.Init(table.Bytes, table.Pos)
    values = vector.ValuesAsNumpy()
    return np.asarray(values, np.int64) if isinstance(values, np.ndarray) else np.empty(0, np.int64)
