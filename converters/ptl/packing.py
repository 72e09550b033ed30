"""A .ptl archive written anew: what the phone needs, and nothing of the machine that made it."""

from __future__ import annotations

import io
import json
import pickletools
import re
import struct
import zipfile

from edgeprivacy.converters.ptl.facts import DECLARED

_LEFT_OUT = (".debug_pkl", ".data/serialization_id")
"""Source lines with the paths of this machine, and a hash over them: neither is read by the interpreter."""
_ALIGNMENT = 64
_HEADER = 30
_MANGLED = re.compile(r"(___torch_mangle_)(\d+)")


def repack(content: bytes, input_shape: tuple[int, ...]) -> bytes:
    """The same archive, in the same order, without source paths and with the input's shape written down.

    Entries are stored as torch stores them: uncompressed, aligned to 64 bytes, with no times. Classes, which
    torch numbers through the life of a process, are numbered from 0.
    """
    result, numbers = io.BytesIO(), _Numbers()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(result, "w") as new:
        names = [name for name in old.namelist() if not name.endswith(_LEFT_OUT)]
        for name in names:
            data = old.read(name)
            if name.endswith(".pkl"):
                data = _renamed(data, numbers)
            elif name.endswith(".py"):
                data = numbers.anew(data.decode()).encode()
            _add(new, result, numbers.anew(name), data)
        root = names[0].split("/")[0]
        declared = json.dumps({"input_shape": list(input_shape)}, separators=(",", ":"))
        _add(new, result, f"{root}/{DECLARED}", declared.encode())
    return result.getvalue()


class _Numbers:
    """New numbers for mangled class names, in the order in which they are met."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def anew(self, text: str) -> str:
        """The text with every mangled name numbered anew."""
        return _MANGLED.sub(
            lambda found: f"{found[1]}{self._known.setdefault(found[2], len(self._known))}", text
        )


def _renamed(data: bytes, numbers: _Numbers) -> bytes:
    """A pickle with its texts and names of classes numbered anew; its opcodes stay as they are."""
    parts, done = [], 0
    for opcode, argument, at in pickletools.genops(data):
        if at is None or opcode.name not in ("BINUNICODE", "GLOBAL"):
            continue
        parts.append(data[done:at])
        if opcode.name == "GLOBAL":
            # Name and module stand on lines of their own.
            done = data.index(b"\n", data.index(b"\n", at) + 1) + 1
            module, kind = data[at + 1 : done - 1].decode().split("\n")
            parts.append(f"c{numbers.anew(module)}\n{numbers.anew(kind)}\n".encode())
        else:
            (length,) = struct.unpack_from("<I", data, at + 1)
            done = at + 5 + length
            text = numbers.anew(str(argument)).encode("utf-8", "surrogatepass")
            parts.append(b"X" + struct.pack("<I", len(text)) + text)
    return b"".join([*parts, data[done:]])


def _add(archive: zipfile.ZipFile, stream: io.BytesIO, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.external_attr = 0
    start = stream.tell() + _HEADER + len(name.encode()) + 4
    padding = -start % _ALIGNMENT
    entry.extra = struct.pack("<HH", 0x4246, padding) + b"Z" * padding
    archive.writestr(entry, data, zipfile.ZIP_STORED)
