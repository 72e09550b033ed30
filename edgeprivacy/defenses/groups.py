"""Near-duplicates among training rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.defenses.ranges import check_number

AUTO, OFF = "auto", "off"
JACCARD, COSINE = 0.8, 0.95
_BLOCK = 1024
_TOLERANCE = 1e-6
"""Equal rows have a similarity of 1 but for rounding."""
# Chains of similar rows that would swallow more than this share of the rows are no near-duplicates.
LARGEST_SHARE = 0.05


@dataclass(frozen=True)
class Groups:
    """Rows by what they resemble.

    Attributes:
        of_row: int [rows], from 0: rows that a chain of near-duplicates connects have the same number.
        threshold: Similarity from which on two rows are near-duplicates; None where each row was left alone.
        asked: The threshold to begin with.
        measure: What similarity is.
    """

    of_row: NDArray[np.intp]
    threshold: float | None = None
    asked: float | None = None
    measure: str = ""

    @property
    def sizes(self) -> NDArray[np.intp]:
        """Rows of each group of two or more, the largest first."""
        counts = np.sort(np.bincount(self.of_row))[::-1]
        return counts[counts > 1]

    def told(self) -> str:
        """For the report: what was found, and from which similarity on."""
        if self.threshold is None:
            return "near-duplicates were not looked for: groups is off"
        sizes, rows = self.sizes, len(self.of_row)
        since = f"{self.measure} of {self.threshold:.3g} or more"
        groups = "one group" if len(sizes) == 1 else f"{len(sizes)} groups"
        found = f"{int(sizes.sum())} of {rows} rows stand in {groups}" if len(sizes) else "none"
        text = f"near-duplicates ({since}) among the target's training rows: {found}"
        if self.threshold != self.asked:
            text += (
                f"; the threshold of {self.asked:.3g} was raised, as it joined more than "
                f"{100 * LARGEST_SHARE:.0f} % of the rows to one group"
            )
        elif len(sizes) and sizes[0] > max(2, LARGEST_SHARE * rows):
            text += f", the largest of {sizes[0]} rows: chains may join what is no duplicate"
        return text


def check_groups(value: object) -> None:
    """Check a setting; raises ValueError for what is neither "auto", "off" nor a similarity."""
    if value not in (AUTO, OFF):
        if isinstance(value, str):
            raise ValueError(f"groups must be auto, off or a similarity, got {value!r}")
        check_number("groups", value, 0, 1, open_low=True)


def near_duplicates(x: NDArray[np.generic], similarity: float | str = AUTO) -> Groups:
    """The groups of rows that chains of near-duplicates connect.

    Args:
        x: Inputs [rows, ...]. Where all are 0 or 1 similarity is Jaccard's, the share of common ones among
            all ones; elsewhere the cosine of the rows less their mean.
        similarity: From where on two rows are near-duplicates; "auto" is 0.8 or 0.95; "off" puts each row in
            a group of its own.

    Returns:
        The groups. Where chains would join more than a twentieth of all rows, the threshold of "auto" is
        raised in steps of a fifth of what is missing to 1 until they do not; one that was given stands.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows = len(x)
    if similarity == OFF or rows < 2:
        return Groups(np.arange(rows))
    flat = np.asarray(x).reshape(rows, -1)
    binary = bool(np.isin(flat, (0, 1)).all())
    asked = float(similarity) if similarity != AUTO else JACCARD if binary else COSINE
    threshold = asked
    first, second, alike = _similar_pairs(flat.astype(np.float32), binary, threshold)
    while True:
        close = alike >= threshold - _TOLERANCE
        edges = coo_array((np.ones(int(close.sum())), (first[close], second[close])), shape=(rows, rows))
        _, group = connected_components(edges, directed=False)
        few = np.bincount(group).max() <= max(2, LARGEST_SHARE * rows)
        if few or similarity != AUTO or threshold >= 1 - _TOLERANCE:
            measure = "Jaccard similarity" if binary else "cosine"
            return Groups(np.asarray(group, dtype=np.intp), threshold, asked, measure)
        threshold += 0.2 * (1 - threshold)


def _similar_pairs(
    flat: NDArray[np.float32], binary: bool, threshold: float
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """First and second rows of all pairs at least this similar, and how similar they are."""
    if not binary:
        flat = flat - flat.mean(axis=0)
        flat = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    ones = flat.sum(axis=1)
    found: list[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]] = []
    for start in range(0, len(flat), _BLOCK):
        part = slice(start, start + _BLOCK)
        alike = flat[part] @ flat[start:].T
        if binary:
            either = ones[part, None] + ones[None, start:] - alike
            # Rows without a one are alike.
            alike = np.where(either == 0, 1, alike / np.maximum(either, 1))
        first, second = np.nonzero(alike >= threshold - _TOLERANCE)
        upper = second > first
        first, second = first[upper], second[upper]
        found.append((first + start, second + start, alike[first, second]))
    firsts, seconds, values = zip(*found, strict=True)
    return np.concatenate(firsts), np.concatenate(seconds), np.concatenate(values)
