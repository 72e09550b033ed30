"""One seed reaches every random choice: a generator for each named purpose, independent of all others."""

from __future__ import annotations

import hashlib

import numpy as np


def derive_seed(seed: int, *purpose: object) -> int:
    """A 63-bit seed for one purpose; the same for the same words on every machine and version."""
    text = "/".join([str(seed), *map(str, purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *purpose: object) -> np.random.Generator:
    """A random generator for one purpose, e.g. generator(0, "split", "target")."""
    return np.random.default_rng(derive_seed(seed, *purpose))
