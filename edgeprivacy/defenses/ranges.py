"""Ranges of the defenses' settings: what is allowed, and what is worth a search."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


def check_number(
    name: str, value: object, low: float, high: float = math.inf, *, open_low: bool = False
) -> None:
    """Check a setting.

    Args:
        name: As the user writes it.
        low: Smallest allowed value; with `open_low` what must be exceeded.
        high: Largest allowed value.

    Raises:
        ValueError: Not a finite number of that range; the message names both.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not (low <= float(value) <= high) or (open_low and float(value) == low):  # type: ignore[arg-type]
        above = f"more than {low:g}" if open_low else f"{low:g} or more"
        if high < math.inf:
            above = f"above {low:g} and at most {high:g}" if open_low else f"between {low:g} and {high:g}"
        raise ValueError(f"{name} must be {above}, got {value!r}")


def check_count(name: str, value: object, low: int = 1) -> None:
    """Check a whole number; raises ValueError for what is none, or below `low`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise ValueError(f"{name} must be a whole number, at least {low}, got {value!r}")


@dataclass(frozen=True)
class Span:
    """Values that a search may try.

    Attributes:
        low, high: Both included.
        log: Whether ratios count, not differences.
        whole: Whether only whole numbers.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False


Searchable = Span | tuple[Any, ...]
"""A range, or the values themselves."""
