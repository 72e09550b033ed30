"""Random streams with names, so that no two uses of one seed ever draw the same numbers."""

from __future__ import annotations

import hashlib

import numpy as np

from edgeprivacy.errors import UsageError


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """A generator that depends on the seed and the names alone.

    Streams of other names are independent of it, so that adding one (another shadow) changes none of them.

    Args:
        seed: Non-negative integer.
        names: What the numbers are for, such as ("shadows", 3).

    Raises:
        UsageError: The seed is negative.
    """
    if seed < 0:
        raise UsageError("the seed must not be negative", got=seed)
    digest = hashlib.sha256("\0".join(map(str, names)).encode()).digest()
    words = np.frombuffer(digest, dtype="<u4").tolist()
    return np.random.default_rng(np.random.SeedSequence([seed, *words]))
