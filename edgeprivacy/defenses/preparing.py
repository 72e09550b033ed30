"""What a defense may have made of a release's own training rows before it trains on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from edgeprivacy.defenses.base import TrainingRows


class SubModels(Protocol):
    """Networks of the release's own form, trained for a preparation and then forgotten."""

    @property
    def inputs(self) -> NDArray[Any]:
        """All training rows [rows, ...], as the network takes them."""

    def rng(self, purpose: str) -> np.random.Generator:
        """Random numbers of this release for a purpose."""

    def answers(
        self, rows: NDArray[np.intp], purpose: str, number: int, epochs: int | None = None
    ) -> NDArray[np.float32]:
        """Train a fresh network on some rows alone and ask it about all.

        Args:
            rows: Positions into the training rows.
            purpose, number: Name the network; with the release's seed they decide its random numbers.
            epochs: Exactly so many, without validation; None for the recipe's training with its early stop.

        Returns:
            float32 [training rows, classes]: probabilities.
        """

    def tell(self, text: str) -> None:
        """Say in the report what was found among the rows; a clause, without the defense's name."""

    def original_answers(self) -> NDArray[np.float32]:
        """float32 [training rows, classes]: probabilities of the release's plain original."""


@dataclass(frozen=True)
class Preparation:
    """One array with an entry for each training row, made once a release and kept in the cache.

    Attributes:
        name: Folder in the cache, and the attribute of `TrainingRows` that holds the array.
        identity: Everything the array depends on beside the rows, the seed and the recipe's model and
            training. JSON values.
        make: The rows and the sub-models to the array.
        told: What it is and comes from, for listings.
        validates: Whether its sub-models stop by the validation rows.
        asks_original: Whether it asks the plain original.
        cost: What it costs, in a few words; "" for next to nothing.
    """

    name: str
    identity: Mapping[str, Any]
    make: Callable[[TrainingRows, SubModels], NDArray[Any]]
    told: str
    validates: bool = False
    asks_original: bool = False
    cost: str = ""
