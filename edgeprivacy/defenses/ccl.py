"""CCL: a concave term beside cross-entropy, which spreads the members' losses.

Liu et al., "Mitigating Privacy Risk in Membership Inference by Convex-Concave Loss", ICML 2024. The equations
are those of the authors' released code (zhenlong-liu/MLHospital, commit 19bb6d2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from edgeprivacy.defenses.array_ops import ArrayOps, Batch
from edgeprivacy.defenses.base import TrainingDefense, defenses
from edgeprivacy.defenses.ranges import Searchable, Span, check_number


@defenses.register("ccl")
@dataclass(frozen=True)
class ConvexConcave(TrainingDefense):
    """beta * mean[alpha * ce - (1 - alpha) * exp(p_y)], with p_y the probability of the row's label.

    Attributes:
        alpha: Weight of cross-entropy (convex); the rest goes to the concave term.
        beta: Scale of the whole; under Adam it only shifts the balance towards weight decay.
    """

    name: ClassVar[str] = "ccl"
    title: ClassVar[str] = "CCL: cross-entropy and a concave term that spreads the losses"
    paper: ClassVar[str] = "Liu et al., Convex-Concave Loss, ICML 2024 (CCEL)"
    search: ClassVar[Mapping[str, Searchable]] = {
        "alpha": Span(0.05, 0.95),
        "beta": Span(0.01, 0.5, log=True),
    }

    alpha: float = 0.5
    beta: float = 0.05

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha, 0, 1)
        check_number("beta", self.beta, 0, open_low=True)

    def loss(self, ops: ArrayOps, batch: Batch) -> Any:
        """Convex and concave parts."""
        row_loss = ops.cross_entropy(batch.logits, batch.labels)
        concave = self._concave(ops, ops.exp(-row_loss))
        return self.beta * ops.mean(self.alpha * row_loss - (1 - self.alpha) * concave)

    def _concave(self, ops: ArrayOps, confidence: Any) -> Any:
        return ops.exp(confidence)


@defenses.register("ccl:quadratic")
@dataclass(frozen=True)
class QuadraticConvexConcave(ConvexConcave):
    """The same with p_y + p_y^2 / 2, the first terms of exp(p_y) but for its constant.

    Attributes:
        alpha, beta: As of `ccl`.
    """

    name: ClassVar[str] = "ccl:quadratic"
    title: ClassVar[str] = "CCL with a quadratic concave term"
    paper: ClassVar[str] = "Liu et al., Convex-Concave Loss, ICML 2024 (CCQL)"

    def _concave(self, ops: ArrayOps, confidence: Any) -> Any:
        return confidence + confidence * confidence / 2
