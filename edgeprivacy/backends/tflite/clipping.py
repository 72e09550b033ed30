"""The sum of rows' clipped gradients, for steps that hide what a single row adds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgeprivacy.backends.tflite.frameworks import keras, tf

_TINY = 1e-12
_PLAIN = (keras.layers.InputLayer, keras.layers.Rescaling, keras.layers.Flatten, keras.layers.ReLU)


def clipped_one_by_one(loss: Callable, variables: Sequence, rows, clip: float) -> list:
    """Sum over rows of g * min(1, clip / |g|), each row's gradient for itself.

    Args:
        loss: Row (a scalar tensor) to its own loss.
        rows: Their number, a scalar tensor.
    """
    totals = [tf.zeros_like(variable) for variable in variables]
    for row in tf.range(rows):
        with tf.GradientTape() as tape:
            value = loss(row)
        found = tape.gradient(value, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        gradients = [tf.convert_to_tensor(gradient) for gradient in found]
        scale = _scale(tf.add_n([tf.reduce_sum(tf.square(gradient)) for gradient in gradients]), clip)
        totals = [total + scale * gradient for total, gradient in zip(totals, gradients, strict=True)]
    return totals


class DenseClipping:
    """The same sum for chains of dense layers, without a gradient of any row: that of a layer is the outer
    product of what went in and of the gradient of what came out, so its norm is the product of theirs
    (Goodfellow, "Efficient per-example gradient computations", 2015).

    Args:
        model: Rows to logits.
        variables: What is trained, in the order of the sum.
    """

    def __init__(self, model, variables: Sequence) -> None:
        self._layers, self._variables = list(model.layers), list(variables)
        dense = [layer for layer in self._layers if type(layer) is keras.layers.Dense]
        owned = [variable.ref() for layer in dense for variable in layer.trainable_variables]
        self.fits = _is_chain(model) and sorted(map(id, _handles(owned))) == sorted(
            map(id, _handles([variable.ref() for variable in variables]))
        )

    def clipped(self, loss: Callable, x, clip: float) -> list:
        """The sum over one batch.

        Args:
            loss: Logits [batch, ...] to the mean of the rows' own losses.
            x: float32 [batch, ...].
        """
        with tf.GradientTape() as tape:
            logits, taps = self._answer(x)
            value = loss(logits) * tf.cast(tf.shape(x)[0], tf.float32)
        backs = tape.gradient(value, [outputs for _, _, outputs in taps])
        squares = tf.add_n(
            [
                tf.reduce_sum(tf.square(back), 1)
                * (tf.reduce_sum(tf.square(inputs), 1) + float(layer.use_bias))
                for (layer, inputs, _), back in zip(taps, backs, strict=True)
            ]
        )
        scale = _scale(squares, clip)[:, tf.newaxis]
        sums = {}
        for (layer, inputs, _), back in zip(taps, backs, strict=True):
            scaled = scale * back
            sums[layer.kernel.ref()] = tf.matmul(inputs, scaled, transpose_a=True)
            if layer.use_bias:
                sums[layer.bias.ref()] = tf.reduce_sum(scaled, 0)
        return [sums[variable.ref()] for variable in self._variables]

    def _answer(self, x):
        """Logits, and of each dense layer: itself, what goes in, what comes out before its activation."""
        taps = []
        for layer in self._layers[1:]:
            if type(layer) is keras.layers.Dense:
                outputs = tf.matmul(x, layer.kernel)
                outputs = tf.nn.bias_add(outputs, layer.bias) if layer.use_bias else outputs
                taps.append((layer, x, outputs))
                x = layer.activation(outputs)
            elif type(layer) is not keras.layers.Dropout:
                x = layer(x)
        return x, taps


def _scale(squares, clip: float):
    return tf.minimum(1.0, clip / (tf.sqrt(squares) + _TINY))


def _handles(references) -> list:
    return [reference.deref() for reference in references]


def _is_chain(model) -> bool:
    """Whether the layers stand one behind the other, on rows that are vectors wherever one is dense."""
    allowed = (*_PLAIN, keras.layers.Dense, keras.layers.Dropout, keras.layers.Activation)
    if not all(type(layer) in allowed for layer in model.layers):
        return False
    for before, layer in zip(model.layers, model.layers[1:], strict=False):
        if len(layer.inbound_nodes) < 1 or layer.get_input_at(0) is not before.get_output_at(0):
            return False
        if type(layer) is keras.layers.Dense and len(layer.get_input_at(0).shape) != 2:
            return False
    return bool(model.outputs[0] is model.layers[-1].get_output_at(0))
