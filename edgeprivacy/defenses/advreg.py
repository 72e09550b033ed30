"""Adversarial regularization: the model is trained against an opponent that guesses membership.

Nasr, Shokri, Houmansadr, "Machine Learning with Membership Privacy using Adversarial Regularization", CCS
2018, with the bounded gain of the authors' released code (SPIN-UMass/ML-Privacy-Regulization).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from edgeprivacy.defenses.array_ops import ArrayOps, Batch
from edgeprivacy.defenses.base import TrainingDefense, defenses
from edgeprivacy.defenses.inference_network import InferenceNetwork
from edgeprivacy.defenses.mia_pruning import MiaPruning
from edgeprivacy.defenses.ranges import Searchable, Span, check_count, check_number


def gain_loss(ops: ArrayOps, batch: Batch, weight: float, warm_up: int) -> Any:
    """Cross-entropy + weight * (mean h - 1/2), with h the opponent's probability that the batch's rows are
    members; the second term only from epoch `warm_up` on."""
    plain = ops.mean(ops.cross_entropy(batch.logits, batch.labels))
    sure = ops.mean(ops.exp(-ops.softplus(-batch.inferred))) - 0.5
    return plain + weight * ops.where(batch.epoch >= warm_up, sure, 0.0 * sure)


@defenses.register("advreg")
@dataclass(frozen=True)
class AdversarialRegularization(TrainingDefense):
    """Before each step of the model its opponent takes `steps` of its own, on the same batch and as many
    reference rows: it learns to tell members from others by probabilities and label. The model's loss then
    is cross-entropy + weight * (mean h - 1/2), with h what the opponent thinks of the batch's rows. In every
    phase a new opponent starts, and for `warm_up` epochs it learns while the model trains plainly.

    Attributes:
        weight: The authors and later comparisons: 1 (CIFAR-100) to 10 (Location, Texas).
        steps: Of the opponent, for each of the model.
        warm_up: Epochs of a phase without the second term.
    """

    name: ClassVar[str] = "advreg"
    title: ClassVar[str] = "adversarial regularization: trained against a network that guesses membership"
    paper: ClassVar[str] = "Nasr et al., CCS 2018"
    search: ClassVar[Mapping[str, Searchable]] = {"weight": Span(0.3, 20.0, log=True)}

    weight: float = 3.0
    steps: int = 1
    warm_up: int = 1

    def __post_init__(self) -> None:
        check_number("weight", self.weight, 0)
        check_count("steps", self.steps)
        check_count("warm_up", self.warm_up, 0)

    def opponent(self) -> InferenceNetwork | None:
        """The network that guesses."""
        return InferenceNetwork(steps=self.steps)

    def loss(self, ops: ArrayOps, batch: Batch) -> Any:
        """See `gain_loss`."""
        return gain_loss(ops, batch, self.weight, self.warm_up)

    @property
    def needs(self) -> str:
        """In a few words, for listings."""
        return "reference rows"


@defenses.register("mia-pruning:minmax")
@dataclass(frozen=True)
class MinMaxPruning(MiaPruning):
    """MIA-Pruning's second form: the pull towards sparsity, and the opponent of `advreg` in every epoch of
    both phases (after Wang et al.; which loss, steps and network they used could not be read).

    Attributes:
        rho, growth, epochs, every: As of `mia-pruning`.
        weight: Of the opponent's gain.
        steps: Of the opponent, for each of the model.
    """

    name: ClassVar[str] = "mia-pruning:minmax"
    version: ClassVar[str] = "2"
    title: ClassVar[str] = "pruning by ADMM against a network that guesses membership"
    paper: ClassVar[str] = "after Wang et al., MIA-Pruning & Min-Max, IJCAI 2021"
    search: ClassVar[Mapping[str, Searchable]] = {
        **MiaPruning.search,
        "weight": Span(0.3, 20.0, log=True),
    }

    weight: float = 3.0
    steps: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("weight", self.weight, 0)
        check_count("steps", self.steps)

    def opponent(self) -> InferenceNetwork | None:
        """The network that guesses."""
        return InferenceNetwork(steps=self.steps)

    def loss(self, ops: ArrayOps, batch: Batch) -> Any:
        """See `gain_loss`."""
        return gain_loss(ops, batch, self.weight, 1)

    @property
    def needs(self) -> str:
        """In a few words, for listings."""
        return "reference rows"
