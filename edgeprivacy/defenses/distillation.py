"""Knowledge distillation: the compressed model learns the answers of the release's own original."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.defenses.array_ops import ArrayOps, Batch
from edgeprivacy.defenses.base import Defense, TrainingRows, defenses
from edgeprivacy.defenses.preparing import Preparation, SubModels
from edgeprivacy.defenses.ranges import Searchable, Span, check_number
from edgeprivacy.defenses.selena import at_temperature


@defenses.register("distillation")
@dataclass(frozen=True)
class Distillation(Defense):
    """(1 - weight) * cross-entropy + weight * temperature^2 * KL(teacher || student at the temperature).

    The teacher is the release's plain original, which was fitted to the same rows: its soft labels carry what
    it remembers of them. `selena` is the distillation whose teachers never saw the row.

    Attributes:
        temperature: Softens teacher and student alike; the usual 10.
        weight: Share of the teacher's term; the usual 0.5.
    """

    name: ClassVar[str] = "distillation"
    title: ClassVar[str] = "knowledge distillation: compression learns the original's soft answers"
    paper: ClassVar[str] = "Hinton et al., 2015; as a defense in MLHospital's comparison"
    search: ClassVar[Mapping[str, Searchable]] = {
        "temperature": Span(1.0, 20.0, log=True),
        "weight": Span(0.1, 0.9),
    }

    temperature: float = 10.0
    weight: float = 0.5

    def __post_init__(self) -> None:
        check_number("temperature", self.temperature, 0, open_low=True)
        check_number("weight", self.weight, 0, 1)

    def preparations(self) -> tuple[Preparation, ...]:
        """The original's answers."""
        told = "answers of the release's own original"
        return (Preparation("soft_labels", {"by": "the original"}, _teacher, told, asks_original=True),)

    def columns(self, rows: TrainingRows) -> dict[str, NDArray[np.float32]]:
        """The teacher's distributions [rows, classes] at the temperature."""
        assert rows.soft_labels is not None
        return {"teacher": at_temperature(rows.soft_labels, self.temperature)}

    def loss(self, ops: ArrayOps, batch: Batch) -> Any:
        """Both terms."""
        teacher = batch.columns["teacher"]
        plain = ops.mean(ops.cross_entropy(batch.logits, batch.labels))
        student = ops.log_softmax(batch.logits / self.temperature)
        # The teacher's entropy has no gradient, but without it the term would not be a divergence.
        divergence = ops.mean(ops.sum(teacher * (ops.log(teacher) - student)))
        return (1 - self.weight) * plain + self.weight * self.temperature**2 * divergence


def _teacher(rows: TrainingRows, models: SubModels) -> NDArray[np.float32]:
    del rows
    return models.original_answers()
