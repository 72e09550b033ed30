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
    share is drawn for each batch from Beta(beta, beta).

    `mmd` adds mmd * MMD^2 between the probabilities on the batch and those on as many reference rows, with a
    Gaussian kernel of width 1 and the latter held constant. In MLHospital, where the term comes from, it is
    a pass of its own, by classes, after epochs that overfit; here it is in every batch.

    It may leak more than no defense, and did where it was measured (docs/defenses.md).

    Attributes:
        beta: 1 draws shares evenly from 0 to 1; smaller ones lie near the ends.
        mmd: Weight of the distance, 0 for none; MLHospital: 3.
    """

    name: ClassVar[str] = "mixup"
    title: ClassVar[str] = "mixup: trained on blends of two rows and their labels"
    paper: ClassVar[str] = "Zhang et al., ICLR 2018; as a defense in MLHospital's comparison"
    search: ClassVar[Mapping[str, Searchable]] = {"beta": Span(0.1, 8.0, log=True)}

    beta: float = 1.0
    mmd: float = 0.0

    def __post_init__(self) -> None:
        check_number("beta", self.beta, 0, open_low=True)
        check_number("mmd", self.mmd, 0)

    @property
    def mixing(self) -> float:
        """The parameter of the shares' distribution."""
        return self.beta

    @property
    def wants_others(self) -> bool:
        """For the distance."""
        return self.mmd > 0

    @property
    def needs(self) -> str:
        """In a few words, for listings."""
        return "reference rows if mmd is set"

    def loss(self, ops: ArrayOps, batch: Batch) -> Any:
        """Cross-entropy to both labels, by their shares, and the distance."""
        loss = ops.mean(ops.cross_entropy(batch.logits, batch.labels))
        if batch.partners is not None:
            other = ops.mean(ops.cross_entropy(batch.logits, batch.partners))
            loss = batch.share * loss + (1.0 - batch.share) * other
        if self.mmd and batch.others is not None:
            here = ops.exp(ops.log_softmax(batch.logits))
            there = ops.constant(ops.exp(ops.log_softmax(batch.others.logits)))
            loss = loss + self.mmd * squared_mmd(ops, here, there)
        return loss


def squared_mmd(ops: ArrayOps, here: Any, there: Any) -> Any:
    """Maximum mean discrepancy, squared, of two samples [rows, classes]: the biased estimate, with the kernel
    exp(-|a - b|^2 / 2) (Gretton et al., JMLR 2012)."""

    def kernel(a: Any, b: Any) -> Any:
        ones_b, ones_a = 0.0 * b + 1.0, 0.0 * a + 1.0
        squares = ops.matmul(a * a, ops.transpose(ones_b)) + ops.matmul(ones_a, ops.transpose(b * b))
        return ops.mean(ops.exp(-0.5 * (squares - 2.0 * ops.matmul(a, ops.transpose(b)))))

    return kernel(here, here) + kernel(there, there) - 2.0 * kernel(here, there)


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
