"""Self-distillation with exclusion, kept through compression: no row is ever fitted to its own label.

After Tang et al., "Mitigating Membership Inference Attacks by Self-Distillation Through a Novel Ensemble
Architecture" (SELENA), USENIX Security 2022. Theirs: sub-models that each leave out a part of the rows, every
row left out of exactly so many, and a student that learns for each row what the models that never saw it
answer. Ours: the labels' temperature, a student without dropout and with hardly any weight decay, the same
soft labels in every phase of compression (a plain fine-tuning after the distillation undoes it), and
near-duplicates left out together (a sub-model that saw a row's twin has as good as seen the row).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.defenses.array_ops import ArrayOps, Batch
from edgeprivacy.defenses.base import Pass, TrainingDefense, TrainingRows, defenses
from edgeprivacy.defenses.groups import check_groups, near_duplicates
from edgeprivacy.defenses.preparing import Preparation, SubModels
from edgeprivacy.defenses.ranges import Searchable, Span, check_count, check_number
from edgeprivacy.errors import RecipeError

FITTED_PATIENCE = 15


@defenses.register("selena")
@dataclass(frozen=True)
class Selena(TrainingDefense):
    """Cross-entropy to soft labels: the mean answer of the sub-models that left a row out, to the power
    1 / temperature, normalised. Labels are used by the sub-models only, which are trained as the recipe says.

    Attributes:
        sub_models: How many (the paper's K).
        left_out: Of how many each row is left out (the paper's L).
        temperature: Above 1 softens the labels.
        groups: Least similarity of rows left out together; "auto": Jaccard 0.8 or cosine 0.95; or "off".
        weight_decay: The student's L2.
        fitted: Train the student further: no weight decay, patience of 15 epochs.
    """

    name: ClassVar[str] = "selena"
    version: ClassVar[str] = "2"
    title: ClassVar[str] = "self-distillation with exclusion: rows learn what models without them answer"
    paper: ClassVar[str] = "after Tang et al., SELENA, USENIX Security 2022"
    search: ClassVar[Mapping[str, Searchable]] = {
        "temperature": Span(0.5, 8.0, log=True),
        "weight_decay": Span(5e-6, 5e-4, log=True),
    }

    sub_models: int = 10
    left_out: int = 4
    temperature: float = 2.0
    groups: float | str = "auto"
    weight_decay: float = 5e-5
    fitted: bool = False

    def __post_init__(self) -> None:
        check_count("sub_models", self.sub_models, 2)
        check_count("left_out", self.left_out)
        if self.left_out >= self.sub_models:
            raise ValueError(
                f"left_out must be smaller than sub_models ({self.sub_models}), got {self.left_out}"
            )
        check_number("temperature", self.temperature, 0, open_low=True)
        check_number("weight_decay", self.weight_decay, 0)
        check_groups(self.groups)
        if not isinstance(self.fitted, bool):
            raise ValueError(f"fitted must be true or false, got {self.fitted!r}")
        if not self.original:
            raise ValueError(
                "original must be true: fine-tuning on soft labels does not make a plainly trained original "
                "forget its rows"
            )

    def check(self, rows: TrainingRows) -> None:
        """Every sub-model needs rows to learn from."""
        if len(rows.labels) < 10 * self.sub_models:
            raise RecipeError(
                f"defense '{self.name}' has too few training rows for {self.sub_models} sub-models",
                got=f"{len(rows.labels)} rows",
                allowed=f"{10 * self.sub_models} or more",
                hint="lower sub_models and left_out",
            )

    def preparations(self) -> tuple[Preparation, ...]:
        """The mean answers of those sub-models that left a row out."""
        identity: dict[str, Any] = {
            "by": "selena",
            "sub_models": self.sub_models,
            "left_out": self.left_out,
            "groups": self.groups,
        }
        if not isinstance(self.groups, str):
            identity["stands"] = True  # "auto" alone is raised
        make = partial(held_out_answers, self.sub_models, self.left_out, self.groups)
        told = "soft labels (sub-models on the release's own training rows)"
        share = 100 * (1 - self.left_out / self.sub_models)
        cost = f"{self.sub_models} trainings of the original on {share:.0f} % of the rows each"
        return (Preparation("soft_labels", identity, make, told, validates=True, cost=cost),)

    def notes(self, rows: TrainingRows) -> tuple[str, ...]:
        """What near-duplicates there are."""
        return tuple(f"{self.name}: {text}." for text in rows.found)

    def columns(self, rows: TrainingRows) -> dict[str, NDArray[np.float32]]:
        """Soft labels [rows, classes] at the temperature."""
        assert rows.soft_labels is not None
        return {"soft_labels": at_temperature(rows.soft_labels, self.temperature)}

    def epoch(
        self, rows: TrainingRows, epoch: int, epochs: int, weight_decay: float, rng: np.random.Generator
    ) -> list[Pass]:
        """All rows, with the student's own weight decay."""
        return [Pass(np.arange(len(rows.labels)), 0.0 if self.fitted else self.weight_decay)]

    @property
    def dropout(self) -> float | None:
        """The student learns without."""
        return 0.0

    def patience(self, given: int) -> int:
        """At least 15 epochs for a fitted student."""
        return max(given, FITTED_PATIENCE) if self.fitted else given

    def loss(self, ops: ArrayOps, batch: Batch) -> Any:
        """Cross-entropy to the soft labels."""
        return ops.mean(-ops.sum(batch.columns["soft_labels"] * ops.log_softmax(batch.logits)))


def at_temperature(probabilities: NDArray[np.floating[Any]], temperature: float) -> NDArray[np.float32]:
    """Distributions [rows, classes] to the power 1 / temperature, normalised: float32."""
    # From logarithms, floored at the smallest normal number: zeros stay next to zero at every temperature.
    logs = np.log(np.maximum(probabilities.astype(np.float64), np.finfo(np.float32).tiny)) / temperature
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float32)


def draw_exclusions(
    group: NDArray[np.intp], sub_models: int, left_out: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Which sub-models each row is left out of: bool [rows, sub_models], exactly `left_out` a row, drawn for
    each group of rows by itself.

    Args:
        group: int [rows], the number of each row's group, from 0.
    """
    ranked = rng.random((int(group.max()) + 1, sub_models)).argsort(axis=1).argsort(axis=1)
    return np.asarray((ranked < left_out)[group])


def held_out_answers(
    sub_models: int, left_out: int, groups: float | str, rows: TrainingRows, models: SubModels
) -> NDArray[np.float32]:
    """Mean probabilities [rows, classes] of the sub-models that did not see a row.

    Raises:
        RecipeError: A group of more than half of the rows: without it sub-models have too few to learn from.
    """
    found = near_duplicates(models.inputs, groups)
    if len(found.sizes) and found.sizes[0] > len(rows.labels) / 2:
        raise RecipeError(
            "defense 'selena' leaves near-duplicates out together, and most rows would be left out at once",
            got=f"groups {groups}: {found.sizes[0]} of {len(rows.labels)} rows in one group",
            allowed="at most half of the rows in a group",
            hint="raise groups, or set it to auto or off",
        )
    models.tell(found.told())
    excluded = draw_exclusions(found.of_row, sub_models, left_out, models.rng("selena"))
    total = np.zeros((len(rows.labels), rows.classes))
    for number in range(sub_models):
        answers = models.answers(np.flatnonzero(~excluded[:, number]), "selena", number)
        total += answers * excluded[:, number, None]
    return np.asarray(total / left_out, dtype=np.float32)
