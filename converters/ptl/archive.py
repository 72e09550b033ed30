"""The zip archive of a .ptl: entries, pickles and tensors, with every size checked. Framework-free."""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from edgeprivacy.converters.ptl.pickled import Called, Global, Stored, Unreadable, read_pickle
from edgeprivacy.converters.recognise import container_of, describe, read_head, zip_names
from edgeprivacy.errors import ArtifactError

MAX_BYTES = 2 << 30
_MAX_PICKLE = 64 << 20
_STORAGES = {
    "FloatStorage": ("float32", "<f4"), "HalfStorage": ("float16", "<f2"),
    "DoubleStorage": ("float64", "<f8"), "LongStorage": ("int64", "<i8"),
    "IntStorage": ("int32", "<i4"), "ShortStorage": ("int16", "<i2"),
    "CharStorage": ("int8", "i1"), "ByteStorage": ("uint8", "u1"),
    "BoolStorage": ("bool", "u1"), "QInt8Storage": ("int8", "i1"),
    "QUInt8Storage": ("uint8", "u1"), "QInt32Storage": ("int32", "<i4"),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor's values as stored, and its quantization: `zero` is a number, or one a slice of `axis`."""

    key: str
    dtype: str
    values: np.ndarray
    scales: int = 0
    zero: Any = 0
    axis: int = 0


class PtlArchive:
    """A .ptl file's entries.

    Raises:
        ArtifactError: Missing, unreadable, truncated, damaged, or another kind of file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        head, size = read_head(path, "a .ptl file")
        if not head.startswith(b"PK"):
            raise ArtifactError(
                f"{path} is no .ptl file", got=describe(head, size), allowed="a zip archive with bytecode.pkl"
            )
        container_of(path)
        if size > MAX_BYTES:
            raise ArtifactError(f"{path} is too large for a .ptl file", got=f"{size} bytes")
        self._left = 64 * size
        try:
            self.content = path.read_bytes()
            roots = {name.split("/")[0] for name in zip_names(path) if name.endswith("/bytecode.pkl")}
            if len(roots) != 1:
                raise Unreadable("its entries do not stand in one folder")
            self._root = roots.pop()
            with zipfile.ZipFile(path) as archive:
                self._entries = {entry.filename: entry for entry in archive.infolist()}
        except OSError as error:
            raise ArtifactError(f"{path} cannot be read", got=error.strerror) from None
        except (zipfile.BadZipFile, ValueError, struct.error) as error:
            raise damaged(path, str(error)) from error

    def has(self, name: str) -> bool:
        """Whether there is such an entry."""
        return f"{self._root}/{name}" in self._entries

    def read(self, name: str, limit: int = MAX_BYTES) -> bytes:
        """An entry's content. Unreadable where it is missing, damaged, or larger than an honest one."""
        entry = self._entries.get(f"{self._root}/{name}")
        if entry is None:
            raise Unreadable(f"it has no entry {name[:80]}")
        if entry.file_size > min(limit, self._left):
            raise Unreadable(f"its entry {name[:80]} claims {entry.file_size} bytes")
        self._left -= entry.file_size
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(entry) as stream:
                data = stream.read(entry.file_size + 1)
        except (
            zipfile.BadZipFile,
            zlib.error,
            NotImplementedError,
            RuntimeError,
            EOFError,
            OSError,
        ) as error:
            raise Unreadable(f"its entry {name[:80]} is damaged: {str(error)[:80]}") from error
        if len(data) != entry.file_size:
            raise Unreadable(f"its entry {name[:80]} is cut off")
        return data

    def pickle(self, name: str) -> list[Any]:
        """A pickle's values as inert data; see `read_pickle`."""
        return read_pickle(self.read(name, _MAX_PICKLE))

    def tensor(self, value: Any) -> StoredTensor | None:
        """The tensor that a value of a pickle stands for, or None if it stands for another thing.

        Raises:
            Unreadable: The archive does not hold what the pickle says.
        """
        if not isinstance(value, Called) or not isinstance(value.function, Global):
            return None
        name, args = value.function.name, value.args
        if value.function.module != "torch._utils" or not isinstance(args, tuple) or len(args) < 4:
            return None
        if name not in ("_rebuild_tensor_v2", "_rebuild_qtensor"):
            return None
        key, dtype, values = self._strided(*args[:4])
        if name == "_rebuild_tensor_v2":
            return StoredTensor(key, dtype, values)
        scheme = args[4] if len(args) > 4 else ()
        if not isinstance(scheme, tuple) or len(scheme) < 3 or not isinstance(scheme[0], Global):
            raise Unreadable("a quantized tensor without its scale")
        if scheme[0].name == "per_tensor_affine":
            zero = scheme[2]
            if not isinstance(zero, int):
                raise Unreadable("a quantized tensor without its zero point")
            return StoredTensor(key, dtype, values, scales=1, zero=zero)
        scales, zeros = self.tensor(scheme[1]), self.tensor(scheme[2])
        axis = scheme[3] if len(scheme) > 3 else None
        if scales is None or zeros is None or not isinstance(axis, int) or not 0 <= axis < values.ndim:
            raise Unreadable("a quantized tensor without its scales")
        if not scales.values.size == zeros.values.size == values.shape[axis]:
            raise Unreadable("a quantized tensor with other scales than channels")
        return StoredTensor(key, dtype, values, scales.values.size, zeros.values.ravel(), axis)

    def _strided(self, storage: Any, offset: Any, sizes: Any, strides: Any) -> tuple[str, str, np.ndarray]:
        reference = storage.id if isinstance(storage, Stored) else None
        if not isinstance(reference, tuple) or len(reference) != 5 or not isinstance(reference[1], Global):
            raise Unreadable("a tensor without a storage")
        kind, key = _STORAGES.get(reference[1].name), reference[2]
        if kind is None or not isinstance(key, str):
            raise Unreadable(f"a tensor of {reference[1].name[:40]}")
        whole = all(isinstance(part, tuple) and _counts(part) for part in (sizes, strides))
        if not whole or len(sizes) != len(strides) or len(sizes) > 16 or not _counts((offset,)):
            raise Unreadable("a tensor's shape is no shape")
        place = next((f"{f}/{key}" for f in ("constants", "bytecode", "data") if self.has(f"{f}/{key}")), "")
        data = self.read(place or f"constants/{key}")
        dtype = np.dtype(kind[1])
        numbers = np.frombuffer(data[: len(data) // dtype.itemsize * dtype.itemsize], dtype)
        size = math.prod(sizes)
        last = offset + sum((count - 1) * step for count, step in zip(sizes, strides, strict=True))
        if size and (size > numbers.size or last >= numbers.size):
            raise Unreadable("a tensor is larger than its storage")
        if not size:
            return key, kind[0], np.empty(sizes, dtype)
        steps = tuple(step * dtype.itemsize for step in strides)
        return key, kind[0], as_strided(numbers[offset:], sizes, steps, writeable=False)


def _counts(values: tuple[Any, ...]) -> bool:
    return all(isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 1 << 40 for v in values)


def damaged(path: Path, reason: str) -> ArtifactError:
    """The error for an archive that has bytecode, and wrong content."""
    return ArtifactError(f"{path} is a damaged or truncated .ptl file", got=reason[:200])
