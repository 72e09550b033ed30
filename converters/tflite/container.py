"""Reads the tables of a .tflite flatbuffer without running it, and without trusting it.

Only the generated schema of the LiteRT wheel is used, and of it only the lazy accessors: the object API would
follow every offset of a hostile file, and vectors that point at one another can make it grow without bound.
Here every table is read once, so that work and memory are bounded by the size of the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.confidences import OutputGrid
from edgeprivacy.converters.recognise import describe, read_head
from edgeprivacy.converters.tflite.packing import CorruptTensor, dense_from_sparse, unpack
from edgeprivacy.errors import ArtifactError, MissingDependency

MAGIC = b"TFL3"
MAX_BYTES = (1 << 31) - 1
"""A flatbuffer's offsets are signed 32-bit numbers: nothing larger can be one."""


@dataclass(frozen=True)
class Tensor:
    """One tensor of the main subgraph. `signature` is the shape with -1 where a dimension is dynamic;
    `scales` and `zero_points` are empty for float tensors and have one entry, or one a slice of `axis`."""

    index: int
    name: str
    shape: tuple[int, ...]
    signature: tuple[int, ...]
    dtype: str
    buffer: int
    scales: NDArray[np.float64]
    zero_points: NDArray[np.int64]
    axis: int
    sparsity: Any

    @property
    def quantized(self) -> bool:
        """Whether its integers stand for real numbers."""
        return self.scales.size > 0 and bool((self.scales > 0).all())


