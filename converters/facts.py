"""What a model file holds, read back from the file itself. Framework-free."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from edgeprivacy.confidences import OutputGrid


@dataclass(frozen=True)
class TensorFacts:
    """An input or output of the file. `scale` and `zero_point` are None for float tensors; `shape` has -1 for
    a dynamic dimension (the batch)."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None


@dataclass(frozen=True)
class WeightFacts:
    """The weights of one layer, in the order of execution.

    Attributes:
        operator: The operator that uses them ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D"; in a
            .pte "xnnpack:FullyConnected" or "aten::linear.out"; in a .ptl "aten::linear").
        shape: As stored; `channel_axis` is the axis of the output channels.
        dtype: As stored ("float32", "float16", "int8", ...).
        sparsity: Share of exact zeros (of quantized zeros: the stored integer equals the zero point).
        distinct: Number of distinct values in the whole tensor.
        distinct_per_channel: Largest number of distinct values in one output channel.
        scales: Number of quantization scales (0 for float, 1 per tensor, else per channel).
    """

    operator: str
    name: str
    shape: tuple[int, ...]
    dtype: str
    channel_axis: int
    size: int
    sparsity: float
    distinct: int
    distinct_per_channel: int
    scales: int


@dataclass(frozen=True)
class DelegateFacts:
    """A part of the program that a hardware backend runs as a whole (.pte files).

    Attributes:
        id: Name of the backend ("XnnpackBackend").
        payload_bytes: Bytes of its own program, and of the constants that it names.
        operators: Operators inside, by name; empty where the payload is of a kind that cannot be read.
    """

    id: str
    payload_bytes: int
    operators: dict[str, int]


@dataclass(frozen=True)
class ArtifactFacts:
    """Facts of one model file; everything here was read from its bytes.

    `output_grid` is None for a float output. `operators` counts operators by name; those inside a delegate
    have its name before a colon ("xnnpack:FullyConnected"). `outside` names the operators of a program with
    delegates that no delegate runs. `batch_capacity` is the largest batch that the file takes, None where
    nothing limits it.
    """

    container: str
    sha256: str
    size_bytes: int
    gzip_bytes: int
    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    operators: dict[str, int]
    weights: tuple[WeightFacts, ...]
    output_grid: OutputGrid | None
    notes: tuple[str, ...] = field(default=())
    delegates: tuple[DelegateFacts, ...] = field(default=())
    outside: tuple[str, ...] = field(default=())
    batch_capacity: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready content."""
        return asdict(self)


@dataclass(frozen=True)
class Request:
    """What was asked of a conversion, to be found again in the file.

    Attributes:
        format: One of the backend's formats.
        sparsity: For each weighted layer, in order of execution, the least share of zeros asked for, or None.
        clusters: For each weighted layer the largest number of distinct values per output channel, or None.
        bits: For each weighted layer how many bits an integer file may take for a weight, below 8 where they
            lie on a grid of 2^bits - 1 values an output channel, or None.
    """

    format: str
    sparsity: tuple[float | None, ...] = ()
    clusters: tuple[int | None, ...] = ()
    bits: tuple[int | None, ...] = ()
