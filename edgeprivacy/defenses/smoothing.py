"""Two regularizers that keep outputs from growing sure: label smoothing and the confidence penalty."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from edgeprivacy.defenses.array_ops import ArrayOps, Batch
from edgeprivacy.defenses.base import TrainingDefense, defenses
from edgeprivacy.defenses.ranges import Searchable, Span, check_number


@defenses.register("label-smoothing")
@dataclass(frozen=True)
class LabelSmoothing(TrainingDefense):
    """(1 - share) * cross-entropy + share * mean over classes of -log p.

    Alone it may leak more than no defense, and did where it was measured (docs/defenses.md): what it does to
    members it does to members only.

    Attributes:
        share: Part of each label that goes to all classes evenly.
    """

    name: ClassVar[str] = "label-smoothing"
    title: ClassVar[str] = "label smoothing: a part of each label goes to all classes evenly"
    paper: ClassVar[str] = "Szegedy et al., CVPR 2016"
    search: ClassVar[Mapping[str, Searchable]] = {"share": Span(0.01, 0.5, log=True)}

    share: float = 0.1

    def __post_init__(self) -> None:
        check_number("share", self.share, 0, 1)

    def loss(self, ops: ArrayOps, batch: Batch) -> Any:
        """Cross-entropy to the smoothed labels."""
        classes = batch.logits.shape[-1]
        plain = ops.cross_entropy(batch.logits, batch.labels)
        even = -ops.sum(ops.log_softmax(batch.logits)) / classes
        return ops.mean((1 - self.share) * plain + self.share * even)


@defenses.register("confidence-penalty")
@dataclass(frozen=True)
class ConfidencePenalty(TrainingDefense):
    """Cross-entropy - weight * H(p), with H(p) the entropy of the output in nats.

    Attributes:
        weight: Weight of the entropy.
    """

    name: ClassVar[str] = "confidence-penalty"
    title: ClassVar[str] = "confidence penalty: a reward for the output's entropy"
    paper: ClassVar[str] = "Pereyra et al., ICLR workshop 2017"
    search: ClassVar[Mapping[str, Searchable]] = {"weight": Span(0.01, 2.0, log=True)}

    weight: float = 0.1

    def __post_init__(self) -> None:
        check_number("weight", self.weight, 0)

    def loss(self, ops: ArrayOps, batch: Batch) -> Any:
        """Cross-entropy minus the weighted entropy."""
        log_p = ops.log_softmax(batch.logits)
        entropy = -ops.sum(ops.exp(log_p) * log_p)
        return ops.mean(ops.cross_entropy(batch.logits, batch.labels) - self.weight * entropy)
