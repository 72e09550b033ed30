"""The network that a defense trains the model against."""

from __future__ import annotations

import numpy as np

from edgeprivacy.backends.tflite.adam import FusedAdam
from edgeprivacy.backends.tflite.frameworks import tf
from edgeprivacy.backends.tflite.ops import TensorFlowOps
from edgeprivacy.defenses import Batch
from edgeprivacy.defenses.inference_network import InferenceNetwork


class Opponent:
    """An `InferenceNetwork` at work, inside a compiled epoch.

    Args:
        declared: Its form.
        classes: Of the model.
        seed: Of what it starts from.
    """

    def __init__(self, declared: InferenceNetwork, classes: int, seed: int) -> None:
        self._declared, self._classes, self._ops = declared, classes, TensorFlowOps()
        start = declared.start(classes, np.random.default_rng([seed, 2]))
        self._weights = [tf.Variable(value, trainable=False) for value in start]
        self._adam = FusedAdam(self._weights, declared.learning_rate)

    def restart(self, seed: int) -> None:
        """Forget everything."""
        start = self._declared.start(self._classes, np.random.default_rng([seed, 2]))
        for variable, value in zip(self._weights, start, strict=True):
            variable.assign(value)
        self._adam.reset()

    def learn(self, answers, labels, others: Batch) -> None:
        """Its steps before a step of the model, which they leave alone."""
        inside, outside = tf.stop_gradient(answers), tf.stop_gradient(others.logits)
        for _ in range(self._declared.steps):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(self._weights)
                found = self.logits(inside, labels), self.logits(outside, others.labels)
                loss = self._declared.loss(self._ops, *found)
            self._adam.apply(tape.gradient(loss, self._weights), tf.constant(0.0))

    def logits(self, answers, labels):
        """How sure it is that rows are members."""
        # What it is by now, not what it was when the model's step began.
        weights = [tf.identity(variable) for variable in self._weights]
        return self._declared.logits(self._ops, weights, answers, labels)
