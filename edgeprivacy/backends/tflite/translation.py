"""Keras 3 models as tf_keras models, compared output by output; tfmot takes no others."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeprivacy.backends.tflite.frameworks import keras
from edgeprivacy.errors import ModelError

_DROPPED_KEYS = ("module", "registered_name", "build_config", "input_axes", "output_axes")
_TOLERANCE = 1e-5


def translate_keras3(model: Any):
    """A tf_keras model with the structure and weights of a Keras 3 model.

    Raises:
        ModelError: The model is subclassed, has custom layers, or answers differently after translation.
    """
    try:
        translated = _functional(model)
        translated.set_weights(model.get_weights())
    except Exception as error:
        raise ModelError(
            f"the Keras 3 model '{model.name}' cannot be translated to tf_keras, which tfmot needs",
            got=(str(error) or type(error).__name__).splitlines()[0][:200],
            hint="give a factory with a parameter `keras`: def build(keras): ... returning the model",
        ) from None
    shape = [dimension or 1 for dimension in model.inputs[0].shape[1:]]
    probe = np.random.default_rng(0).normal(size=(8, *shape)).astype(np.float32)
    difference = float(np.abs(np.asarray(model(probe)) - np.asarray(translated(probe))).max())
    if not difference <= _TOLERANCE:
        raise ModelError(
            f"the Keras 3 model '{model.name}' answers differently as a tf_keras model",
            got=f"outputs differ by {difference:.2g}",
            hint="give a factory with a parameter `keras`: def build(keras): ... returning the model",
        )
    return translated


def _functional(model: Any):
    import keras as keras3

    if isinstance(model, keras3.Sequential):
        # A Sequential's configuration has no graph; its layers in a row are the same function.
        x = inputs = model.inputs[0]
        for layer in model.layers:
            x = layer(x)
        model = keras3.Model(inputs, x, name=model.name)
    if type(model).__name__ != "Functional":
        raise TypeError("it is a subclassed model")
    config = _rewrite(model.get_config())
    for layer in config["layers"]:
        settings = layer["config"]
        for key in ("optional", "quantization_config"):
            settings.pop(key, None)
        if "batch_shape" in settings:
            settings["batch_input_shape"] = settings.pop("batch_shape")
        layer["inbound_nodes"] = [_inbound(node) for node in layer["inbound_nodes"]]
    for key in ("input_layers", "output_layers"):
        if config[key] and not isinstance(config[key][0], list):
            config[key] = [config[key]]
    return keras.Model.from_config(config)


def _inbound(node: Any) -> list[Any]:
    first = node["args"][0] if node["args"] else []
    tensors = node["args"] if first and first[0] == "__tensor__" else first
    return [[tensor[1], tensor[2], tensor[3], {}] for tensor in tensors]


def _rewrite(node: Any) -> Any:
    """Keras 3 configuration to the older form, recursively."""
    if isinstance(node, dict):
        if node.get("class_name") == "__keras_tensor__":
            return ["__tensor__", *node["config"]["keras_history"]]
        if node.get("class_name") == "DTypePolicy":
            return node["config"]["name"]
        return {key: _rewrite(value) for key, value in node.items() if key not in _DROPPED_KEYS}
    return [_rewrite(entry) for entry in node] if isinstance(node, list | tuple) else node
