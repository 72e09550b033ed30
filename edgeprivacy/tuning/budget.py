"""What a file may cost: accuracy against no defense, and bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgeprivacy.errors import UsageError
from edgeprivacy.tuning.points import Point

_UNITS = {"": 1, "B": 1, "KB": 1000, "MB": 1000**2, "KIB": 1024, "MIB": 1024**2}


@dataclass(frozen=True)
class Budget:
    """Limits; None limits nothing.

    Attributes:
        accuracy_loss: Points of accuracy that may be lost against no defense in the base recipe, in the same
            round.
        size: Bytes.
    """

    accuracy_loss: float | None = None
    size: int | None = None

    @classmethod
    def parse(cls, accuracy_loss: float | None, size: str | None) -> Budget:
        """From a recipe's words; UsageError where the size is none."""
        return cls(accuracy_loss, None if size is None else parse_size(size))

    def excess(self, point: Point, baseline: float) -> float:
        """By how much a point is over the budget, in shares of its limits; 0 within it.

        Args:
            baseline: Accuracy of no defense in the base recipe, 0 to 1.
        """
        over = 0.0
        if self.accuracy_loss is not None:
            over += self.too_much(lost(point, baseline)) / 100
        if self.size is not None:
            over += max(0.0, point.size_bytes / self.size - 1)
        return over

    def too_much(self, points: float) -> float:
        """By how many points of accuracy more is lost than may be; 0 for the very limit, however rounded."""
        over = 0.0 if self.accuracy_loss is None else points - self.accuracy_loss
        return over if over > 1e-9 else 0.0

    def told(self) -> str:
        """ "at most 2 points of accuracy, at most 61,440 bytes"."""
        parts = []
        if self.accuracy_loss is not None:
            parts.append(f"at most {self.accuracy_loss:g} points of accuracy lost")
        if self.size is not None:
            parts.append(f"at most {self.size:,} bytes")
        return ", ".join(parts) or "no budget"


def lost(point: Point, baseline: float) -> float:
    """Points of accuracy below no defense; negative where the point is better."""
    return 100 * (baseline - point.accuracy.value)


def parse_size(text: str) -> int:
    """ "60KiB", "1.5 MB", "40000" to bytes; UsageError for anything else."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    unit = None if found is None else _UNITS.get(found[2].upper())
    count = 0 if found is None or unit is None else int(float(found[1]) * unit)
    if count < 1:
        raise UsageError(f"'{text}' is no size", allowed="60KiB, 1.5MB, 40000")
    return count
