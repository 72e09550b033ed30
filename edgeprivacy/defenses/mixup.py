"""Mixup: the network sees blends of two rows and their labels, never a row itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.defenses.array_ops import ArrayOps, Batch
from edgeprivacy.defenses.base import TrainingDefense, defenses
from edgeprivacy.defenses.ranges import Searchable, Span, check_number


@defenses.register("mixup")
@dataclass(frozen=True)
class Mixup(TrainingDefense):
    """share * cross-entropy to the own label + (1 - share) * cross-entropy to the partner's, of inputs that
    are share * the row + (1 - share) * its partner: another row of the batch, drawn by a permutation. The
    share is drawn for each batch from Beta(beta, beta). The further term of some comparisons, a distance
    between the answers on members and on validation rows (MMD), is not built.

    Attributes:
        beta: 1 draws shares evenly from 0 to 1; smaller ones lie near the ends.
    """

    name: ClassVar[str] = "mixup"
    title: ClassVar[str] = "mixup: trained on blends of two rows and their labels"
    paper: ClassVar[str] = "Zhang et al., ICLR 2018; as a defense in MLHospital's comparison"
    search: ClassVar[Mapping[str, Searchable]] = {"beta": Span(0.1, 8.0, log=True)}

    beta: float = 1.0

    def __post_init__(self) -> None:
        check_number("beta", self.beta, 0, open_low=True)

    @property
    def mixing(self) -> float:
        """The parameter of the shares' distribution."""
        return self.beta

    def loss(self, ops: ArrayOps, batch: Batch) -> Any:
        """Cross-entropy to both labels, by their shares."""
        own = ops.mean(ops.cross_entropy(batch.logits, batch.labels))
        if batch.partners is None:
            return own
        return batch.share * own + (1.0 - batch.share) * ops.mean(
            ops.cross_entropy(batch.logits, batch.partners)
        )


def draw_mix(
    order: NDArray[Any], batch: int, beta: float, rng: np.random.Generator
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """For an epoch's order of rows the partner of each, from its own batch, and the share of each batch.

    Returns:
        int32 [rows] and float32 [batches].
    """
    pieces = [order[start : start + batch] for start in range(0, len(order), batch)]
    partners = [rng.permutation(piece) for piece in pieces]
    shares = rng.beta(beta, beta, len(pieces)).astype(np.float32)
    return np.concatenate(partners).astype(np.int32) if pieces else np.empty(0, np.int32), shares
