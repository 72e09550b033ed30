"""Files that are either whole or not there: write to a temporary name, then rename; and hashes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from edgeprivacy.errors import DataError, StorageError

_CHUNK = 1 << 20
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it when the block ends without an error.

    Raises:
        StorageError: The disk is full, or the folder or the name cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        # Other errors of the block are its own: it may read files, too.
        ours = error.filename is not None and Path(error.filename) in (temporary, path.parent)
        if ours or error.errno in _DISK_ERRORS:
            raise StorageError(
                f"cannot write {path}", got=error.strerror, hint="free some space or choose another folder"
            ) from error
        raise
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write a UTF-8 text file whole or not at all."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Write JSON with a stable layout, whole or not at all. NaN and infinity are refused."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def write_npz(path: Path, **arrays: np.ndarray[Any, Any]) -> None:
    """Write arrays as an uncompressed .npz without pickles, whole or not at all."""
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)


def read_npz(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """All arrays of an .npz file; object arrays (pickles) are refused.

    Raises:
        DataError: The file is missing, damaged, or holds Python objects.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except Exception as error:
        raise DataError(
            f"{path} is not a readable .npz file",
            got=str(error).splitlines()[0] if str(error) else type(error).__name__,
            hint="write it with numpy.savez(path, x=..., y=...); arrays of Python objects are refused",
        ) from None


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_arrays(*arrays: np.ndarray[Any, Any]) -> str:
    """Hex sha256 over dtype, shape and content of arrays, in order."""
    digest = hashlib.sha256()
    for array in arrays:
        contiguous = np.ascontiguousarray(array)
        digest.update(f"{contiguous.dtype.str}{contiguous.shape}".encode())
        # A view spares the copy, but there is none of texts or of no rows.
        viewable = contiguous.size and contiguous.dtype.kind != "U"
        digest.update(contiguous.data.cast("B") if viewable else contiguous.tobytes())
    return digest.hexdigest()


def sha256_json(content: Any) -> str:
    """Hex sha256 of the canonical JSON form (sorted keys, no spaces)."""
    return hashlib.sha256(
        json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    ).hexdigest()
