"""An opponent in training: a small network that learns to tell members from reference rows by their answers.

Its mathematics stands here once, against `ArrayOps`; a backend holds its weights and updates them by Adam.
What it starts from is drawn in numpy, so that both backends start alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.defenses.array_ops import ArrayOps


@dataclass(frozen=True)
class InferenceNetwork:
    """Probabilities and the label (one-hot) to a logit of membership, through two ReLU layers.

    The networks of Nasr et al. (CCS 2018) have widths of 1024, 512 and 64; for models of a phone's size one
    of two equal layers does.

    Attributes:
        width: Units of each layer.
        learning_rate: Of Adam.
        steps: Updates before each step of the model.
    """

    width: int = 64
    learning_rate: float = 1e-3
    steps: int = 1

    def start(self, classes: int, rng: np.random.Generator) -> list[NDArray[np.float32]]:
        """Kernels [inputs, outputs] (Glorot, normal) and biases, by turns."""
        sizes = [2 * classes, self.width, self.width, 1]
        weights: list[NDArray[np.float32]] = []
        for inputs, outputs in pairwise(sizes):
            deviation = math.sqrt(2 / (inputs + outputs))
            weights.append(rng.normal(0, deviation, (inputs, outputs)).astype(np.float32))
            weights.append(np.zeros(outputs, dtype=np.float32))
        return weights

    def logits(self, ops: ArrayOps, weights: Sequence[Any], answers: Any, labels: Any) -> Any:
        """How sure it is that rows are members.

        Args:
            weights: As `start` gives them.
            answers: The model's logits [batch, classes].
            labels: Integers [batch].

        Returns:
            Logits [batch].
        """
        hot = ops.one_hot(labels, answers.shape[-1])
        hidden = ops.beside(ops.exp(ops.log_softmax(answers)), hot)
        *inner, kernel, bias = weights
        for k in range(0, len(inner), 2):
            hidden = ops.relu(ops.matmul(hidden, inner[k]) + inner[k + 1])
        return ops.sum(ops.matmul(hidden, kernel) + bias)

    def loss(self, ops: ArrayOps, members: Any, others: Any) -> Any:
        """Mean binary cross-entropy of its logits on members and on reference rows, half and half."""
        return 0.5 * (ops.mean(ops.softplus(-members)) + ops.mean(ops.softplus(others)))


def draw_others(members: int, others: int, rng: np.random.Generator) -> NDArray[np.int32]:
    """A reference row for each of an epoch's rows: all once, in random order, before any comes again."""
    rounds = -(-members // others)
    order = [rng.permutation(others) for _ in range(rounds)]
    return np.concatenate(order)[:members].astype(np.int32)
