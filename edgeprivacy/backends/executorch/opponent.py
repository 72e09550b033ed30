"""The network that a defense trains the model against."""

from __future__ import annotations

import numpy as np

from edgeprivacy.backends.executorch.adam import FusedAdam
from edgeprivacy.backends.executorch.frameworks import DEVICE, torch
from edgeprivacy.backends.executorch.ops import TorchOps
from edgeprivacy.defenses import Batch
from edgeprivacy.defenses.inference_network import InferenceNetwork


class Opponent:
    """An `InferenceNetwork` at work.

    Args:
        declared: Its form.
        classes: Of the model.
        seed: Of what it starts from.
    """

    def __init__(self, declared: InferenceNetwork, classes: int, seed: int) -> None:
        self._declared, self._ops = declared, TorchOps()
        start = declared.start(classes, np.random.default_rng([seed, 2]))
        self._weights = [torch.from_numpy(value).to(DEVICE).requires_grad_() for value in start]
        self._adam = FusedAdam(self._weights, declared.learning_rate)

    def learn(self, answers: torch.Tensor, labels: torch.Tensor, others: Batch) -> None:
        """Its steps before a step of the model, which they leave alone."""
        inside, outside = answers.detach(), others.logits.detach()
        for _ in range(self._declared.steps):
            loss = self._declared.loss(
                self._ops, self.logits(inside, labels), self.logits(outside, others.labels)
            )
            self._adam.step(list(torch.autograd.grad(loss, self._weights)), 0.0)

    def logits(self, answers: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """How sure it is that rows are members."""
        found: torch.Tensor = self._declared.logits(self._ops, self._weights, answers, labels)
        return found
