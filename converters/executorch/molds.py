"""Programs of one network with other weights: lowered twice, then cast.

Lowering a small network takes a second or more, far longer than training an epoch of it, and is the same work
for every release and every shadow. What differs in the file is: the constants, each in a segment of its own
under the SHA-256 of its bytes, and the scale and zero point of each activation, in XNNPACK's tables.

The first lowering of a network teaches where each of its tensors lies. The second is foretold and compared:
only where every byte came out as foretold are the next ones cast. Where anything in a file is not explained
by the network's own tensors (a BatchNorm folded into its convolution), nothing is ever cast. A cast file is
read back, checked and run like any other.
"""

from __future__ import annotations

import contextlib
import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeprivacy.converters.executorch.container import PteFile
from edgeprivacy.converters.executorch.flatbuffer import Buffer, Damaged, Table
from edgeprivacy.converters.executorch.xnnpack import PER_TENSOR
from edgeprivacy.errors import ArtifactError

_PREFIXES = ("", "scale_")
_SCALAR_BYTES = 8
_ADDED = ("quantize_per_tensor", "dequantize_per_tensor")


@dataclass(frozen=True)
class Ingredients:
    """All numbers of a network that may stand in its file.

    Attributes:
        form: What must be equal for two networks to share a mold.
        tensors: Bytes of each tensor, in each layout and derivation that the lowering knows.
        grids: Scale and zero point of each quantized activation, in the order of the graph.
    """

    form: tuple[Any, ...]
    tensors: tuple[bytes, ...]
    grids: tuple[tuple[float, int], ...]

    @property
    def key(self) -> tuple[Any, ...]:
        """Form, which numbers are equal to one another, and which zero points are zero: those are left out of
        the file."""
        zeros = tuple(zero == 0 for _, zero in self.grids)
        return self.form, _pattern(self.tensors), _pattern(self.grids), zeros


def ingredients(module: Any, *form: Any) -> Ingredients:
    """What a module, or the graph that quantization made of one, puts into its file.

    Args:
        form: What else decides about the file (input shape, delegate).
    """
    from torch.fx import GraphModule

    if not isinstance(module, GraphModule):
        named = [*module.named_parameters(), *module.named_buffers()]
        return Ingredients(
            (*form, *((name, tuple(tensor.shape), str(tensor.dtype)) for name, tensor in named)),
            tuple(layout for _, tensor in named for layout in _layouts(tensor.detach())),
            (),
        )
    nodes, tensors, grids = [], [], []
    for node in module.graph.nodes:
        arguments = node.args
        if node.op == "call_function" and any(name in str(node.target) for name in _ADDED):
            with contextlib.suppress(TypeError, ValueError):  # a tensor in their place: it is an ingredient
                grids.append((float(np.float32(arguments[1])), int(arguments[2])))
                arguments = (arguments[0], *arguments[3:])
        if node.op == "get_attr":
            value = _attribute(module, node.target)
            tensors += _layouts(value)
            arguments = (tuple(value.shape), str(value.dtype))
        tensors += _quantized_bias(module, node)
        nodes.append((node.op, node.name, str(node.target), str(arguments), str(dict(node.kwargs))))
    return Ingredients((*form, *nodes), tuple(tensors), tuple(grids))


class Mold:
    """A lowered program, and where the ingredients lie in it.

    Raises:
        ArtifactError: Something in it is not explained by the ingredients.
    """

    def __init__(self, content: bytes, made_of: Ingredients) -> None:
        self._content = content
        file = PteFile.from_bytes(content, Path("mold"))
        places = {data: position for position, data in reversed(list(enumerate(made_of.tensors)))}
        names = {index: key for key, index in file.named.items()}
        payloads = [delegate.payload for delegate in file.delegates]
        self._constants: list[tuple[int, int, bytes, int | None]] = []
        self._grids: list[tuple[int, int, int]] = []
        for index, (segment, start) in enumerate(zip(file.segments, file.segment_starts, strict=True)):
            if index not in names and any(segment == payload for payload in payloads):
                self._grids += _find_grids(made_of, segment, start)
                continue
            data = bytes(segment)
            digest = hashlib.sha256(data).hexdigest()
            if index in names and names[index] not in [prefix + digest for prefix in _PREFIXES]:
                raise _unexplained(f"data under the name {names[index][:80]}")
            # Scalars of the network's own code (a factor of its input) are in no tensor of it.
            if data not in places and len(data) > _SCALAR_BYTES:
                raise _unexplained(f"a constant of {len(data)} bytes")
            self._constants.append((start, len(data), digest.encode(), places.get(data)))
        explained = {name for _, _, name, position in self._constants if position is not None}
        self._named_at = [(name, place) for name in explained for place in _places(content, name)]

    def cast(self, made_of: Ingredients) -> bytes:
        """The program with other ingredients of the same key."""
        content = bytearray(self._content)
        names: dict[bytes, bytes] = {}
        for start, size, digest, position in self._constants:
            if position is not None:
                data = made_of.tensors[position]
                content[start : start + size] = data
                names[digest] = hashlib.sha256(data).hexdigest().encode()
        for scale, zero, position in self._grids:
            struct.pack_into("<f", content, scale, made_of.grids[position][0])
            if zero:
                struct.pack_into("<i", content, zero, made_of.grids[position][1])
        for name, place in self._named_at:
            content[place : place + len(name)] = names[name]
        return bytes(content)


