"""PPB: the sorted outputs of any two rows are made alike, so that the outputs tell less of a row.

Yuan, Zhang, "Membership Inference Attacks and Defenses in Neural Network Pruning", USENIX Security 2022. The
equations are those of the authors' released code (mia_prune, commit bb3fe4b).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from edgeprivacy.defenses.array_ops import ArrayOps, Batch
from edgeprivacy.defenses.base import Defense, defenses
from edgeprivacy.defenses.ranges import Searchable, Span, check_number


@defenses.register("ppb")
@dataclass(frozen=True)
class PosteriorBalancing(Defense):
    """Cross-entropy + weight * mean over pairs of KL(second || first): each row's probabilities are sorted,
    which drops the classes' identity, and row j of the batch's first half is paired with row j of its second.

    Of a batch with an odd number of rows the last one is in no pair. Gradients flow through both rows.

    Attributes:
        weight: Weight of the balancing; authors: 1, 2, 4, 8, 16.
    """

    name: ClassVar[str] = "ppb"
    title: ClassVar[str] = "PPB: pairs of rows are trained towards the same sorted posteriors"
    paper: ClassVar[str] = "Yuan & Zhang, USENIX Security 2022 (PPB)"
    search: ClassVar[Mapping[str, Searchable]] = {"weight": Span(0.5, 32.0, log=True)}

    weight: float = 4.0

    def __post_init__(self) -> None:
        check_number("weight", self.weight, 0)

    def loss(self, ops: ArrayOps, batch: Batch) -> Any:
        """Cross-entropy and the pairs' divergence."""
        plain = ops.mean(ops.cross_entropy(batch.logits, batch.labels))
        # Sorting logits sorts log-probabilities: softmax keeps the order.
        first, second = ops.halves(ops.log_softmax(ops.sort_descending(batch.logits)))
        divergence = ops.sum(ops.exp(second) * (second - first))
        return plain + self.weight * ops.mean_or_zero(divergence)
