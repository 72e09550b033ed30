"""What every defense is: a small frozen object whose fields are its settings.

The mathematics of a defense stands here once, in numpy (which rows an epoch sees) and against a small
namespace of array operations (`ArrayOps`) that each backend provides (the loss of a batch).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.errors import RecipeError, did_you_mean
from edgeprivacy.registry import Registry

Rows = NDArray[np.intp]


class ArrayOps(Protocol):
    """Array operations that a backend provides; arrays are the backend's own tensors."""

    def cross_entropy(self, logits: Any, labels: Any) -> Any:
        """Per-row cross-entropy [batch] of logits [batch, classes] against integer labels [batch]."""

    def mean(self, values: Any) -> Any:
        """Mean over all entries."""


@dataclass(frozen=True)
class TrainingRows:
    """What a defense may know of a release: its own training rows, by position.

    Attributes:
        labels: int64 [rows].
        classes: Number of classes.
        memorability: float64 [rows] in 0..1, or None for defenses that do not need it.
    """

    labels: NDArray[np.int64]
    classes: int
    memorability: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Pass:
    """One pass over rows within an epoch.

    Attributes:
        rows: Positions into the training rows; shuffled by the trainer.
        weight_decay: Coefficient of the coupled L2 term for these rows.
        optimizer: Name of the optimizer whose moments this pass uses; all share the parameters.
    """

    rows: Rows
    weight_decay: float
    optimizer: str = "general"


@dataclass(frozen=True)
class Defense:
    """Governs every training step after the original. Subclasses override what they change."""

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    role: ClassVar[str] = "candidate"
    needs_memorability: ClassVar[bool] = False
    version: ClassVar[str] = "1"

    def check(self, rows: TrainingRows) -> None:
        """Raise RecipeError where settings and rows do not fit."""
        del rows

    def notes(self, rows: TrainingRows) -> tuple[str, ...]:
        """Sentences a reader of the report must see about what these settings do to these rows."""
        del rows
        return ()

    def epoch(
        self, rows: TrainingRows, epoch: int, epochs: int, weight_decay: float, rng: np.random.Generator
    ) -> list[Pass]:
        """The passes of one epoch of a phase (a pruning iteration, clustering, QAT), `epoch` from 0.

        An empty list ends the phase. `rng` is the same at the start of every epoch of a release's phase.
        """
        del epoch, epochs, rng
        return [Pass(np.arange(len(rows.labels)), weight_decay)]

    def loss(self, ops: ArrayOps, logits: Any, labels: Any) -> Any:
        """Scalar loss of a batch; weight decay is added by the trainer."""
        return ops.mean(ops.cross_entropy(logits, labels))

    @property
    def needs(self) -> str:
        """In a few words, for listings."""
        return (
            "memorability scores (sub-models on the release's own training rows)"
            if self.needs_memorability
            else "nothing"
        )


DefenseFactory = Callable[..., Defense]
defenses: Registry[DefenseFactory] = Registry(
    "defense",
    modules=tuple(f"edgeprivacy.defenses.{module}" for module in ("none", "wemem", "less_data")),
)
"""All defenses by name: a class, or a function that fills in other defaults."""


def make_defense(name: str, settings: Mapping[str, Any] | None = None) -> Defense:
    """A defense from its name and settings.

    Raises:
        UsageError: Unknown name.
        RecipeError: Unknown setting, or a value out of range.
    """
    factory = defenses[name]
    known = [field.name for field in fields(factory())]
    for key in settings or {}:
        if key not in known:
            raise RecipeError(
                f"defense '{name}' has no setting '{key}'",
                allowed=", ".join(known) or "none",
                hint=did_you_mean(key, known),
            )
    try:
        return factory(**(settings or {}))
    except (TypeError, ValueError) as error:
        raise RecipeError(f"defense '{name}': {error}") from None
