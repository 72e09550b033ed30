"""Quantization-aware training through tfmot, by the scheme that preserves what came before it.

Plain QAT destroys a pruned model's zeros (stack: 60 % down to 7-10 %), so pruned models use the
prune-preserving scheme and clustered ones the cluster-preserving scheme.
"""

from __future__ import annotations

from tensorflow_model_optimization.python.core.quantization.keras.collab_opts.cluster_preserve import (
    default_8bit_cluster_preserve_quantize_scheme as cluster_preserve,
)
from tensorflow_model_optimization.python.core.quantization.keras.collab_opts.prune_preserve import (
    default_8bit_prune_preserve_quantize_scheme as prune_preserve,
)
from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
    default_8bit_quantize_configs,
    default_8bit_quantize_registry,
    default_8bit_quantize_scheme,
)

from edgeprivacy.backends.tflite.frameworks import keras, tfmot
from edgeprivacy.errors import ModelError


def quantization_aware(model, pruned: bool, clustered: bool):
    """A copy of the model with fake quantizers, holding the same weights.

    Raises:
        ModelError: A layer that tfmot cannot quantize.
    """
    if clustered:
        scheme = cluster_preserve.Default8BitClusterPreserveQuantizeScheme(preserve_sparsity=pruned)
    elif pruned:
        scheme = prune_preserve.Default8BitPrunePreserveQuantizeScheme()
    else:
        scheme = default_8bit_quantize_scheme.Default8BitQuantizeScheme()
    registry = default_8bit_quantize_registry.Default8BitQuantizeRegistry()

    def annotate(layer):
        if isinstance(layer, keras.layers.InputLayer):
            return layer
        if isinstance(layer, keras.layers.Rescaling):
            # Not in tfmot's registry: without weights, only its output needs a range.
            config = default_8bit_quantize_configs.Default8BitOutputQuantizeConfig()
            return tfmot.quantization.keras.quantize_annotate_layer(layer, config)
        if not (registry.supports(layer) or isinstance(layer, keras.layers.BatchNormalization)):
            raise ModelError(
                f"layer '{layer.name}' ({type(layer).__name__}) has no quantization-aware form in tfmot",
                hint="leave the format qat-int8 out; int8 (post-training) may still work",
            )
        return tfmot.quantization.keras.quantize_annotate_layer(layer)

    # tfmot names its layers by a count over the whole process, and the names stand in the file.
    keras.backend.reset_uids()
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    annotated = keras.models.clone_model(copy, clone_function=annotate)
    with keras.utils.custom_object_scope(
        {"Default8BitOutputQuantizeConfig": default_8bit_quantize_configs.Default8BitOutputQuantizeConfig}
    ):
        return tfmot.quantization.keras.quantize_apply(annotated, scheme)


def depthwise_filters(model) -> list:
    """The trained filters of a quantization-aware model's depthwise convolutions, whose zeros no scheme of
    tfmot preserves."""
    return [
        variable
        for layer in model.layers
        if isinstance(getattr(layer, "layer", None), keras.layers.DepthwiseConv2D)
        for variable in layer.trainable_variables
        if "depthwise_kernel" in variable.name
    ]
