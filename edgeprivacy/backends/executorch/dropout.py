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
    _at_work = True

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """See `torch.nn.Dropout`."""
        stream, dropped = ShortDropout._stream, round(self.p * _LEVELS)
        if self.training and not ShortDropout._at_work:
            return input
        if not self.training or stream is None or not 0 < dropped < _LEVELS:
            return super().forward(input)
        return input * stream.factors(input.shape, dropped).to(input.dtype)

    @staticmethod
    @contextlib.contextmanager
    def drawing_from(stream: RandomBits | None, at_work: bool = True) -> Iterator[None]:
        """Inside the block all layers of this class draw from this stream, or drop nothing at all."""
        before = ShortDropout._stream, ShortDropout._at_work
        ShortDropout._stream, ShortDropout._at_work = stream, at_work
        try:
            yield
        finally:
            ShortDropout._stream, ShortDropout._at_work = before


def use_short_random_numbers(model: torch.nn.Module) -> None:
    """Replace the Dropout layers of a model by ones that can draw from a stream. Their subclasses, and what
    works in place, stay as they are."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is torch.nn.Dropout and not child.inplace:
                replacement = ShortDropout(child.p)
                replacement.train(child.training)
                setattr(parent, name, replacement)


__all__ = ["RandomBits", "ShortDropout", "use_short_random_numbers"]
