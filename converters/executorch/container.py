"""Reads an ExecuTorch program (.pte) without running it, without trusting it, and without ExecuTorch.

Field numbers are those of ExecuTorch's `schema/program.fbs` (file identifier ET12); the tests compare
them with the schema in the installed wheel.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeprivacy.converters.executorch.flatbuffer import Buffer, Damaged, Table
from edgeprivacy.converters.recognise import describe, read_head
from edgeprivacy.errors import ArtifactError

MAGIC = b"ET12"
MAX_BYTES = 4 << 30
"""Larger programs do not fit a phone; the file is read into memory."""
MAX_RANK = 16

SCALARS = {
    0: "uint8", 1: "int8", 2: "int16", 3: "int32", 4: "int64", 5: "float16", 6: "float32", 7: "float64",
    11: "bool", 12: "qint8", 13: "quint8", 14: "qint32", 15: "bfloat16", 16: "quint4x2", 17: "quint2x4",
    22: "bits16", 23: "float8_e5m2", 24: "float8_e4m3fn", 27: "uint16", 28: "uint32", 29: "uint64",
}  # fmt: skip
STORED = {
    "uint8": "u1", "int8": "i1", "int16": "<i2", "int32": "<i4", "int64": "<i8", "float16": "<f2",
    "float32": "<f4", "float64": "<f8", "bool": "u1", "uint16": "<u2", "uint32": "<u4", "uint64": "<u8",
}  # fmt: skip
_TENSOR = 5
_INT, _BOOL, _DOUBLE = 2, 3, 4
_KERNEL, _DELEGATE, _MOVE, _JUMP = 1, 2, 3, 4


@dataclass(frozen=True)
class Tensor:
    """A tensor of the plan. `sizes` are upper bounds where `dynamic`; `buffer` 0 means no constant."""

    dtype: str
    sizes: tuple[int, ...]
    order: tuple[int, ...]
    dynamic: bool
    buffer: int
    constant: bool
    external: bool


@dataclass(frozen=True)
class Call:
    """One instruction: an operator ("aten::mean.out") or, by number, a delegate; `args` are value numbers."""

    operator: str | None
    delegate: int
    args: tuple[int, ...]


@dataclass(frozen=True)
class Delegate:
    """A part of the program for a backend: its name and its own program's bytes."""

    id: str
    payload: memoryview


