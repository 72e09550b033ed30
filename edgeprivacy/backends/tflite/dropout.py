"""Dropout by 16 random bits a value."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from edgeprivacy.backends.tflite.frameworks import keras, tf

_LEVELS = 2**16
_RATE: ContextVar[float | None] = ContextVar("dropout_rate", default=None)


@contextlib.contextmanager
def dropping_out(rate: float | None) -> Iterator[None]:
    """The rate of those layers of `use_short_random_numbers` that drop anything, None for each its own;
    decided while a function is traced."""
    token = _RATE.set(rate)
    try:
        yield
    finally:
        _RATE.reset(token)


def use_short_random_numbers(model) -> int:
    """Let the model's Dropout layers draw 16 bits a value: half the cost of Keras' 32 and a comparison of
    floats. A rate becomes the nearest multiple of 1/65536, and what is kept is scaled by that.

    The numbers still come from each layer's own `tf.random.Generator`. Layers with a noise shape of their own
    and layers of other classes stay as they are.

    Returns:
        How many layers drop anything, and do so at the rate of `dropping_out`.
    """
    governed = 0
    for layer in model.submodules:
        if type(layer) is keras.layers.Dropout and layer.noise_shape is None:
            source = getattr(layer, "_random_generator", None)
            generator = getattr(source, "_generator", None)
            if source is not None and generator is not None:
                source.dropout = _dropout_from(generator)
                governed += layer.rate > 0
    return governed


def random_generators(model) -> Iterator:
    """The tf.random.Generator of every dropout-like layer, wrapped layers included."""
    seen = set()
    for layer in model.submodules:
        random = getattr(getattr(layer, "_random_generator", None), "_generator", None)
        if random is not None and id(random) not in seen:
            seen.add(id(random))
            yield random


def _dropout_from(generator):
    def dropout(x, rate, noise_shape=None):
        asked = _RATE.get()
        dropped = round((rate if asked is None else asked) * _LEVELS)
        if asked == 0:
            return tf.identity(x)
        if dropped == _LEVELS:
            return tf.zeros_like(x)
        count = tf.size(x)
        words = generator.uniform_full_int([(count + 1) // 2], dtype=tf.uint32)
        bits = tf.reshape(tf.reshape(tf.bitcast(words, tf.int16), [-1])[:count], tf.shape(x))
        kept = tf.cast(bits >= tf.constant(dropped - _LEVELS // 2, tf.int16), x.dtype)
        return x * (kept * (_LEVELS / (_LEVELS - dropped)))

    return dropout
