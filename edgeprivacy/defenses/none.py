"""No defense: the control that every defense is measured against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgeprivacy.defenses.base import Defense, defenses


@defenses.register("none")
@dataclass(frozen=True)
class NoDefense(Defense):
    """The same schedule, all rows in every epoch, plain cross-entropy."""

    name: ClassVar[str] = "none"
    title: ClassVar[str] = "no defense"
    paper: ClassVar[str] = "-"