class PteFile:
    """The main method ("forward", else the first) of a .pte file.

    Raises:
        ArtifactError: Missing, unreadable, truncated, damaged, of another version, or another kind of file.
    """

    def __init__(self, path: Path) -> None:
        self._open(_read(path), path)

    @classmethod
    def from_bytes(cls, content: bytes, path: Path) -> PteFile:
        """The same for a file's content; the path is what errors call it."""
        file = cls.__new__(cls)
        file._open(content, path)
        return file

    def _open(self, content: bytes, path: Path) -> None:
        self.path, self.content = path, content
        try:
            self._walk()
        except (Damaged, struct.error, ValueError, OverflowError, MemoryError) as error:
            raise damaged(path, str(error) or type(error).__name__) from error

    def _walk(self) -> None:
        size, base = self._header()
        buffer = Buffer(memoryview(self.content)[:size])
        program = buffer.root
        version = program.integer(0, "<I")
        if version != 0:
            raise ArtifactError(
                f"{self.path} is a program of another version", got=f"version {version}", allowed="version 0"
            )
        self._segments(program, base)
        # A file may name one segment often; what is read twice is counted twice.
        self.left = 64 * len(self.content)
        self._inline = [table.bytes_of(0) for table in program.tables(2)]
        self.named = {table.text(0): table.integer(1, "<I") for table in program.tables(7)}
        if any(index >= len(self.segments) for index in self.named.values()):
            raise Damaged("named data in a segment that does not exist")
        constants = program.table(5)
        self._constant_segment = constants.integer(0, "<I") if constants else 0
        self._offsets = constants.integers(1, "<u8") if constants else ()
        delegate_data = [table.bytes_of(0) for table in program.tables(3)]
        plans = list(program.tables(1))
        if not plans:
            raise Damaged("it has no method")
        self.methods = [plan.text(0) for plan in plans]
        self._plan(plans[self.methods.index("forward") if "forward" in self.methods else 0], delegate_data)

    def _header(self) -> tuple[int, int]:
        """Size of the program's tables, and where the segments behind it begin (0: there are none)."""
        content = self.content
        if content[8:12] != b"eh00":
            return len(content), 0
        length, size, base = struct.unpack_from("<IQQ", content, 12)
        if size > len(content) or base > len(content) or (base and base < size):
            raise Damaged(f"its header speaks of {max(size, base)} bytes, there are {len(content)}")
        if length >= 32 and base:
            (behind,) = struct.unpack_from("<Q", content, 32)
            if base + behind > len(content):
                raise Damaged(f"its header speaks of {base + behind} bytes, there are {len(content)}")
        return int(size), int(base)

    def _segments(self, program: Table, base: int) -> None:
        self.segments: list[memoryview] = []
        self.segment_starts: list[int] = []
        for table in program.tables(4):
            start, size = base + table.integer(0, "<Q"), table.integer(1, "<Q")
            if not base or start + size > len(self.content):
                raise Damaged(f"a segment ends at {start + size} of {len(self.content)} bytes")
            self.segments.append(memoryview(self.content)[start : start + size])
            self.segment_starts.append(start)

    def _plan(self, plan: Table, delegate_data: list[memoryview]) -> None:
        self.values = [self._value(table) for table in plan.tables(2)]
        known = range(len(self.values))
        self.inputs, self.outputs = plan.integers(3), plan.integers(4)
        names = []
        for table in plan.tables(6):
            overload = table.text(1)
            names.append(f"{table.text(0)}.{overload}" if overload else table.text(0))
        self.delegates = [self._delegate(table, delegate_data) for table in plan.tables(7)]
        self.calls: list[Call] = []
        self.branches = False
        for chain in plan.tables(5):
            for instruction in chain.tables(2):
                kind, call = instruction.integer(0, "<B"), instruction.table(1)
                if kind == _KERNEL and call is not None:
                    index = call.integer(0)
                    if not 0 <= index < len(names):
                        raise Damaged("an instruction names an operator that does not exist")
                    self.calls.append(Call(names[index], -1, call.integers(1)))
                elif kind == _DELEGATE and call is not None:
                    index = call.integer(0)
                    if not 0 <= index < len(self.delegates):
                        raise Damaged("an instruction names a delegate that does not exist")
                    self.calls.append(Call(None, index, call.integers(1)))
                elif kind in (_MOVE, _JUMP):
                    self.branches = True
        if not all(v in known for v in (*self.inputs, *self.outputs)) or not all(
            v in known for call in self.calls for v in call.args
        ):
            raise Damaged("an instruction names a value that does not exist")

    def _value(self, table: Table) -> Tensor | float | None:
        kind, value = table.integer(0, "<B"), table.table(1)
        if value is None:
            return None
        if kind == _INT:
            return value.integer(0, "<q")
        if kind == _BOOL:
            return value.integer(0, "<B")
        if kind == _DOUBLE:
            return value.real(0, "<d")
        return self._tensor(value) if kind == _TENSOR else None

    def _tensor(self, table: Table) -> Tensor:
        sizes, order = table.integers(2), table.integers(3, "u1")
        if len(sizes) > MAX_RANK or any(size < 0 for size in sizes):
            raise Damaged(f"a tensor has the shape {sizes[: MAX_RANK + 1]}")
        if sorted(order) != list(range(len(sizes))):
            raise Damaged("a tensor's dimensions are out of order")
        extra = table.table(9)
        index = table.integer(5, "<I")
        return Tensor(
            dtype=SCALARS.get(table.integer(0, "<b"), "unknown"),
            sizes=sizes,
            order=order,
            dynamic=table.integer(8, "<b") != 0,
            buffer=index,
            constant=index > 0 and table.table(6) is None,
            external=extra is not None and extra.integer(2, "<b") == 1,
        )

    def _delegate(self, table: Table, inline: list[memoryview]) -> Delegate:
        reference = table.table(1)
        if reference is None:
            raise Damaged("a delegate without a program")
        index = reference.integer(1, "<I")
        blobs = self.segments if reference.integer(0, "<b") == 1 else inline
        if index >= len(blobs):
            raise Damaged("a delegate's program is not in the file")
        return Delegate(table.text(0), blobs[index])

    def tensor(self, index: int) -> Tensor | None:
        """The tensor of that number, or None for another kind of value."""
        value = self.values[index]
        return value if isinstance(value, Tensor) else None

    def constant(self, index: int) -> np.ndarray | None:
        """The content of a constant tensor in its own shape; None where the file does not hold it.

        Raises:
            Damaged: The content does not fit the shape.
        """
        tensor = self.tensor(index)
        if tensor is None or not tensor.constant or tensor.external or tensor.dtype not in STORED:
            return None
        if self._offsets:
            if tensor.buffer >= len(self._offsets) or self._constant_segment >= len(self.segments):
                raise Damaged("a constant that is not in the file")
            data = self.segments[self._constant_segment][self._offsets[tensor.buffer] :]
        elif tensor.buffer < len(self._inline):
            data = self._inline[tensor.buffer]
        else:
            raise Damaged("a constant that is not in the file")
        stored = [tensor.sizes[axis] for axis in tensor.order]
        values = self.numbers(data, STORED[tensor.dtype], math.prod(stored))
        return values.reshape(stored).transpose(np.argsort(tensor.order))

    def numbers(self, data: memoryview, kind: str, count: int) -> np.ndarray:
        """The first `count` numbers of some bytes. Damaged where there are fewer."""
        size = count * np.dtype(kind).itemsize
        self.left -= size
        if size > len(data) or self.left < 0:
            raise Damaged(f"{len(data)} bytes for {count} numbers")
        return np.frombuffer(data[:size], kind)


def damaged(path: Path, reason: str) -> ArtifactError:
    """The error for a file with the right magic and wrong content."""
    return ArtifactError(f"{path} is a damaged or truncated .pte file", got=reason[:200])


def _read(path: Path) -> bytes:
    head, size = read_head(path, "a .pte file")
    if head[4:8] != MAGIC:
        version = head[4:6] == b"ET" and head[6:8].isdigit()
        raise ArtifactError(
            f"{path} is no .pte file of a known version",
            got=f"an ExecuTorch program of format {head[4:8].decode()}" if version else describe(head, size),
            allowed="an ExecuTorch program of format ET12 ('ET12' at byte 4)",
            hint="export it with ExecuTorch 1.5",
        )
    if size > MAX_BYTES:
        raise ArtifactError(f"{path} is too large for a .pte file", got=f"{size} bytes")
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read", got=error.strerror) from None
