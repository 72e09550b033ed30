"""Networks: the built-in ones, the user's factories and files, all as tf_keras models that end in a separate
softmax (or sigmoid) layer whose input are the logits."""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgeprivacy.backends.tflite.built_in import BUILT_IN
from edgeprivacy.backends.tflite.frameworks import keras
from edgeprivacy.backends.tflite.translation import translate_keras3
from edgeprivacy.data.factories import call_factory, load_factory, parameters
from edgeprivacy.errors import EdgePrivacyError, ModelError
from edgeprivacy.recipe_sections import ModelSection

Builder = Callable[[], "keras.Model"]
WEIGHTED = (keras.layers.Dense, keras.layers.Conv2D, keras.layers.DepthwiseConv2D)


def builder(
    section: ModelSection,
    classes: int,
    input_shape: tuple[int, ...],
    scale: float,
    label_sets: bool = False,
) -> Builder:
    """A function that builds the network with fresh initial weights each time it is called; with `label_sets`
    one that ends in a sigmoid for each of `classes` independent labels.

    Raises:
        ModelError: The factory or file cannot be used, or its shapes do not fit the data.
    """
    source = section.source
    if source == "auto":
        source = "mlp" if len(input_shape) == 1 else "resnet"
    if source in BUILT_IN:
        if source != "mlp" and len(input_shape) != 3:
            raise ModelError(
                f"the built-in '{source}' takes images [height, width, channels]",
                got=f"rows of shape {input_shape}",
            )

        def built_in():
            model = BUILT_IN[source](input_shape, classes, scale, section.dropout)
            return _of_independent_labels(model) if label_sets else model

        return built_in
    if ":" in source and not Path(source).exists():
        factory = load_factory(source, "model", error=ModelError)
        return lambda: prepare(
            _call(factory, source, classes, input_shape), source, classes, input_shape, label_sets
        )
    model = prepare(load_file(Path(source)), source, classes, input_shape, label_sets)

    def fresh():
        copy = keras.models.clone_model(model)
        return copy

    return fresh


def file_weights(path: Path, network: Builder) -> list[np.ndarray]:
    """Weights of a trained model file, in the order of the built network.

    Raises:
        ModelError: The file cannot be read or holds other shapes.
    """
    model = network()
    if path.name.endswith((".weights.h5", ".h5")) and not _is_whole_model(path):
        try:
            model.load_weights(str(path))
        except Exception as error:
            raise ModelError(f"weights {path} do not fit the model", got=_line(error)) from None
        return model.get_weights()
    trained = with_separate_head(load_file(path), str(path), several_sigmoids(model))
    weights = trained.get_weights()
    shapes, wanted = [w.shape for w in weights], [w.shape for w in model.get_weights()]
    if shapes != wanted:
        raise ModelError(f"weights {path} do not fit the model", got=str(shapes), allowed=str(wanted))
    return weights


def load_file(path: Path):
    """A tf_keras model from .keras, .h5 or a SavedModel of tf_keras, or from a Keras 3 file, translated.

    Raises:
        ModelError: Missing, damaged, holding code (Lambda layers), or not translatable.
    """
    if not path.exists():
        raise ModelError(f"model {path} does not exist", allowed="FILE.keras, FILE.h5, or FILE.py:FUNCTION")
    _refuse_code(path)
    try:
        return keras.models.load_model(str(path), compile=False)
    except Exception as first:
        try:
            import keras as keras3

            return translate_keras3(keras3.models.load_model(str(path), compile=False))
        except EdgePrivacyError:
            raise
        except Exception as second:
            raise ModelError(
                f"model {path} cannot be loaded",
                got=f"tf_keras: {_line(first)}; keras 3: {_line(second)}",
                hint="give a factory instead: --model FILE.py:FUNCTION with --weights",
            ) from None


def _is_whole_model(path: Path) -> bool:
    return _h5_config(path) is not None


def _h5_config(path: Path) -> str | None:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            config = file.attrs.get("model_config")
    except OSError as error:
        raise ModelError(f"model {path} is not a readable HDF5 file", got=_line(error)) from None
    return config.decode() if isinstance(config, bytes) else config


def _configurations(path: Path) -> list[str]:
    """The JSON texts that describe a model file's layers, whatever the file is called."""
    import h5py
    from google.protobuf.message import DecodeError
    from tf_keras.protobuf import saved_metadata_pb2

    if path.is_dir():
        metadata = saved_metadata_pb2.SavedMetadata()
        with contextlib.suppress(OSError, DecodeError):
            metadata.ParseFromString((path / "keras_metadata.pb").read_bytes())
        return [node.metadata for node in metadata.nodes]
    if zipfile.is_zipfile(path):
        with contextlib.suppress(zipfile.BadZipFile, KeyError), zipfile.ZipFile(path) as archive:
            return [archive.read("config.json").decode(errors="replace")]
    if path.suffix == ".h5" or h5py.is_hdf5(path):
        return [_h5_config(path) or ""]
    return []


