"""Defensive quantization: weights trained under a grid of few bits, by a loss that bounds the gap to rows
outside.

Inspired by Famili & Lao, "Deep Neural Network Quantization Framework for Effective Defense against Membership
Inference Attacks", Sensors 23(18), 2023, of which neither the loss nor the layers, bits and schedule could be
read: all of that is ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from edgeprivacy.compression.grid import FULL, LowBits, grid_told
from edgeprivacy.defenses.array_ops import ArrayOps, Batch
from edgeprivacy.defenses.base import Defense, TrainingRows, defenses
from edgeprivacy.defenses.ranges import Searchable, Span, check_count, check_number


@defenses.register("defensive-quantization")
@dataclass(frozen=True)
class DefensiveQuantization(Defense):
    """In every phase the loss is cross-entropy + gap * max(0, mean cross-entropy of reference rows - that of
    the batch - margin) + balance * KL(mean of the batch's sorted probabilities || that of the reference rows)
    - flatten * mean entropy. Reference rows are compared with, not learned. After pruning, weights train on
    under a grid of `weight_bits`, rounded in every step and moved as if they were not. An int8 file packs
    grids of 4 bits and fewer where its format can, and is read back. Activations keep 8 bits.

    Attributes:
        weight_bits: Of the inner layers, 2 to 8; 8 is no grid but the file's own.
        outer_bits: Of the first and the last layer, 2 to 8.
        gap: Weight of the gap; at 1 members are not learned any further while it is too wide.
        margin: Gap that is borne, in nats.
        balance: Weight of the divergence of sorted probabilities.
        flatten: Weight of the entropy.
        epochs: Of the phase under the grid, at most.
    """

    name: ClassVar[str] = "defensive-quantization"
    title: ClassVar[str] = "weights trained on a grid of few bits, the gap to reference rows bounded"
    paper: ClassVar[str] = "inspired by Famili & Lao, Sensors 2023; loss, bits and schedule are ours"
    version: ClassVar[str] = "2"
    search: ClassVar[Mapping[str, Searchable]] = {
        "weight_bits": (2, 3, 4, 6, 8),
        "outer_bits": (2, 4, 8),
        "margin": Span(0.0, 1.5),
        "balance": Span(0.1, 10.0, log=True),
    }

    weight_bits: int = 4
    outer_bits: int = FULL
    gap: float = 1.0
    margin: float = 0.5
    balance: float = 1.0
    flatten: float = 0.0
    epochs: int = 10

    def __post_init__(self) -> None:
        for name, bits in (("weight_bits", self.weight_bits), ("outer_bits", self.outer_bits)):
            if not isinstance(bits, int) or isinstance(bits, bool) or not 2 <= bits <= FULL:
                raise ValueError(f"{name} must be a whole number from 2 to {FULL}, got {bits!r}")
        for name in ("gap", "margin", "balance", "flatten"):
            check_number(name, getattr(self, name), 0)
        check_count("epochs", self.epochs)

    @property
    def wants_others(self) -> bool:
        """To compare with."""
        return True

    @property
    def needs(self) -> str:
        """In a few words, for listings."""
        return "reference rows"

    def low_bits(self) -> LowBits:
        """The grid."""
        return LowBits(self.weight_bits, self.outer_bits, self.epochs)

    def notes(self, rows: TrainingRows) -> tuple[str, ...]:
        """What the file holds."""
        del rows
        if self.weight_bits == self.outer_bits == FULL:
            return ()
        return (f"{self.name}: {grid_told(self.low_bits())}",)

    def loss(self, ops: ArrayOps, batch: Batch) -> Any:
        """See above."""
        plain = ops.mean(ops.cross_entropy(batch.logits, batch.labels))
        log_p = ops.log_softmax(batch.logits)
        loss = plain + self.flatten * ops.mean(ops.sum(ops.exp(log_p) * log_p))
        if batch.others is None:
            return loss
        outside = ops.constant(ops.mean(ops.cross_entropy(batch.others.logits, batch.others.labels)))
        here = _mean_sorted(ops, batch.logits)
        there = ops.constant(_mean_sorted(ops, batch.others.logits))
        divergence = ops.sum(here * (ops.log(here) - ops.log(there)))
        return loss + self.gap * ops.relu(outside - plain - self.margin) + self.balance * divergence


def _mean_sorted(ops: ArrayOps, logits: Any) -> Any:
    """The rows' mean of the largest probability, of the second largest, ...: [classes]."""
    # Added to where a mean may have no share left in float32.
    probabilities = ops.exp(ops.log_softmax(ops.sort_descending(logits))) + 1e-7
    return ops.sum(ops.transpose(probabilities)) / ops.sum(ops.transpose(0.0 * probabilities + 1.0))
