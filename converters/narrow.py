"""Weights of few bits out of a quantizer's eight: the same grid, in smaller integers. Framework-free.

A quantizer spreads every output channel over the whole of int8: weights that were trained as multiples of a
step, of which the farthest is m steps from zero, become round(127 k / m). Where it bears no scale as small as
the weights are, they reach less far, and the farthest is off its multiple by up to half an integer. Here k is
found again, and the step that stands for it.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.compression.grid import largest_multiple
from edgeprivacy.errors import ConversionError

_OFF = (0.0, *(sign * share / 8 for share in range(1, 5) for sign in (-1, 1)))
"""How far the farthest integer may be from where its multiple lies, the likeliest first."""


def narrowed(stored: NDArray[np.int8], bits: int, name: str) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """Multiples of a step for integers that a quantizer made of weights on a grid.

    Args:
        stored: int8 [channels, ...], zero stands for zero.
        bits: 2 to 7, of the grid.
        name: Of the layer, for messages.

    Returns:
        Integers of the same shape, at most 2^(bits - 1) - 1 from zero, and for each channel what its scale
        grows by, float64 [channels]. Times its scale each is off the stored one by half a step at most.

    Raises:
        ConversionError: A channel's integers are those of no such grid.
    """
    channels, most = stored.reshape(len(stored), -1).astype(np.float64), largest_multiple(bits)
    ends = np.abs(channels).max(axis=1)
    found, factors = np.zeros_like(channels), np.ones(len(channels))
    open_ = ends > 0
    # The coarsest grid first: where two explain a channel they mean the same weights.
    for multiple, off in product(range(1, most + 1), _OFF):
        steps = np.where(open_, (ends + off) / multiple, 1.0)[:, None]
        near = np.round(channels / steps)
        error = np.abs(near * steps - channels).max(axis=1, initial=0)
        fits = open_ & (error <= 0.5 + 1e-9) & (np.abs(near).max(axis=1, initial=0) <= most)
        fits &= ((near == 0) == (channels == 0)).all(axis=1)
        found[fits], factors[fits] = near[fits], steps[fits, 0]
        open_ &= ~fits
    if open_.any():
        raise ConversionError(
            f"the weights of {name} are not on a grid of {bits} bits",
            got=f"output channel {int(open_.argmax())}, {len(np.unique(channels[open_.argmax()]))} different "
            "values",
        )
    return found.astype(np.int8).reshape(stored.shape), factors


def pack(values: NDArray[np.int8], bits: int) -> NDArray[np.uint8]:
    """Integers of 2 or 4 bits several to a byte, the first in the lowest bits; uint8 [bytes], the last one
    filled up with zeros."""
    per_byte = 8 // bits
    flat = values.ravel().view(np.uint8) & np.uint8((1 << bits) - 1)
    filled = np.zeros(-(-flat.size // per_byte) * per_byte, np.uint8)
    filled[: flat.size] = flat
    shifted = filled.reshape(-1, per_byte) << (np.arange(per_byte, dtype=np.uint8) * np.uint8(bits))
    return np.asarray(np.bitwise_or.reduce(shifted, axis=1), np.uint8)
