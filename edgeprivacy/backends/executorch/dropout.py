"""Dropout by 16 random bits a value, drawn many at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

from edgeprivacy.backends.executorch.frameworks import torch

_LEVELS = 2**16
_DRAWN_AT_ONCE = 2**20


class RandomBits:
    """A stream of random int16, uniform over all values.

    Args:
        seed: What the stream begins from.
    """

    def __init__(self, seed: int) -> None:
        self._source = np.random.SFC64(seed)
        self._drawn = np.empty(0, dtype=np.int16)
        self._used = 0

    def factors(self, shape: torch.Size, dropped: int) -> torch.Tensor:
        """float32 of this shape: 0 for `dropped` of 65536 values, and else what keeps the mean.

        By numpy: torch compares integers, and turns truth into numbers, ten times slower.
        """
        count = shape.numel()
        if self._used + count > len(self._drawn):
            words = self._source.random_raw(max(_DRAWN_AT_ONCE, count + 3) // 4)
            self._drawn, self._used = words.view(np.int16), 0
        bits = self._drawn[self._used : self._used + count]
        self._used += count
        kept = bits >= np.int16(dropped - _LEVELS // 2)
        return torch.from_numpy(np.multiply(kept, np.float32(_LEVELS / (_LEVELS - dropped)))).view(shape)


class ShortDropout(torch.nn.Dropout):
    """`torch.nn.Dropout` that draws from the stream in use, and torch's own where there is none.

    torch draws a float a value from one serial generator: a fifth of the time that a step of a small network
    takes. A rate becomes the nearest multiple of 1/65536, and what is kept is scaled by that.
    """

    _stream: RandomBits | None = None
    _rate: float | None = None

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """See `torch.nn.Dropout`."""
        stream, rate = ShortDropout._stream, rate_of(self.p)
        dropped = round(rate * _LEVELS)
        if not self.training or stream is None or not 0 < dropped < _LEVELS:
            return torch.nn.functional.dropout(input, rate, self.training)
        return input * stream.factors(input.shape, dropped).to(input.dtype)

    @staticmethod
    @contextlib.contextmanager
    def drawing_from(stream: RandomBits | None, rate: float | None = None) -> Iterator[None]:
        """Inside the block all layers of this class draw from this stream, and those that drop anything do so
        at this rate; None leaves each its own."""
        before = ShortDropout._stream, ShortDropout._rate
        ShortDropout._stream, ShortDropout._rate = stream, rate
        try:
            yield
        finally:
            ShortDropout._stream, ShortDropout._rate = before


def rate_of(own: float) -> float:
    """The rate at which a layer works, inside `ShortDropout.drawing_from` or outside of it."""
    asked = ShortDropout._rate
    return own if not own or asked is None else asked


def use_short_random_numbers(model: torch.nn.Module) -> None:
    """Replace the Dropout layers of a model by ones that can draw from a stream and work at another rate.
    Their subclasses, and those that drop whole channels, stay as they are."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is torch.nn.Dropout:
                replacement = ShortDropout(child.p)
                replacement.train(child.training)
                setattr(parent, name, replacement)


__all__ = ["RandomBits", "ShortDropout", "rate_of", "use_short_random_numbers"]
