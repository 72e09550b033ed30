"""Which kind of model file this is, by its bytes; and the name of what it is instead."""

from __future__ import annotations

import re
import stat
import struct
import zipfile
from pathlib import Path

from edgeprivacy.errors import ArtifactError

ALLOWED = (
    "a .tflite file ('TFL3' at byte 4), an ExecuTorch program .pte ('ET12' at byte 4), or a PyTorch Mobile "
    ".ptl (a zip archive with bytecode.pkl)"
)
HEAD_BYTES = 4096
_MAX_DIRECTORY = 4 << 20
"""Bytes of a zip's central directory: some 50 000 entries. A .ptl has dozens."""

_LOOKS_LIKE = (
    (4, b"TFL3", "a .tflite file"),
    (0, b"\x89HDF\r\n", "an HDF5 file (Keras weights or a .h5 model)"),
    (4, b"ET", "an ExecuTorch program (.pte)"),
    (0, b"\x93NUMPY", "a NumPy array (.npy)"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"\x80\x02", "a Python pickle (an old PyTorch checkpoint): it is not opened, it could run any code"),
    (0, b"\x80\x03", "a Python pickle: it is not opened, it could run any code"),
    (0, b"\x80\x04", "a Python pickle: it is not opened, it could run any code"),
    (0, b"\x80\x05", "a Python pickle: it is not opened, it could run any code"),
    (0, b"GGUF", "a GGUF model"),
    (0, b"version https://git-lfs", "a Git LFS pointer: the model itself was not downloaded"),
    (8, b'{"', "a safetensors file (weights without a model)"),
    (0, b"<", "a web page or XML text"),
    (0, b"{", "JSON text"),
)
_EXPORT = "write it with edgeprivacy compress, or export the model first"


def container_of(path: Path) -> str:
    """The container format of a model file, by its bytes: "tflite", "pte" or "ptl".

    Only the beginning (and a zip's directory) is read: a file of a known kind may still be damaged inside.

    Raises:
        ArtifactError: Missing, unreadable, empty, or of no known kind; says what the file is and what to do.
    """
    head, size = read_head(path)
    if head[4:8] == b"TFL3":
        return "tflite"
    if re.fullmatch(rb"ET\d\d", head[4:8]):
        return "pte"
    if head.startswith(b"PK"):
        got, hint = _describe_zip(path, head)
        if got is None:
            return "ptl"
        raise ArtifactError(f"{path} is no model file that can be read", got=got, allowed=ALLOWED, hint=hint)
    raise ArtifactError(
        f"{path} is no model file that can be read", got=describe(head, size), allowed=ALLOWED, hint=_EXPORT
    )


def read_head(path: Path, wanted: str = "a model file") -> tuple[bytes, int]:
    """The first `HEAD_BYTES` of a regular file, and its size in bytes. ArtifactError for anything else."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            what = "a TensorFlow SavedModel folder" if (path / "saved_model.pb").exists() else "a folder"
            raise ArtifactError(f"{path} is not {wanted}", got=what, allowed=wanted)
        if not stat.S_ISREG(status.st_mode):
            raise ArtifactError(f"{path} is not {wanted}", got="not a regular file")
        with path.open("rb") as stream:
            return stream.read(HEAD_BYTES), status.st_size
    except FileNotFoundError:
        raise ArtifactError(f"{path} does not exist") from None
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read", got=error.strerror) from None


def describe(head: bytes, size: int) -> str:
    """In a few words what a file is, from its first bytes."""
    if not head:
        return "an empty file"
    if head.startswith(b"PK"):
        torch = b"data.pkl" in head or b"bytecode" in head or b"/version" in head
        keras = b"config.json" in head or b"metadata.json" in head
        kind = "a PyTorch archive (.pt, .ptl)" if torch else "a Keras model (.keras)" if keras else None
        return kind or "a zip archive (.keras, .npz, .pt, ...)"
    return next(
        (what for at, magic, what in _LOOKS_LIKE if head[at : at + len(magic)] == magic),
        f"a file of {size} bytes that begins with {head[:8].hex(' ')}",
    )


def _describe_zip(path: Path, head: bytes) -> tuple[str | None, str]:
    """What a zip archive is (None: a .ptl), and what to do about it."""
    try:
        names = zip_names(path)
    except (zipfile.BadZipFile, OSError, ValueError, struct.error) as error:
        return f"{describe(head, 0)}, damaged or truncated ({str(error)[:80]})", "copy or write it again"
    ends = {name.rsplit("/", 1)[-1] for name in names}
    parts = {part for name in names for part in name.split("/")[:-1]}
    if "bytecode.pkl" in ends:
        return None, ""
    if "model.json" in ends or "archive_format" in ends:
        return (
            "an exported torch program (.pt2)",
            "lower it to .pte, or give the model to edgeprivacy compress",
        )
    if "data.pkl" in ends and "code" in parts:
        return (
            "a TorchScript archive without mobile bytecode",
            "write it for the lite interpreter: torch.jit.load(FILE)._save_for_lite_interpreter('model.ptl')",
        )
    if "data.pkl" in ends:
        return (
            "a PyTorch archive of weights (a state dict or a pickled model), no program",
            "give it as the weights of a model factory in the recipe, and run edgeprivacy compress",
        )
    if {"config.json", "metadata.json"} & ends:
        return "a Keras model (.keras)", _EXPORT
    return "a zip archive (.keras, .npz, .pt, ...)", _EXPORT


def zip_names(path: Path) -> list[str]:
    """Names of a zip archive's entries; its directory's size is looked at before it is read.

    Raises:
        BadZipFile, ValueError, struct.error: Damaged, or a directory beyond all measure.
        OSError: Unreadable.
    """
    with path.open("rb") as stream:
        end = stream.seek(0, 2)
        start = max(0, end - 65557)
        stream.seek(start)
        tail = stream.read(end - start)
        at = tail.rfind(b"PK\x05\x06")
        if at < 0 or at + 22 > len(tail):
            raise zipfile.BadZipFile("no end of central directory")
        directory = struct.unpack_from("<I", tail, at + 12)[0]
        large = tail.rfind(b"PK\x06\x06", 0, at)
        if large >= 0 and large + 48 <= len(tail):
            directory = max(struct.unpack_from("<Q", tail, large + 40)[0], directory % 0xFFFFFFFF)
        if directory > _MAX_DIRECTORY:
            raise zipfile.BadZipFile(f"its directory claims {directory} bytes")
        with zipfile.ZipFile(stream) as archive:
            return archive.namelist()
