"""Adam as one kernel a variable, inside a compiled step."""

from __future__ import annotations

from collections.abc import Sequence

from edgeprivacy.backends.tflite.frameworks import tf

BETA_1, BETA_2 = 0.9, 0.999
# As in torch.optim.Adam, which the reference implementations use.
EPSILON = 1e-8


class FusedAdam:
    """Adam with coupled L2 and moments of its own (Kingma & Ba 2015, the form at the end of section 2).

    The same update as `keras.optimizers.Adam`, whose dozen operations a variable cost a fifth of a step of a
    small network.

    Args:
        variables: What `apply` updates.
        learning_rate: Step size.
    """

    def __init__(self, variables: Sequence, learning_rate: float) -> None:
        self._variables, self._learning_rate = list(variables), learning_rate
        self._first = [tf.Variable(tf.zeros_like(variable), trainable=False) for variable in variables]
        self._second = [tf.Variable(tf.zeros_like(variable), trainable=False) for variable in variables]
        self._step = tf.Variable(0.0, trainable=False)

    def reset(self) -> None:
        """Forget all steps."""
        for variable in (*self._first, *self._second, self._step):
            variable.assign(tf.zeros_like(variable))

    def apply(self, gradients: Sequence, weight_decay) -> None:
        """Update the variables; those without a gradient stay."""
        step = self._step.assign_add(1.0)
        for variable, first, second, gradient in zip(
            self._variables, self._first, self._second, gradients, strict=True
        ):
            if gradient is None:
                continue
            kind = variable.dtype
            decay = tf.cast(weight_decay, kind)
            beta_1, beta_2 = tf.constant(BETA_1, kind), tf.constant(BETA_2, kind)
            steps = tf.cast(step, kind)
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=first.handle,
                v=second.handle,
                beta1_power=tf.pow(beta_1, steps),
                beta2_power=tf.pow(beta_2, steps),
                lr=tf.constant(self._learning_rate, kind),
                beta1=beta_1,
                beta2=beta_2,
                epsilon=tf.constant(EPSILON, kind),
                grad=tf.convert_to_tensor(gradient) + decay * variable,
            )
