"""Critical-weight rewinding: the few weights that tell members go back to where they began, and stay there.

After Fang, Kim, "Learnability and Privacy Vulnerability are Entangled in a Few Critical Weights", ICLR 2026
(CWRF). The paper's text and code could not be read; what is done here follows its abstract and independent
notes on it. Inferred, and our choice: `weight` and `epochs` of the probe, that the probe trains a copy while
it sums the scores, Adam at the recipe's learning rate without annealing, and how pruning goes with it: by
default a pruned model is rewound among the weights that are left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.defenses.array_ops import ArrayOps, Batch
from edgeprivacy.defenses.base import Defense, defenses
from edgeprivacy.defenses.ranges import Searchable, Span, check_count, check_number

Scope = Literal["global", "layer"]
Arm = Literal["rewind", "remove", "tune-rewound"]
When = Literal["after", "before"]
Arrays = Sequence[NDArray[Any]]


@dataclass(frozen=True)
class Rewinding:
    """How a trained model's weights are scored, and which of them are rewound.

    Attributes:
        rate: Share of the weights that are left after pruning.
        weight, epochs: Of the probe.
        scope: Whether the largest scores are taken over all weights or of each array by itself.
        arm: What becomes of them.
        when: Before or after pruning.
    """

    rate: float
    weight: float
    epochs: int
    scope: Scope
    arm: Arm
    when: When = "after"

    def probe(self) -> Defense:
        """The loss by whose gradients weights are scored."""
        return _Probe(self.weight)

    def chosen(self, scores: Arrays, weights: Arrays) -> list[NDArray[np.bool_]]:
        """Which weights are vulnerable: the largest scores among those that are not zero, which pruning left.

        Args:
            scores: Sums of |gradient * weight| over the probe's steps, an array a parameter.
            weights: Before the probe, of the same shapes.
        """
        left = [np.asarray(array) != 0 for array in weights]
        if self.scope == "layer":
            return [self._largest([s], [of])[0] for s, of in zip(scores, left, strict=True)]
        return self._largest(scores, left)

    def start(
        self, vulnerable: Sequence[NDArray[np.bool_]], trained: Arrays, initial: Arrays
    ) -> tuple[list[NDArray[Any]], list[NDArray[np.bool_]]]:
        """The weights that fine-tuning starts from, and those that it must not move."""
        began = [np.zeros_like(each) if self.arm == "remove" else each for each in initial]
        start = [np.where(v, b, t) for v, b, t in zip(vulnerable, began, trained, strict=True)]
        moves_rewound = self.arm == "tune-rewound"
        return start, [~v if moves_rewound else v for v in vulnerable]

    def _largest(self, scores: Arrays, left: Sequence[NDArray[np.bool_]]) -> list[NDArray[np.bool_]]:
        flat = np.concatenate([np.where(of, s, -np.inf).ravel() for s, of in zip(scores, left, strict=True)])
        count = round(self.rate * int(sum(of.sum() for of in left)))
        mask = np.zeros(len(flat), dtype=np.bool_)
        # The stable order of equal scores makes the choice the same everywhere.
        mask[np.argsort(-flat, kind="stable")[:count]] = True
        mask &= np.isfinite(flat)
        edges = np.cumsum([np.size(of) for of in left])[:-1]
        return [part.reshape(of.shape) for part, of in zip(np.split(mask, edges), left, strict=True)]


@dataclass(frozen=True)
class _Probe(Defense):
    """(1 - weight) * cross-entropy on members + weight * KL(now || untrained) on reference rows."""

    name: ClassVar[str] = "cwrf probe"
    title: ClassVar[str] = "scores how much each weight tells members from others"
    paper: ClassVar[str] = "after Fang & Kim, CWRF, ICLR 2026"
    scores_weights: ClassVar[bool] = True

    weight: float = 0.5

    def loss(self, ops: ArrayOps, batch: Batch) -> Any:
        """Each term is the mean over its own rows of the batch."""
        member = batch.columns["member"]
        log_p = ops.log_softmax(batch.logits)
        divergence = ops.sum(ops.exp(log_p) * (log_p - ops.log(batch.columns["untrained"])))
        learning = ops.mean(member * ops.cross_entropy(batch.logits, batch.labels))
        forgetting = ops.mean((1.0 - member) * divergence)
        # Half of the rows of a batch are members: means over the batch are half of those over their own rows.
        return 2.0 * ((1.0 - self.weight) * learning + self.weight * forgetting)


@defenses.register("cwrf")
@dataclass(frozen=True)
class CriticalWeightRewinding(Defense):
    """The compressed model is probed by a loss that goes on learning members and pulls the answers on
    reference rows towards those of the untrained network. The weights with the largest sums of |gradient *
    weight| are set back to their initial values (those that the model's factory builds) and stay there while
    the others are fine-tuned, plainly or by the loss that `cwrf+...` names. Later phases may move them.

    Attributes:
        rate: Share of weights that are rewound; authors: 0.001 to 0.05, 0.03 reported.
        weight: Of the reference rows' term in the probe, 0 to 1 (inferred).
        epochs: Of the probe (inferred).
        scope: "global", or "layer" for that share of each array of weights.
        arm: "rewind"; to compare with: "remove" sets them to zero, "tune-rewound" trains them alone.
        when: "after" pruning, or "before": pruning then takes none of the rewound weights (inferred).
    """

    name: ClassVar[str] = "cwrf"
    version: ClassVar[str] = "2"
    title: ClassVar[str] = "critical weights rewound to their initial values, the others fine-tuned"
    paper: ClassVar[str] = "after Fang & Kim, CWRF, ICLR 2026"
    search: ClassVar[Mapping[str, Searchable]] = {
        "rate": Span(0.001, 0.1, log=True),
        "weight": Span(0.1, 0.9),
    }

    rate: float = 0.03
    weight: float = 0.5
    epochs: int = 1
    scope: Scope = "global"
    arm: Arm = "rewind"
    when: When = "after"

    def __post_init__(self) -> None:
        check_number("rate", self.rate, 0, 1, open_low=True)
        check_number("weight", self.weight, 0, 1)
        check_count("epochs", self.epochs)
        for name, allowed in (("scope", Scope), ("arm", Arm), ("when", When)):
            value = getattr(self, name)
            if value not in get_args(allowed):
                raise ValueError(f"{name} must be one of {', '.join(get_args(allowed))}, got {value!r}")

    def rewinding(self) -> Rewinding | None:
        """What is done before the last fine-tuning of pruning, or before all of it."""
        return Rewinding(self.rate, self.weight, self.epochs, self.scope, self.arm, self.when)

    @property
    def needs(self) -> str:
        """In a few words, for listings."""
        return "initial weights, reference rows"


__all__ = ["CriticalWeightRewinding", "Rewinding"]