@dataclass(frozen=True)
class Operator:
    """One operator in order of execution; tensor index -1 stands for an absent optional input."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class TfliteFile:
    """The main subgraph of a .tflite file.

    Raises:
        ArtifactError: Missing, unreadable, truncated, damaged, or another kind of file.
        MissingDependency: The extra "litert" is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._schema = _schema()
        self.content = _read(path)
        self._model = self._guard(lambda: self._schema.Model.GetRootAs(self.content, 0))
        self._guard(self._walk)

    def _guard(self, read: Callable[[], Any]) -> Any:
        """Whatever a damaged offset makes the reader trip over is one and the same user error."""
        try:
            return read()
        except ArtifactError:
            raise
        except Exception as error:
            # struct.error, IndexError, TypeError, OverflowError, MemoryError, ...: the kind of stumble says
            # nothing to a user.
            raise damaged(self.path, f"{type(error).__name__}: {error}") from error

    def _walk(self) -> None:
        """Read every table once."""
        model, schema = self._model, self._schema
        if model.SubgraphsLength() < 1:
            raise CorruptTensor("it has no graph")
        self.subgraphs = int(model.SubgraphsLength())
        graph = model.Subgraphs(0)
        names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
        types = {code: name for name, code in vars(schema.TensorType).items() if isinstance(code, int)}

        def count(length: int) -> range:
            if length * 4 > len(self.content):
                raise CorruptTensor(f"a table claims {length} entries")
            return range(length)

        codes = []
        for i in count(model.OperatorCodesLength()):
            code = model.OperatorCodes(i)
            name = names.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "UNKNOWN")
            codes.append(f"CUSTOM:{_text(code.CustomCode())}" if name == "CUSTOM" else name)
        self._buffers = [self._span(model.Buffers(i)) for i in count(model.BuffersLength())]
        self.tensors = [self._tensor(i, graph.Tensors(i), types) for i in count(graph.TensorsLength())]
        known = range(-1, len(self.tensors))
        self.operators: list[Operator] = []
        for i in count(graph.OperatorsLength()):
            table = graph.Operators(i)
            inputs, outputs = _ints(table.InputsAsNumpy()), _ints(table.OutputsAsNumpy())
            if not all(t in known for t in (*inputs, *outputs)):
                raise CorruptTensor("an operator names a tensor that does not exist")
            self.operators.append(Operator(codes[table.OpcodeIndex()], inputs, outputs))
        self.inputs = tuple(self.tensors[i] for i in _ints(graph.InputsAsNumpy()) if _real(i))
        self.outputs = tuple(self.tensors[i] for i in _ints(graph.OutputsAsNumpy()) if _real(i))
        # Signatures and metadata are not used, but a file cut off in them is a file cut off.
        for i in count(model.MetadataLength()):
            _text(model.Metadata(i).Name())
        for i in count(model.SignatureDefsLength()):
            _text(model.SignatureDefs(i).SignatureKey())
        _text(model.Description())

    def _span(self, table: Any) -> NDArray[np.uint8]:
        if table.Offset() > 1:  # data behind the flatbuffer, for models that outgrow 32-bit offsets
            return np.frombuffer(self.content, np.uint8, count=table.Size(), offset=table.Offset())
        data = table.DataAsNumpy()
        return data if isinstance(data, np.ndarray) else np.empty(0, np.uint8)

    def _tensor(self, index: int, table: Any, types: dict[int, str]) -> Tensor:
        shape = _ints(table.ShapeAsNumpy())
        signature = _ints(table.ShapeSignatureAsNumpy()) or shape
        if len(signature) != len(shape) or any(size < 0 for size in shape) or len(shape) > 16:
            raise CorruptTensor(f"tensor {index} has the shape {shape[:17]}")
        if not 0 <= table.Buffer() < max(1, len(self._buffers)):
            raise CorruptTensor(f"tensor {index} names a buffer that does not exist")
        q = table.Quantization()
        scales, points, axis = np.empty(0), np.empty(0, np.int64), 0
        if q is not None and isinstance(q.ScaleAsNumpy(), np.ndarray):
            scales = q.ScaleAsNumpy().astype(np.float64)
            stored = q.ZeroPointAsNumpy()
            points = (
                stored.astype(np.int64) if isinstance(stored, np.ndarray) else np.zeros(len(scales), np.int64)
            )
            axis = int(q.QuantizedDimension())
            if not np.isfinite(scales).all() or len(points) != len(scales):
                raise CorruptTensor(f"tensor {index} has damaged quantization parameters")
        return Tensor(
            index, _text(table.Name()), shape, signature, types.get(table.Type(), "UNKNOWN").lower(),
            int(table.Buffer()), scales, points, axis, table.Sparsity(),
        )  # fmt: skip

    def is_constant(self, index: int) -> bool:
        """Whether the file holds the content of this tensor."""
        return index >= 0 and len(self._buffers) > 0 and self._buffers[self.tensors[index].buffer].size > 0

    def constant(self, index: int) -> NDArray[Any]:
        """The content of a constant tensor in its own shape; packed and sparse ones are unpacked.

        Raises:
            ArtifactError: The content does not fit the shape.
        """
        tensor = self.tensors[index]

        def read() -> NDArray[Any]:
            data = self._buffers[tensor.buffer]
            if tensor.sparsity is not None:
                return dense_from_sparse(data, tensor.dtype, tensor.shape, tensor.sparsity, len(self.content))
            return unpack(data, tensor.dtype, math.prod(tensor.shape)).reshape(tensor.shape)

        result: NDArray[Any] = self._guard(read)
        return result

    @cached_property
    def producers(self) -> dict[int, Operator]:
        """The operator that writes a tensor, by tensor index."""
        return {output: operator for operator in self.operators for output in operator.outputs}

    def chain(self, index: int, through: tuple[str, ...]) -> tuple[int, Operator | None]:
        """Walk back from a tensor through operators of these names; the tensor where the walk ends, and the
        operator that writes it (None for constants and inputs)."""
        for _ in range(len(self.operators) + 1):
            operator = self.producers.get(index)
            if (
                operator is None
                or operator.name not in through
                or not operator.inputs
                or operator.inputs[0] < 0
            ):
                return index, operator
            index = operator.inputs[0]
        raise damaged(self.path, "its graph has a cycle")

    @cached_property
    def output_grid(self) -> tuple[OutputGrid | None, bool]:
        """The grid that the output's values lie on, and whether it is the grid of the output tensor itself
        (quantized, or float behind DEQUANTIZE) rather than of the logits that a float softmax reads."""
        if len(self.outputs) != 1:
            return None, True
        shaping = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
        index, producer = self.chain(self.outputs[0].index, shaping)
        if not self.tensors[index].quantized and producer is not None and producer.name == "DEQUANTIZE":
            index = producer.inputs[0]
        _, source = self.chain(index, (*shaping, "DEQUANTIZE", "QUANTIZE"))
        normalized = source is not None and source.name in ("SOFTMAX", "LOGISTIC")
        if self._on_grid(index):
            return self._grid(index, "probabilities" if normalized else "logits"), True
        if normalized and source is not None and source.inputs:
            before, dequantize = self.chain(source.inputs[0], shaping)
            if dequantize is not None and dequantize.name == "DEQUANTIZE":
                before = dequantize.inputs[0]
            if self._on_grid(before):
                return self._grid(before, "logits"), False
        return None, True

    def _on_grid(self, index: int) -> bool:
        tensor = self.tensors[index]
        return index >= 0 and tensor.quantized and tensor.dtype in ("int8", "uint8", "int16", "int32")

    def _grid(self, index: int, on: Literal["probabilities", "logits"]) -> OutputGrid:
        tensor = self.tensors[index]
        return OutputGrid(float(tensor.scales[0]), int(tensor.zero_points[0]), on)

    def softmax_beta(self, operator: Operator) -> float:
        """What a SOFTMAX multiplies its input with; 0 where the file does not say."""
        graph = self._model.Subgraphs(0)

        def read() -> float:
            options = graph.Operators(self.operators.index(operator)).BuiltinOptions()
            if options is None:
                return 0.0
            softmax = self._schema.SoftmaxOptions()
            softmax.Init(options.Bytes, options.Pos)
            return float(softmax.Beta())

        return float(self._guard(read))

    def with_output(self, index: int) -> bytes:
        """The file's bytes with this tensor as its first output, and everything else as it is."""
        content = bytearray(self.content)
        self._schema.Model.GetRootAs(content, 0).Subgraphs(0).OutputsAsNumpy()[0] = index
        return bytes(content)

    @property
    def ends_in(self) -> str | None:
        """Name of the last operator that computes, shaping and (de)quantization aside."""
        if len(self.outputs) != 1:
            return None
        last = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "DEQUANTIZE", "QUANTIZE")
        _, operator = self.chain(self.outputs[0].index, last)
        return None if operator is None else operator.name


