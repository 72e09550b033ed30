"""Dropout as a defense: units rest at random in every step, more of them than the network was built for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from edgeprivacy.defenses.base import TrainingDefense, defenses
from edgeprivacy.defenses.ranges import Searchable, Span, check_number


@defenses.register("dropout")
@dataclass(frozen=True)
class Dropout(TrainingDefense):
    """Plain training of all rows in which the network's dropout layers drop `rate` of what goes through them,
    in the place of their own rate. Where layers stand is the network's matter: one without any, or whose own
    rate is 0, is refused.

    Attributes:
        rate: Share of the units that rest in a step; ML-Leaks: 0.5.
    """

    name: ClassVar[str] = "dropout"
    title: ClassVar[str] = "dropout: a larger share of the units rests in every step"
    paper: ClassVar[str] = "Srivastava et al., JMLR 2014; as a defense Salem et al., ML-Leaks, NDSS 2019"
    search: ClassVar[Mapping[str, Searchable]] = {"rate": Span(0.1, 0.8)}

    rate: float = 0.5

    def __post_init__(self) -> None:
        check_number("rate", self.rate, 0, 0.95, open_low=True)

    @property
    def dropout(self) -> float | None:
        """The rate."""
        return self.rate

    @property
    def needs(self) -> str:
        """In a few words, for listings."""
        return "a network with dropout layers"
