"""The array operations that defenses are written against, in TensorFlow."""

from __future__ import annotations

from edgeprivacy.backends.tflite.frameworks import tf


class TensorFlowOps:
    """Implements `edgeprivacy.defenses.ArrayOps`."""

    def cross_entropy(self, logits, labels):
        """Per-row cross-entropy."""
        if labels.shape.rank == 2:
            each = tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(labels, logits.dtype), logits)
            return tf.reduce_mean(each, axis=-1)
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)

    def log_softmax(self, logits):
        """Logarithms of the probabilities."""
        return tf.nn.log_softmax(logits)

    def one_hot(self, labels, classes):
        """1 at the label and 0 elsewhere."""
        return tf.one_hot(labels, classes)

    def argmax(self, values):
        """Position of the largest of each row."""
        return tf.argmax(values, axis=-1)

    def sort_descending(self, values):
        """Each row sorted, the largest first."""
        return tf.sort(values, direction="DESCENDING")

    def halves(self, values):
        """The first and the second half of the rows."""
        half = tf.shape(values)[0] // 2
        return values[:half], values[half : 2 * half]

    def exp(self, values):
        """Exponential of each entry."""
        return tf.exp(values)

    def log(self, values):
        """Natural logarithm of each entry."""
        return tf.math.log(values)

    def relu(self, values):
        """Each entry, or 0 where it is negative."""
        return tf.nn.relu(values)

    def softplus(self, values):
        """log(1 + exp(v)) of each entry v."""
        return tf.math.softplus(values)

    def matmul(self, left, right):
        """Matrix product."""
        return tf.matmul(left, right)

    def transpose(self, values):
        """[m, n] of [n, m]."""
        return tf.transpose(values)

    def beside(self, left, right):
        """Both side by side along the last axis."""
        return tf.concat([left, tf.cast(right, left.dtype)], axis=-1)

    def constant(self, values):
        """The same, through which no gradient flows."""
        return tf.stop_gradient(values)

    def minimum(self, values, limit):
        """The smaller one of each entry and a number."""
        return tf.minimum(values, limit)

    def where(self, condition, then, otherwise):
        """Entries of the one or the other."""
        return tf.where(condition, then, otherwise)

    def sum(self, values):
        """Sum over the last axis."""
        return tf.reduce_sum(values, axis=-1)

    def mean(self, values):
        """Mean over all entries."""
        return tf.reduce_mean(values)

    def mean_or_zero(self, values):
        """Mean over all entries, 0 where there are none."""
        return tf.reduce_sum(values) / tf.cast(tf.maximum(tf.size(values), 1), values.dtype)


def two_class(logits):
    """Logits [batch, classes]; a single logit z (sigmoid output) becomes the pair (0, z)."""
    return tf.concat([tf.zeros_like(logits), logits], axis=-1) if logits.shape[-1] == 1 else logits


def two_class_probabilities(probabilities):
    """Probabilities [batch, classes]; a single probability p becomes the pair (1 - p, p)."""
    if probabilities.shape[-1] == 1:
        return tf.concat([1.0 - probabilities, probabilities], axis=-1)
    return probabilities
