"""Seeds by purpose: the same everywhere, and independent of each other."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprivacy.seeding import derive_seed, generator


@pytest.mark.parametrize(
    ("seed", "purpose", "digest"),
    [
        # printf '0/split/target' | sha256sum, first 16 digits
        (0, ("split", "target"), "100ae30419863f41"),
        (7, ("release", 3), "73ce6f44b91ffdd0"),
        (0, (), "5feceb66ffc86f38"),
    ],
)
def test_a_seed_is_the_upper_63_bits_of_a_sha256(seed: int, purpose: tuple[object, ...], digest: str) -> None:
    assert derive_seed(seed, *purpose) == int(digest, 16) // 2


def test_seeds_fit_every_library_and_none_repeats() -> None:
    seeds = [derive_seed(seed, "release", index) for seed in range(20) for index in range(50)]
    assert len(set(seeds)) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_generators_of_a_purpose_agree_and_of_two_purposes_do_not() -> None:
    first, again, other = (generator(3, *words).random(1000) for words in (("a",), ("a",), ("b",)))
    np.testing.assert_array_equal(first, again)
    assert abs(np.corrcoef(first, other)[0, 1]) < 0.15
