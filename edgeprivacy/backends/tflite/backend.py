"""The TF-Lite backend: trains an original, compresses it under a defense, converts what came out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edgeprivacy.backends.base import Compressed, Material, Weights
from edgeprivacy.backends.layers import ITERATIVE, Layer, pruned_layers
from edgeprivacy.backends.own_training import train_by_function
from edgeprivacy.backends.tflite import clustering, pruning
from edgeprivacy.backends.tflite.frameworks import keras
from edgeprivacy.backends.tflite.models import WEIGHTED, builder, file_weights, kernel, weighted_layers
from edgeprivacy.backends.tflite.network import CompiledNetwork
from edgeprivacy.backends.tflite.qat import depthwise_filters, quantization_aware
from edgeprivacy.backends.training import TrainingSession
from edgeprivacy.backends.work import Work, bind
from edgeprivacy.converters import ArtifactFacts
from edgeprivacy.converters.tflite.convert import convert
from edgeprivacy.defenses import Defense, TrainingRows
from edgeprivacy.errors import ModelError
from edgeprivacy.recipe import Recipe
from edgeprivacy.seeding import derive_seed


class TFLiteBackend:
    """Keras models to .tflite."""

    name: ClassVar[str] = "tflite"

    def open(
        self, recipe: Recipe, classes: int, input_shape: tuple[int, ...], label_sets: bool = False
    ) -> TFLiteSession:
        """See `Backend.open`."""
        return TFLiteSession(recipe, classes, input_shape, label_sets)


class TFLiteSession(TrainingSession):
    """One network, compiled once, for all releases of a recipe in this process."""

    def __init__(
        self, recipe: Recipe, classes: int, input_shape: tuple[int, ...], label_sets: bool = False
    ) -> None:
        self._label_sets, self._input_shape = label_sets, input_shape
        # Keras numbers its layers over the whole process, and their names stand in the files.
        keras.backend.reset_uids()
        scale = recipe.input_scale(input_shape)
        self._build = builder(recipe.model, classes, input_shape, scale, label_sets)
        self._model = self._build()
        layers = [Layer(layer.name, _kind(layer)) for layer in weighted_layers(self._model)]
        pruned = [kernel(self._model.get_layer(name)) for name in pruned_layers(layers, recipe)]
        super().__init__(recipe, layers, CompiledNetwork(self._model, recipe.training, pruned, label_sets))
        self._quantized: tuple[Weights, Any] | None = None

    def check(self) -> None:
        """See `Session.check`."""
        if self.recipe.model.weights is not None:
            self.load_weights(Path(self.recipe.model.weights))
        if any(format.startswith("qat") for format in self.recipe.formats_of("tflite")):
            quantization_aware(self._model, self.recipe.prunes, bool(self._clustered))
        self.check_private_steps(self._input_shape)
        self.check_dropout()

    def load_weights(self, path: Path) -> Weights:
        """See `Session.load_weights`."""
        return file_weights(path, self._build)

    def initial_weights(self, seed: int) -> Weights:
        """See `Session.initial_weights`."""
        keras.utils.set_random_seed(seed % 2**32)
        return self._build().get_weights()

    def predict(self, weights: Weights, x: np.ndarray) -> np.ndarray:
        """See `Session.predict`."""
        self._model.set_weights(weights)
        return self._network.predict(x)

    def compress(
        self, original: Weights, material: Material, defense: Defense, rows: TrainingRows, seed: int
    ) -> Compressed:
        """See `Session.compress`."""
        weights, work = self._rewind_first(original, Work(material, defense, rows, seed))
        if self.recipe.prunes or self.recipe.finetunes:
            iterative = self.recipe.prune.schedule in ITERATIVE
            prune = self._prune_iteratively if iterative else self._prune_tfmot
            weights = (self._prune_by_admm if defense.admm() else prune)(weights, work)
        weights = self._round(self._rewind(weights, work), work)
        if self._clustered:
            weights = self._cluster(weights, replace(work, defense=self._later(defense)))
        return Compressed(weights, self._request(defense), history=tuple(work.history))

    def quantize_aware(
        self, compressed: Compressed, material: Material, defense: Defense, rows: TrainingRows, seed: int
    ) -> Compressed:
        """See `Session.quantize_aware`."""
        work = Work(material, self._later(defense), rows, seed)
        # Built anew: the one at hand may be trained already, for another arm with the same weights.
        self._quantized = None
        model = self._quantized_model(compressed.weights)
        unpreserved = depthwise_filters(model) if self.recipe.prunes else []
        network = CompiledNetwork(model, self.recipe.training, unpreserved, self._label_sets)
        bind(network, material)
        network.load(None, derive_seed(seed, "dropout", "qat"))
        network.hold_zeros()
        result = self._fit(network, work, self.recipe.quantize.qat_epochs, "qat")
        return replace(
            compressed, quantized=result.best, history=(*compressed.history, result.summary("qat"))
        )

    def convert(
        self, compressed: Compressed, format: str, calibration: np.ndarray, path: Path, probe: np.ndarray
    ) -> tuple[ArtifactFacts, np.ndarray]:
        """See `Session.convert`."""
        request = replace(compressed.request, format=format)
        self._model.set_weights(compressed.weights)
        if not format.startswith("qat"):
            facts = convert(self._model, format, calibration, path, request)
            return facts, self._network.predict(probe)
        assert compressed.quantized is not None
        model = self._quantized_model(compressed.weights)
        model.set_weights(compressed.quantized)
        facts = convert(model, format, calibration, path, request)
        return facts, CompiledNetwork(model, self.recipe.training).predict(probe)

    def _train_by_function(self, function: str, material: Material, seed: int) -> Weights:
        keras.utils.set_random_seed(derive_seed(seed, "initial weights") % 2**32)
        model = self._build()
        trained = train_by_function(function, model, material, self.recipe.training.epochs, seed)
        built = isinstance(trained, keras.Model) and trained.built
        weights = trained.get_weights() if built else []
        expected = [tuple(weight.shape) for weight in self._model.get_weights()]
        if [weight.shape for weight in weights] != expected:
            raise ModelError(
                f"the training function {function} did not return the network it was given",
                got=type(trained).__name__,
                allowed="the tf_keras model it was called with, trained, or None",
            )
        return weights

    def _kernels(self) -> dict[str, tuple[int, int]]:
        positions = {v.ref(): k for k, v in enumerate(self._model.trainable_variables)}
        found = {}
        for layer in self._layers:
            position = positions.get(kernel(self._model.get_layer(layer.name)).ref())
            if position is not None:
                # A depthwise kernel has its channels before how many it makes of each, mostly one.
                found[layer.name] = (
                    position,
                    2 if layer.kind == "depthwise" else 3 - 2 * (layer.kind == "dense"),
                )
        return found

    def _set_masks(self, masks: Sequence[np.ndarray]) -> None:
        self._network.set_masks(masks)

    def _pruned_kernels(self) -> Weights:
        return [kernel(self._model.get_layer(name)).numpy() for name in self._pruned]

    def _pull(self, targets: Weights, strength: float) -> None:
        self._network.pull(targets, strength)

    def _hold_zeros(self) -> None:
        if self._pruned:
            self._network.hold_zeros()

    def _prune_tfmot(self, weights: Weights, work: Work) -> Weights:
        """One-shot, or polynomial: epochs that are still short of the sparsity ship nothing."""
        settings = self.recipe.prune
        end, first = self._polynomial_end(work)
        self._model.set_weights(weights)
        wrapped = pruning.wrap_for_pruning(
            self._model, self._pruned, settings.schedule, settings.sparsity, end
        )
        network = CompiledNetwork(wrapped, self.recipe.training, label_sets=self._label_sets)
        bind(network, work.material)
        network.load(None, derive_seed(work.seed, "dropout", settings.schedule))
        first = 0 if settings.schedule == "one-shot" else first
        result = self._fit(network, work, settings.finetune_epochs, settings.schedule, first)
        work.history.append({**result.summary(settings.schedule), "sparsity": settings.sparsity})
        wrapped.set_weights(result.best)
        return self._plain_weights(pruning.strip(wrapped))

    def _cluster(self, weights: Weights, work: Work) -> Weights:
        keras.utils.set_random_seed(derive_seed(work.seed, "centroids") % 2**32)
        self._model.set_weights(weights)
        wrapped = clustering.wrap_for_clustering(
            self._model, self._clustered, self.recipe.cluster.clusters, self.recipe.prunes
        )
        unpreserved = [
            kernel(wrapped.get_layer(name)) for name in self._pruned if name not in self._clustered
        ]
        network = CompiledNetwork(wrapped, self.recipe.training, unpreserved, self._label_sets)
        bind(network, work.material)
        network.load(None, derive_seed(work.seed, "dropout", "cluster"))
        network.hold_zeros()
        result = self._fit(network, work, self.recipe.cluster.epochs, "cluster")
        work.history.append(result.summary("cluster"))
        wrapped.set_weights(result.best)
        return self._plain_weights(clustering.strip(wrapped))

    def _quantized_model(self, weights: Weights):
        """The quantization-aware model of these weights; its masks and centroids depend on them."""
        if self._quantized is None or not all(map(np.array_equal, self._quantized[0], weights)):
            self._model.set_weights(weights)
            model = quantization_aware(self._model, self.recipe.prunes, bool(self._clustered))
            self._quantized = weights, model
        return self._quantized[1]

    def _plain_weights(self, stripped) -> Weights:
        """Weights of a stripped model in the order of the plain one."""
        for layer in stripped.layers:
            self._model.get_layer(layer.name).set_weights(layer.get_weights())
        return self._model.get_weights()


def _kind(layer) -> str:
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return "depthwise"
    return "dense" if isinstance(layer, WEIGHTED[0]) else "convolution"
