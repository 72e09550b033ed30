"""RelaxLoss: the mean loss on members is held at a level that non-members have too.

Chen, Yu, Fritz, "RelaxLoss: Defending Membership Inference Attacks without Losing Utility", ICLR 2022. The
equations are those of the authors' released code (DingfanChen/RelaxLoss, commit c847147).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from edgeprivacy.defenses.array_ops import ArrayOps, Batch
from edgeprivacy.defenses.base import TrainingDefense, defenses
from edgeprivacy.defenses.ranges import Searchable, Span, check_number


@defenses.register("relaxloss")
@dataclass(frozen=True)
class RelaxLoss(TrainingDefense):
    """Two kinds of epochs by turns. With l the batch's mean cross-entropy:

    - even epochs: |l - alpha|, that is descent above the level and ascent below it;
    - odd epochs: l above the level; at or below it posterior flattening, mean[wrong * H(t, p) - ce] over the
      rows, where t keeps the row's own p_y (at most `upper`) and spreads the rest evenly over the other
      classes, H is cross-entropy and `wrong` is 1 for misclassified rows, 0 for others.

    Epochs are counted from 0 in every phase. As in the authors' code, gradients flow through t; and without
    `ascent` the flattening is mean[H(t, p)] over all rows, as in their code for rows that are no images.

    Attributes:
        alpha: Level, in nats; 0 is near plain training. Authors: CIFAR-10 0.4 and 1, Purchase 0.8, Texas 2.5.
        upper: Largest p_y that flattening asks for. Authors: 1; Purchase 0.3, Texas 0.1.
        ascent: Which of the two forms of flattening.
    """

    name: ClassVar[str] = "relaxloss"
    title: ClassVar[str] = "RelaxLoss: holds the members' mean loss at a level, flattens their posteriors"
    paper: ClassVar[str] = "Chen et al., RelaxLoss, ICLR 2022"
    search: ClassVar[Mapping[str, Searchable]] = {"alpha": Span(0.1, 2.0)}

    alpha: float = 1.0
    upper: float = 1.0
    ascent: bool = True

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha, 0)
        check_number("upper", self.upper, 0, 1, open_low=True)
        if not isinstance(self.ascent, bool):
            raise ValueError(f"ascent must be true or false, got {self.ascent!r}")

    def loss(self, ops: ArrayOps, batch: Batch) -> Any:
        """The even or the odd epochs' loss."""
        row_loss = ops.cross_entropy(batch.logits, batch.labels)
        mean_loss = ops.mean(row_loss)
        even = abs(mean_loss - self.alpha)
        odd = ops.where(mean_loss > self.alpha, mean_loss, self._flattening(ops, batch, row_loss))
        return ops.where(batch.epoch % 2 > 0.5, odd, even)

    def _flattening(self, ops: ArrayOps, batch: Batch, row_loss: Any) -> Any:
        classes = batch.logits.shape[-1]
        label = ops.one_hot(batch.labels, classes)
        log_p = ops.log_softmax(batch.logits)
        confidence = ops.minimum(ops.exp(-row_loss), self.upper)
        # Sum over classes of t * log p, with the two values that t takes.
        own = ops.sum(label * log_p)
        others = ops.sum((1.0 - label) * log_p) / (classes - 1)
        soft = -(confidence * own + (1.0 - confidence) * others)
        if not self.ascent:
            return ops.mean(soft)
        wrong = ops.where(ops.argmax(batch.logits) == batch.labels, 0.0 * row_loss, soft)
        return ops.mean(wrong - row_loss)
