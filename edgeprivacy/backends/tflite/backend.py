"""The TF-Lite backend: trains an original, compresses it under a defense, converts what came out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edgeprivacy.backends.base import Compressed, Material, Weights
from edgeprivacy.backends.fitting import Fit, fit
from edgeprivacy.backends.own_training import train_by_function
from edgeprivacy.backends.tflite import clustering, pruning
from edgeprivacy.backends.tflite.frameworks import keras
from edgeprivacy.backends.tflite.models import WEIGHTED, builder, file_weights, kernel, weighted_layers
from edgeprivacy.backends.tflite.network import CompiledNetwork
from edgeprivacy.backends.tflite.qat import depthwise_filters, quantization_aware
from edgeprivacy.compression.magnitude import iterative_sparsity, magnitude_masks
from edgeprivacy.converters import ArtifactFacts, Request
from edgeprivacy.converters.tflite.convert import convert
from edgeprivacy.data.dataset import Dataset
from edgeprivacy.defenses import Defense, TrainingRows, make_defense
from edgeprivacy.errors import ModelError, RecipeError
from edgeprivacy.recipe import Recipe
from edgeprivacy.seeding import derive_seed, generator


class TFLiteBackend:
    """Keras models to .tflite."""

    name: ClassVar[str] = "tflite"

    def open(self, recipe: Recipe, classes: int, input_shape: tuple[int, ...]) -> TFLiteSession:
        """See `Backend.open`."""
        return TFLiteSession(recipe, classes, input_shape)


class TFLiteSession:
    """One network, compiled once, for all releases of a recipe in this process."""

    def __init__(self, recipe: Recipe, classes: int, input_shape: tuple[int, ...]) -> None:
        self.recipe = recipe
        # Keras numbers its layers over the whole process, and their names stand in the files.
        keras.backend.reset_uids()
        self._build = builder(recipe.model, classes, input_shape, recipe.input_scale(input_shape))
        self._model = self._build()
        self._pruned = _selected(self._model, recipe) if recipe.prunes else []
        self._clustered = _layer_names(self._model, depthwise=False) if recipe.cluster.clusters else []
        self._network = CompiledNetwork(
            self._model, recipe.training, [kernel(self._model.get_layer(name)) for name in self._pruned]
        )
        self._quantized: tuple[Weights, Any] | None = None

    def check(self) -> None:
        """See `Session.check`."""
        if self.recipe.model.weights is not None:
            self.load_weights(Path(self.recipe.model.weights))
        if any(format.startswith("qat") for format in self.recipe.formats):
            quantization_aware(self._model, self.recipe.prunes, bool(self._clustered))

    def load_weights(self, path: Path) -> Weights:
        """See `Session.load_weights`."""
        return file_weights(path, self._build)

    def initial_weights(self, seed: int) -> Weights:
        """See `Session.initial_weights`."""
        keras.utils.set_random_seed(seed % 2**32)
        return self._build().get_weights()

    def train(
        self, material: Material, seed: int, initial: Weights | None = None
    ) -> tuple[Weights, dict[str, Any]]:
        """See `Session.train`."""
        training = self.recipe.training
        if training.function is not None and initial is None:
            return self._train_by_function(training.function, material, seed)
        self._bind(self._network, material)
        start = initial if initial is not None else self.initial_weights(derive_seed(seed, "initial weights"))
        self._network.load(start, derive_seed(seed, "dropout"))
        plain = make_defense("none")
        self._network.use_loss(plain)
        rows = TrainingRows(material.train.y, material.train.classes)
        result = fit(
            self._network,
            lambda epoch: plain.epoch(rows, epoch, training.epochs, training.weight_decay, generator(seed)),
            epochs=training.epochs,
            patience=training.patience,
            batch_size=training.batch_size,
            rng=generator(seed, "order"),
        )
        return result.best, result.summary("original")

    def _train_by_function(
        self, function: str, material: Material, seed: int
    ) -> tuple[Weights, dict[str, Any]]:
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
        return weights, {"phase": "original", "function": function}

    def train_plain(self, rows: Dataset, epochs: int, seed: int) -> Weights:
        """See `Session.train_plain`."""
        self._network.bind(rows.x, rows.y, rows.x[:1], rows.y[:1])
        self._network.load(
            self.initial_weights(derive_seed(seed, "initial weights")), derive_seed(seed, "dropout")
        )
        self._network.use_loss(make_defense("none"))
        rng = generator(seed, "order")
        for _ in range(epochs):
            self._network.run_epoch(rng.permutation(len(rows)), self.recipe.training.weight_decay, "general")
        return self._network.weights()

    def predict(self, weights: Weights, x: np.ndarray) -> np.ndarray:
        """See `Session.predict`."""
        self._model.set_weights(weights)
        return self._network.predict(x)

    def compress(
        self, original: Weights, material: Material, defense: Defense, rows: TrainingRows, seed: int
    ) -> Compressed:
        """See `Session.compress`."""
        recipe = self.recipe
        later = defense if recipe.defense_phases == "all" else make_defense("none")
        history: list[dict[str, Any]] = []
        weights = original
        if recipe.prunes:
            prune = self._prune_iteratively if recipe.prune.schedule == "iterative" else self._prune_tfmot
            weights = prune(weights, material, defense, rows, seed, history)
        if self._clustered:
            weights = self._cluster(weights, material, later, rows, seed, history)
        return Compressed(weights, self._request(), history=tuple(history))

    def quantize_aware(
        self, compressed: Compressed, material: Material, defense: Defense, rows: TrainingRows, seed: int
    ) -> Compressed:
        """See `Session.quantize_aware`."""
        later = defense if self.recipe.defense_phases == "all" else make_defense("none")
        # Built anew: the one at hand may be trained already, for another arm with the same weights.
        self._quantized = None
        model = self._quantized_model(compressed.weights)
        unpreserved = depthwise_filters(model) if self.recipe.prunes else []
        network = CompiledNetwork(model, self.recipe.training, unpreserved)
        self._bind(network, material)
        network.load(None, derive_seed(seed, "dropout", "qat"))
        network.hold_zeros()
        result = self._fit(network, later, rows, self.recipe.quantize.qat_epochs, seed, "qat")
        return replace(
            compressed, quantized=result.best, history=(*compressed.history, result.summary("qat"))
        )

    def convert(
        self, compressed: Compressed, format: str, calibration: np.ndarray, path: Path, probe: np.ndarray
    ) -> tuple[ArtifactFacts, np.ndarray]:
        """See `Session.convert`."""
        request = Request(format, compressed.request.sparsity, compressed.request.clusters)
        self._model.set_weights(compressed.weights)
        if not format.startswith("qat"):
            facts = convert(self._model, format, calibration, path, request)
            return facts, self._network.predict(probe)
        assert compressed.quantized is not None
        model = self._quantized_model(compressed.weights)
        model.set_weights(compressed.quantized)
        facts = convert(model, format, calibration, path, request)
        return facts, CompiledNetwork(model, self.recipe.training).predict(probe)

    def _bind(self, network: CompiledNetwork, material: Material) -> None:
        network.bind(material.train.x, material.train.y, material.validation.x, material.validation.y)

    def _fit(
        self,
        network: CompiledNetwork,
        defense: Defense,
        rows: TrainingRows,
        epochs: int,
        seed: int,
        phase: str,
        first_counted: int = 0,
    ) -> Fit:
        training = self.recipe.training
        network.use_loss(defense)
        return fit(
            network,
            lambda epoch: defense.epoch(
                rows, epoch, epochs, training.weight_decay, generator(seed, "defense")
            ),
            epochs=epochs,
            patience=training.patience,
            batch_size=training.batch_size,
            rng=generator(seed, "order", phase),
            first_counted=first_counted,
        )

    def _prune_iteratively(
        self,
        weights: Weights,
        material: Material,
        defense: Defense,
        rows: TrainingRows,
        seed: int,
        history: list[dict[str, Any]],
    ) -> Weights:
        """WeMem's schedule: each iteration goes on from the last weights of the one before; the best of the
        last iteration ships."""
        settings, network = self.recipe.prune, self._network
        self._bind(network, material)
        best = last = weights
        for number, sparsity in enumerate(iterative_sparsity(settings.sparsity, settings.iterations)):
            phase = f"prune {number + 1}/{settings.iterations}"
            network.load(last, derive_seed(seed, "dropout", phase))
            kernels = [kernel(self._model.get_layer(name)).numpy() for name in self._pruned]
            network.set_masks(magnitude_masks(kernels, sparsity))
            result = self._fit(network, defense, rows, settings.finetune_epochs, seed, phase)
            best, last = result.best, result.last
            history.append({**result.summary(phase), "sparsity": round(sparsity, 6)})
        return best

    def _prune_tfmot(
        self,
        weights: Weights,
        material: Material,
        defense: Defense,
        rows: TrainingRows,
        seed: int,
        history: list[dict[str, Any]],
    ) -> Weights:
        settings, batch = self.recipe.prune, self.recipe.training.batch_size
        epochs = settings.finetune_epochs
        steps_by_epoch = [
            sum(
                -(-len(entry.rows) // batch)
                for entry in defense.epoch(rows, e, epochs, 0.0, generator(seed, "defense"))
            )
            for e in range(epochs)
        ]
        # The polynomial reaches its end after three fifths of the steps; epochs before that ship nothing.
        end_step = max(1, round(0.6 * sum(steps_by_epoch)))
        reached = int(np.searchsorted(np.cumsum(steps_by_epoch), end_step))
        self._model.set_weights(weights)
        wrapped = pruning.wrap_for_pruning(
            self._model, self._pruned, settings.schedule, settings.sparsity, end_step
        )
        network = CompiledNetwork(wrapped, self.recipe.training)
        self._bind(network, material)
        network.load(None, derive_seed(seed, "dropout", settings.schedule))
        first = 0 if settings.schedule == "one-shot" else min(reached, epochs - 1)
        result = self._fit(network, defense, rows, epochs, seed, settings.schedule, first)
        history.append({**result.summary(settings.schedule), "sparsity": settings.sparsity})
        wrapped.set_weights(result.best)
        return self._plain_weights(pruning.strip(wrapped))

    def _cluster(
        self,
        weights: Weights,
        material: Material,
        defense: Defense,
        rows: TrainingRows,
        seed: int,
        history: list[dict[str, Any]],
    ) -> Weights:
        keras.utils.set_random_seed(derive_seed(seed, "centroids") % 2**32)
        self._model.set_weights(weights)
        wrapped = clustering.wrap_for_clustering(
            self._model, self._clustered, self.recipe.cluster.clusters, self.recipe.prunes
        )
        unpreserved = [
            kernel(wrapped.get_layer(name)) for name in self._pruned if name not in self._clustered
        ]
        network = CompiledNetwork(wrapped, self.recipe.training, unpreserved)
        self._bind(network, material)
        network.load(None, derive_seed(seed, "dropout", "cluster"))
        network.hold_zeros()
        result = self._fit(network, defense, rows, self.recipe.cluster.epochs, seed, "cluster")
        history.append(result.summary("cluster"))
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

    def _request(self) -> Request:
        names = [layer.name for layer in weighted_layers(self._model)]
        sparsity, clusters = self.recipe.prune.sparsity, self.recipe.cluster.clusters
        return Request(
            "float32",
            tuple(sparsity if name in self._pruned else None for name in names),
            tuple(clusters if name in self._clustered else None for name in names),
        )


def _layer_names(model, depthwise: bool) -> list[str]:
    """Names of the weighted layers, with or without depthwise convolutions.

    tfmot neither prunes nor clusters their few weights.
    """
    return [
        layer.name
        for layer in weighted_layers(model)
        if depthwise or not isinstance(layer, keras.layers.DepthwiseConv2D)
    ]


def _selected(model, recipe: Recipe) -> list[str]:
    """Names of the layers to prune.

    Raises:
        RecipeError: A name that is no weighted layer, or none that the schedule can prune.
    """
    names = _layer_names(model, depthwise=recipe.prune.schedule == "iterative")
    wanted = recipe.prune.layers
    if isinstance(wanted, tuple):
        unknown = [name for name in wanted if name not in names]
        if unknown:
            raise RecipeError(
                "prune.layers names no weighted layer", got=", ".join(unknown), allowed=", ".join(names)
            )
        return [name for name in names if name in wanted]
    convolutional = any(isinstance(layer, WEIGHTED[1:]) for layer in model.layers)
    return names if wanted == "all" or convolutional else names[:-1]