def _refuse_code(path: Path) -> None:
    """Model files are hostile input: a Lambda layer carries code that loading would run."""
    texts = _configurations(path)

    def lambdas(node) -> bool:
        if isinstance(node, dict):
            return node.get("class_name") == "Lambda" or any(map(lambdas, node.values()))
        return isinstance(node, list) and any(map(lambdas, node))

    try:
        holds_code = any(lambdas(json.loads(text)) for text in texts if text)
    except (ValueError, RecursionError):
        raise ModelError(f"model {path} is damaged") from None
    if holds_code:
        raise ModelError(
            f"model {path} holds a Lambda layer, that is, code that loading would run",
            hint="give a factory instead: --model FILE.py:FUNCTION with --weights",
        )


def _call(factory, source: str, classes: int, input_shape: tuple[int, ...]):
    offered = {"keras": keras, "classes": classes, "input_shape": input_shape}
    wanted = {name: value for name, value in offered.items() if name in parameters(factory)}
    return call_factory(factory, source, "model", error=ModelError, **wanted)


def prepare(model, source: str, classes: int, input_shape: tuple[int, ...], label_sets: bool = False):
    """A user's model as this backend needs it: tf_keras, the data's shapes, softmax (of independent labels:
    sigmoids) as its own layer."""
    if not isinstance(model, keras.Model):
        if any(parent.__module__.split(".")[0] == "keras" for parent in type(model).__mro__):
            model = translate_keras3(model)
        else:
            raise ModelError(
                f"model {source} is no Keras model",
                got=type(model).__name__,
                hint="return a tf_keras or Keras 3 model; a factory parameter `keras` is given tf_keras",
            )
    if model.inputs is None:
        raise ModelError(
            f"model {source} has no inputs yet: it is subclassed, or not told its input shape",
            hint="build it with keras.Input(input_shape) and keras.Model(inputs, outputs)",
        )
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ModelError(
            f"model {source} must have one input and one output",
            got=f"{len(model.inputs)} inputs, {len(model.outputs)} outputs",
        )
    takes = tuple(model.inputs[0].shape[1:])
    if takes != tuple(input_shape):
        raise ModelError(
            f"model {source} takes rows of another shape", got=f"data {input_shape}", allowed=str(takes)
        )
    gives = model.outputs[0].shape[-1]
    if gives != classes and not (gives == 1 and classes == 2 and not label_sets):
        raise ModelError(
            f"model {source} has another number of {'labels' if label_sets else 'classes'}",
            got=f"{gives} outputs",
            allowed=f"{classes} {'labels' if label_sets else 'classes'}",
        )
    return with_separate_head(model, source, label_sets)


def several_sigmoids(model) -> bool:
    """Whether a model with a separate head answers independent labels."""
    activation = getattr(getattr(model.layers[-1], "activation", None), "__name__", None)
    return activation == "sigmoid" and model.outputs[0].shape[-1] > 1


def _of_independent_labels(model):
    """A built-in network with sigmoids in the place of its softmax."""
    sigmoids = keras.layers.Activation("sigmoid", name="probabilities")(model.layers[-1].input)
    return keras.Model(model.inputs, sigmoids)


def with_separate_head(model, source: str, label_sets: bool = False):
    """The same model with its softmax or sigmoid as a layer of its own.

    Raises:
        ModelError: The model does not end in a softmax, or in a sigmoid with one unit; with `label_sets`
            not in sigmoids.
    """
    last = model.layers[-1]
    units = model.outputs[0].shape[-1]
    activation = getattr(getattr(last, "activation", None), "__name__", None)
    head = "softmax" if isinstance(last, keras.layers.Softmax) else activation
    if label_sets and head != "sigmoid":
        raise ModelError(
            f"model {source} must end in one sigmoid unit a label: rows have several independent labels",
            got=f"{type(last).__name__} with activation {head}",
            hint="let its last layer be keras.layers.Dense(labels, activation='sigmoid')",
        )
    if head not in ("softmax", "sigmoid") or (head == "sigmoid" and units != 1 and not label_sets):
        raise ModelError(
            f"model {source} must end in a softmax, or in one sigmoid unit",
            got=f"{type(last).__name__} with activation {activation}",
            hint="add keras.layers.Softmax() as the last layer",
        )
    if isinstance(last, keras.layers.Softmax | keras.layers.Activation):
        return model

    def clone(layer):
        config = layer.get_config()
        if layer is last:
            config["activation"] = "linear"
        return layer.__class__.from_config(config)

    body = keras.models.clone_model(model, clone_function=clone)
    own = keras.layers.Softmax() if head == "softmax" else keras.layers.Activation("sigmoid")
    separate = keras.Model(body.inputs, own(body.outputs[0]))
    separate.set_weights(model.get_weights())
    return separate


def weighted_layers(model) -> list:
    """Dense and convolution layers, in order of the graph."""
    return [layer for layer in model.layers if isinstance(layer, WEIGHTED)]


def kernel(layer):
    """The weight matrix or filter variable of a weighted layer."""
    return layer.depthwise_kernel if isinstance(layer, keras.layers.DepthwiseConv2D) else layer.kernel


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