def damaged(path: Path, reason: str) -> ArtifactError:
    """The error for a file with the right magic and wrong content."""
    return ArtifactError(f"{path} is a damaged or truncated .tflite file", got=reason[:200])


def _schema() -> Any:
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError:
        raise MissingDependency("reading a .tflite file", extra="litert") from None
    return schema_py_generated


def _read(path: Path) -> bytes:
    head, size = read_head(path, "a .tflite file")
    if head[4:8] != MAGIC:
        raise ArtifactError(
            f"{path} is no .tflite file",
            got=describe(head, size),
            allowed="a .tflite file ('TFL3' at byte 4)",
            hint="export the model to .tflite first",
        )
    if size > MAX_BYTES:
        raise ArtifactError(f"{path} is too large for a .tflite file", got=f"{size} bytes")
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_BYTES)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read", got=error.strerror) from None


def _ints(vector: Any) -> tuple[int, ...]:
    return tuple(int(v) for v in vector) if isinstance(vector, np.ndarray) else ()


def _real(index: int) -> bool:
    if index < 0:
        raise CorruptTensor("the graph names an input or output that does not exist")
    return True


def _text(raw: bytes | None) -> str:
    """A name from the file, safe to print: foreign bytes must not steer a terminal."""
    text = (raw or b"")[:512].decode("utf-8", errors="replace")
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
