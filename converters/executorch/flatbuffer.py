"""Tables of a flatbuffer, read with every offset checked and all work counted. Framework-free.

A flatbuffer is tables of numbered fields; the numbers are fixed for ever by the schema, so that a few of them
are all that is needed to read a file: no generated code, no compiler, and nothing to install.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


class Damaged(ValueError):
    """The bytes do not hold what the tables say."""


class Buffer:
    """The bytes of one flatbuffer and a budget: tables that point at one another cannot make the reader work
    more than 64 times the buffer's size.

    Args:
        content: The flatbuffer, from its root offset on.
    """

    def __init__(self, content: bytes | memoryview) -> None:
        self.content = memoryview(content)
        self._budget = 64 * len(self.content) + 4096

    @property
    def root(self) -> Table:
        """The root table. Damaged where there is none."""
        return Table(self, self.number("<I", 0))

    def number(self, kind: str, at: int) -> int:
        """An integer at a position; struct formats "<I", "<i", "<H", "<b", "<Q", ..."""
        self.span(at, struct.calcsize(kind))
        return int(struct.unpack_from(kind, self.content, at)[0])

    def span(self, at: int, size: int) -> memoryview:
        """`size` bytes from `at` on, within the buffer and the budget."""
        if at < 0 or size < 0 or at + size > len(self.content):
            raise Damaged(f"an offset points to {at} of {len(self.content)} bytes")
        self._budget -= max(size, 4)
        if self._budget < 0:
            raise Damaged("its tables point at one another more often than an honest file's")
        return self.content[at : at + size]


class Table:
    """One table of a flatbuffer; fields are asked for by their number in the schema."""

    def __init__(self, buffer: Buffer, at: int) -> None:
        self.buffer, self.at = buffer, at
        self._fields = at - buffer.number("<i", at)
        self._size = buffer.number("<H", self._fields)
        if self._size < 4:
            raise Damaged("a table without fields")

    def place(self, field: int) -> int:
        """Position of a field's content, or 0 where the table leaves it out."""
        entry = 4 + 2 * field
        if entry + 2 > self._size:
            return 0
        offset = self.buffer.number("<H", self._fields + entry)
        return self.at + offset if offset else 0

    def integer(self, field: int, kind: str = "<i", default: int = 0) -> int:
        """A number; `default` where it is left out."""
        at = self.place(field)
        return self.buffer.number(kind, at) if at else default

    def real(self, field: int, kind: str = "<f") -> float:
        """A real number; 0 where it is left out."""
        at = self.place(field)
        if not at:
            return 0.0
        return float(struct.unpack(kind, self.buffer.span(at, struct.calcsize(kind)))[0])

    def table(self, field: int) -> Table | None:
        """A table inside this one."""
        at = self.place(field)
        return Table(self.buffer, at + self.buffer.number("<I", at)) if at else None

    def _vector(self, field: int) -> tuple[int, int]:
        at = self.place(field)
        if not at:
            return 0, 0
        start = at + self.buffer.number("<I", at)
        return start + 4, self.buffer.number("<I", start)

    def numbers(self, field: int, kind: str) -> NDArray[np.generic]:
        """A vector of numbers of a NumPy type ("<i4", "<u4", "<i8", "<f4", "u1"); empty where left out."""
        start, count = self._vector(field)
        size = count * np.dtype(kind).itemsize
        return np.frombuffer(self.buffer.span(start, size), kind) if count else np.empty(0, kind)

    def integers(self, field: int, kind: str = "<i4") -> tuple[int, ...]:
        """A vector of integers."""
        return tuple(int(v) for v in self.numbers(field, kind))

    def bytes_of(self, field: int) -> memoryview:
        """A vector of bytes."""
        start, count = self._vector(field)
        return self.buffer.span(start, count) if count else memoryview(b"")

    def text(self, field: int) -> str:
        """A string of at most 1024 bytes, safe to print: foreign bytes must not steer a terminal."""
        raw = bytes(self.bytes_of(field)[:1024]).decode("utf-8", errors="replace")
        return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in raw)

    def tables(self, field: int) -> Iterator[Table]:
        """A vector of tables, one after the other."""
        start, count = self._vector(field)
        self.buffer.span(start, 4 * count) if count else None
        for position in range(start, start + 4 * count, 4):
            yield Table(self.buffer, position + self.buffer.number("<I", position))
