"""The array operations that defenses are written against, in TensorFlow."""

from __future__ import annotations

from edgeprivacy.backends.tflite.frameworks import tf


class TensorFlowOps:
    """Implements `edgeprivacy.defenses.ArrayOps`."""

    def cross_entropy(self, logits, labels):
        """Per-row cross-entropy."""
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)

    def mean(self, values):
        """Mean over all entries."""
        return tf.reduce_mean(values)


def two_class(logits):
    """Logits [batch, classes]; a single logit z (sigmoid output) becomes the pair (0, z)."""
    return tf.concat([tf.zeros_like(logits), logits], axis=-1) if logits.shape[-1] == 1 else logits


def two_class_probabilities(probabilities):
    """Probabilities [batch, classes]; a single probability p becomes the pair (1 - p, p)."""
    if probabilities.shape[-1] == 1:
        return tf.concat([1.0 - probabilities, probabilities], axis=-1)
    return probabilities
