"""Weights on a grid of few bits: each a whole multiple of its output channel's step. Written once for all
backends; what is trained under the grid is in theirs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FULL = 8
"""Bits that the weights of an integer file have anyway."""
_CLIPS = np.linspace(0.2, 1.0, 33)
"""Shares of a channel's largest weight that its grid may end at."""


@dataclass(frozen=True)
class LowBits:
    """A last phase of training, under a grid.

    Attributes:
        inner, outer: Bits of a weight: of all layers, and of the first and the last.
        epochs: At most.
    """

    inner: int
    outer: int
    epochs: int

    def of_layers(self, count: int) -> tuple[int, ...]:
        """Bits of each of so many layers, in the order in which they run."""
        return tuple(self.outer if k in (0, count - 1) else self.inner for k in range(count))


def grid_told(low_bits: LowBits) -> str:
    """What a reader of a report must know of files with such weights."""
    parts = (("in the inner layers", low_bits.inner), ("in the first and the last", low_bits.outer))
    grids = ", ".join(
        f"{bits} bits {where} (at most {2**bits - 1} values an output channel)"
        for where, bits in parts
        if bits < FULL
    )
    return (
        f"weights lie on a grid of {grids}. An int8 file packs 4 bits and fewer where its format has kernels "
        "for that, and holds others in 8: `edgeprivacy inspect` reads back what each layer takes."
    )


def largest_multiple(bits: int) -> int:
    """How often the step goes into the grid's end: 7 for 4 bits, 1 for 2. As many lie below zero, so that the
    grid has 2^bits - 1 values, zero among them."""
    return int(2 ** (bits - 1) - 1)


def grid_steps(kernel: NDArray[Any], bits: int, channel_axis: int) -> NDArray[np.float32]:
    """The step of each output channel that rounds its weights with the smallest squared error.

    Few bits cut the largest weights off: a grid that reaches them has its values where few weights are.

    Args:
        kernel: Weights of a layer, finite.
        bits: 2 to 8.
        channel_axis: Axis of the output channels.

    Returns:
        Of the kernel's number of axes, 1 along all but the channels; 1 where a channel is all zeros.
    """
    values = np.moveaxis(np.asarray(kernel, dtype=np.float64), channel_axis, 0)
    channels = values.reshape(len(values), -1)
    ends = np.abs(channels).max(axis=1, keepdims=True)
    levels = largest_multiple(bits)
    steps = np.ones((len(channels), 1))
    least = np.full((len(channels), 1), np.inf)
    for clip in _CLIPS:
        step = np.where(ends > 0, clip * ends / levels, 1.0)
        error = ((on_grid(channels, step, levels) - channels) ** 2).sum(axis=1, keepdims=True)
        steps, least = np.where(error < least, step, steps), np.minimum(error, least)
    shape = [1] * np.ndim(kernel)
    shape[channel_axis] = -1
    return steps.reshape(shape).astype(np.float32)


def on_grid(kernel: NDArray[Any], steps: NDArray[Any], levels: int) -> NDArray[Any]:
    """The nearest multiples of the steps, at most `levels` of them from zero; halves go to the even one."""
    rounded: NDArray[Any] = steps * np.clip(np.round(kernel / steps), -levels, levels)
    return rounded
