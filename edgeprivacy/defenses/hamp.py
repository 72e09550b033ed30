"""HAMP, the part of it that ships: training towards high entropy.

Chen, Pattabiraman, "Overconfidence is a Dangerous Thing: Mitigating Membership Inference Attacks by Enforcing
Less Confident Prediction", NDSS 2024. The equations are those of the authors' released code
(DependableSystemsLab/MIA_defense_HAMP, commit 667be8a).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import log
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.defenses.array_ops import ArrayOps, Batch
from edgeprivacy.defenses.base import TrainingDefense, TrainingRows, defenses
from edgeprivacy.defenses.ranges import Searchable, Span, check_number
from edgeprivacy.errors import RecipeError

STEP = 0.01


@lru_cache(maxsize=64)
def soft_label(classes: int, gamma: float) -> tuple[float, float]:
    """(probability of the label's class, probability of every other class) of HAMP's soft labels.

    The label's probability goes down from 1 in steps of 0.01, the others share the rest, until the entropy is
    at least `gamma` of the largest possible, log(classes).

    Raises:
        ValueError: No step has that entropy with the label still the most probable class.
    """
    for step in range(1, round(1 / STEP)):
        top = 1 - step * STEP
        other = (1 - top) / (classes - 1)
        if top <= other:
            break
        if -top * log(top) - (1 - top) * log(other) >= gamma * log(classes):
            return top, other
    raise ValueError(
        f"no soft label of {classes} classes keeps its label on top at {gamma:g} of the largest entropy"
    )


def replaced_scores(answers: NDArray[Any], of_random_inputs: NDArray[Any]) -> NDArray[Any]:
    """HAMP's third part, for who answers queries for others, as a server does: each answer's scores give way
    to those that the model gives a random input, in the same order of ranks. The top classes stay; what their
    scores say is gone. It changes no file and protects none: who holds the file asks it directly.

    Args:
        answers: Probabilities [rows, classes].
        of_random_inputs: Probabilities of as many inputs drawn at random, [rows, classes].

    Raises:
        ValueError: The shapes differ.
    """
    if answers.shape != of_random_inputs.shape:
        raise ValueError(f"{of_random_inputs.shape} scores of random inputs for {answers.shape} answers")
    ranks = np.argsort(np.argsort(answers, axis=1, kind="stable"), axis=1, kind="stable")
    return np.take_along_axis(np.sort(of_random_inputs, axis=1), ranks, axis=1)


@defenses.register("hamp")
@dataclass(frozen=True)
class Hamp(TrainingDefense):
    """Cross-entropy gives way to mean over rows of KL(t || p) / classes - alpha * H(p): t is a soft label of
    high entropy (`soft_label`), H(p) the entropy of the output in nats. The authors' KL is a mean over
    classes as well as rows, which makes alpha's share what it is.

    HAMP's third part replaces the scores of each answer when the model is queried (`replaced_scores`). It
    changes no file: who holds the file calls it without. It is not applied here and must not be counted as
    protection of a file.

    Attributes:
        gamma: Share of the largest entropy. Authors: Purchase 0.8, Texas 0.6, CIFAR-10 0.95, Location 0.5.
        alpha: Weight of the entropy. Authors: Purchase and Texas 0.01, CIFAR-100 0.005, Location 0.001.
    """

    name: ClassVar[str] = "hamp"
    title: ClassVar[str] = "HAMP's training part: soft labels of high entropy, and a reward for entropy"
    paper: ClassVar[str] = "Chen & Pattabiraman, HAMP, NDSS 2024 (training part only)"
    search: ClassVar[Mapping[str, Searchable]] = {
        "gamma": Span(0.1, 0.95),
        "alpha": Span(1e-4, 0.1, log=True),
    }

    gamma: float = 0.5
    alpha: float = 0.001

    def __post_init__(self) -> None:
        check_number("gamma", self.gamma, 0, 1, open_low=True)
        check_number("alpha", self.alpha, 0)

    def check(self, rows: TrainingRows) -> None:
        """Whether soft labels of that entropy exist for this many classes."""
        try:
            soft_label(max(2, rows.classes), self.gamma)
        except ValueError as error:
            raise RecipeError(
                f"defense 'hamp': {error}", got=f"gamma {self.gamma:g}", hint="lower gamma"
            ) from None

    def loss(self, ops: ArrayOps, batch: Batch) -> Any:
        """KL to the soft labels, minus the weighted entropy."""
        classes = batch.logits.shape[-1]
        top, other = soft_label(classes, self.gamma)
        log_p = ops.log_softmax(batch.logits)
        target = other + (top - other) * ops.one_hot(batch.labels, classes)
        negative_entropy = top * log(top) + (1 - top) * log(other)
        divergence = ops.mean(negative_entropy - ops.sum(target * log_p)) / classes
        entropy = -ops.sum(ops.exp(log_p) * log_p)
        return divergence - self.alpha * ops.mean(entropy)
