"""One-shot and polynomial pruning through tfmot."""

from __future__ import annotations

from collections.abc import Sequence

from edgeprivacy.backends.tflite.frameworks import keras, tfmot


def wrap_for_pruning(model, layers: Sequence[str], schedule: str, sparsity: float, end_step: int):
    """A copy of the model whose named layers prune themselves while they train; weights are shared by value.

    "one-shot" computes its mask in the first step and keeps it: tfmot shows the schedule step 1 first, never
    0, hence begin_step=1. "polynomial" rises from 0 to the sparsity until `end_step`.
    """
    if schedule == "one-shot":
        plan = tfmot.sparsity.keras.ConstantSparsity(sparsity, begin_step=1, end_step=-1, frequency=10**6)
    else:
        plan = tfmot.sparsity.keras.PolynomialDecay(0.0, sparsity, 0, end_step, frequency=1)

    def wrap(layer):
        copy = layer.__class__.from_config(layer.get_config())
        return tfmot.sparsity.keras.prune_low_magnitude(copy, plan) if layer.name in layers else copy

    wrapped = keras.models.clone_model(model, clone_function=wrap)
    for layer in model.layers:
        copy = next(candidate for candidate in wrapped.layers if candidate.name.endswith(layer.name))
        inner = getattr(copy, "layer", copy)
        inner.set_weights(layer.get_weights())
    return wrapped


def strip(wrapped):
    """The plain model with the pruned weights."""
    return tfmot.sparsity.keras.strip_pruning(wrapped)
