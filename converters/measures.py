"""Numbers that every container's facts are made of. Framework-free."""

from __future__ import annotations

import gzip
import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.converters.facts import WeightFacts

NOTABLE = 1024
"""Constants that are no weights are mentioned from this number of elements on."""


def file_measures(content: bytes) -> dict[str, Any]:
    """`sha256`, `size_bytes` and `gzip_bytes` (gzip's default level 6) of a file's content."""
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content),
        "gzip_bytes": len(gzip.compress(content, compresslevel=6, mtime=0)),
    }


def weight_facts(
    operator: str, name: str, values: NDArray[Any], dtype: str, axis: int, zero: Any = 0, scales: int = 0
) -> WeightFacts:
    """Facts of one layer's weights.

    Args:
        values: As stored, at least one element; `axis` is the axis of the output channels.
        zero: What stands for zero: a number, or an array that broadcasts to `values`.
        scales: Number of quantization scales.
    """
    channels = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
    return WeightFacts(
        operator=operator,
        name=name,
        shape=tuple(int(size) for size in values.shape),
        dtype=dtype,
        channel_axis=axis,
        size=values.size,
        sparsity=float((values == zero).mean()),
        distinct=len(np.unique(values)),
        distinct_per_channel=_most_distinct(channels),
        scales=scales,
    )


def _most_distinct(channels: NDArray[Any]) -> int:
    """Largest number of distinct values in a row of [channels, values]."""
    ordered = np.sort(channels, axis=1)
    return int(1 + (ordered[:, 1:] != ordered[:, :-1]).sum(axis=1).max())