class Molds:
    """The molds of one network's files, in one process. One for each session: two networks may have the same
    tensors and compute different things."""

    def __init__(self) -> None:
        self._learned: dict[Any, Mold | None] = {}
        # What the first program of each kind was made of, until a second one has proved the mold.
        self._unproved: dict[Any, Ingredients] = {}

    def cast(self, made_of: Ingredients) -> bytes | None:
        """The program, or None where it has to be lowered."""
        key = made_of.key
        mold = self._learned.get(key)
        return mold.cast(made_of) if mold is not None and key not in self._unproved else None

    def learn(self, content: bytes, made_of: Ingredients) -> None:
        """Learn from a program that was lowered."""
        key = made_of.key
        if key not in self._learned:
            try:
                self._learned[key] = Mold(content, made_of)
                self._unproved[key] = made_of
            except (ArtifactError, Damaged, struct.error):
                self._learned[key] = None
            return
        mold = self._learned[key]
        if mold is None or self._unproved.get(key, made_of) == made_of:
            return
        del self._unproved[key]
        if mold.cast(made_of) != content:
            self._learned[key] = None


def _find_grids(made_of: Ingredients, payload: memoryview, start: int) -> Iterator[tuple[int, int, int]]:
    values = [_packed(grid) for grid in made_of.grids]
    for scale, zero in _grids(payload):
        found = _packed_at(payload, scale, zero)
        if found not in values:
            raise _unexplained("the grid of an activation")
        yield start + scale, start + zero if zero else 0, values.index(found)


def _layouts(tensor: Any) -> list[bytes]:
    """Bytes as XNNPACK's file may hold them: as they are, and filters with the channels last."""
    kinds = [tensor]
    if tensor.dim() == 4:
        kinds += [tensor.permute(0, 2, 3, 1), tensor.permute(1, 2, 3, 0)]
    layouts = [kind.cpu().contiguous().numpy().tobytes() for kind in kinds]
    if tensor.dim() == 2 and str(tensor.dtype) == "torch.int8":
        values = tensor.cpu().numpy()
        layouts.append(_nibbles(values) if np.abs(values).max(initial=0) <= 7 else b"")
    return layouts


def _nibbles(values: Any) -> bytes:
    """Rows of 4-bit numbers as XNNPACK packs them: 8 stands for zero, the first of two in the low bits."""
    few = np.pad(values, ((0, 0), (0, values.shape[1] % 2))).astype(np.int16) + 8
    return bytes((few[:, ::2] | few[:, 1::2] << 4).astype(np.uint8).tobytes())


def _quantized_bias(module: Any, node: Any) -> list[bytes]:
    """A linear layer's or convolution's bias on the grid of input and weights, and that grid: the lowering
    makes both."""
    import torch

    if node.op != "call_function" or len(node.args) < 3 or getattr(node.args[2], "op", "") != "get_attr":
        return []
    source, weight = node.args[0], node.args[1]
    called = [str(getattr(argument, "target", "")) for argument in (source, weight)]
    if "dequantize_per_tensor" not in called[0] or "dequantize_per_channel" not in called[1]:
        return []
    if not isinstance(source.args[1], float):
        return []
    scales, zeros = (_attribute(module, weight.args[number].target) for number in (1, 2))
    bias = _attribute(module, node.args[2].target)
    grid = scales * source.args[1]
    limits = torch.iinfo(torch.int32)
    quantized = torch.ops.quantized_decomposed.quantize_per_channel.default(
        bias.detach(), grid, zeros * 0, 0, limits.min, limits.max, torch.int32
    )
    return [*_layouts(quantized), *_layouts(grid)]


def _attribute(module: Any, path: str) -> Any:
    for name in path.split("."):
        module = getattr(module, name)
    return module.detach()


def _grids(payload: memoryview) -> Iterator[tuple[int, int]]:
    """Where each quantized tensor's scale and zero point stand in XNNPACK's payload; 0 for one left out."""
    _, at, size, _, _ = struct.unpack_from("<HIIIQ", payload, 8)
    for union in Buffer(payload[at : at + size]).root.tables(2):
        outer = union.table(1)
        if union.integer(0, "<B") != 2 or outer is None or outer.integer(1, "<B") != PER_TENSOR:
            continue
        parameters: Table | None = outer.table(2)
        if parameters is not None:
            scale, zero = parameters.place(0), parameters.place(1)
            if not scale:
                raise Damaged("a grid without a scale")
            yield at + scale, at + zero if zero else 0


def _places(content: bytes, name: bytes) -> Iterator[int]:
    place = content.find(name)
    while place >= 0:
        yield place
        place = content.find(name, place + 1)


def _packed(grid: tuple[float, int]) -> bytes:
    return struct.pack("<fi", *grid)


def _packed_at(payload: memoryview, scale: int, zero: int) -> bytes:
    return bytes(payload[scale : scale + 4]) + (bytes(payload[zero : zero + 4]) if zero else bytes(4))


def _pattern(values: tuple[Any, ...]) -> tuple[int, ...]:
    """For each value the place of the first that equals it."""
    first: dict[Any, int] = {}
    return tuple(first.setdefault(value, place) for place, value in enumerate(values))


def _unexplained(what: str) -> ArtifactError:
    return ArtifactError("the program cannot be cast", got=what)


__all__ = ["Ingredients", "Mold", "Molds", "ingredients"]
