"""The ExecuTorch backend: trains an original, compresses it under a defense, converts what came out."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edgeprivacy.backends.base import Compressed, Material, Weights
from edgeprivacy.backends.executorch.frameworks import seeded, torch, use_own_threads
from edgeprivacy.backends.executorch.models import (
    Classifier,
    builder,
    fitting_weights,
    is_depthwise,
    parameter_of,
    probe_rows,
    raw_builder,
    weighted_layers,
)
from edgeprivacy.backends.executorch.network import TorchNetwork, set_state, state_of
from edgeprivacy.backends.executorch.weight_files import read_state_dict
from edgeprivacy.backends.fitting import Fit, fit
from edgeprivacy.backends.own_training import train_by_function
from edgeprivacy.compression.magnitude import (
    iterative_sparsity,
    magnitude_masks,
    polynomial_end,
    polynomial_sparsity,
)
from edgeprivacy.compression.palette import Palette, kmeans_palette, palette_of
from edgeprivacy.converters import ArtifactFacts, Request
from edgeprivacy.data.dataset import Dataset
from edgeprivacy.defenses import Defense, TrainingRows, make_defense
from edgeprivacy.errors import ModelError, RecipeError
from edgeprivacy.recipe import Recipe
from edgeprivacy.seeding import derive_seed, generator


class ExecuTorchBackend:
    """torch modules to .pte and .ptl."""

    name: ClassVar[str] = "executorch"

    def open(self, recipe: Recipe, classes: int, input_shape: tuple[int, ...]) -> ExecuTorchSession:
        """See `Backend.open`."""
        return ExecuTorchSession(recipe, classes, input_shape)


class ExecuTorchSession:
    """One network, built once, for all releases of a recipe in this process."""

    def __init__(self, recipe: Recipe, classes: int, input_shape: tuple[int, ...]) -> None:
        self.recipe, self._input_shape = recipe, input_shape
        self._raw = raw_builder(recipe.model, classes, input_shape, recipe.input_scale(input_shape))
        self._build = builder(self._raw, recipe.model.source, classes, input_shape)
        with seeded(0):
            self._model = self._build()
        self._layers = weighted_layers(self._model, input_shape)
        self._pruned = _selected(self._layers, recipe)
        self._clustered = _layer_names(self._layers, depthwise=False) if recipe.cluster.clusters else []
        self._network = TorchNetwork(self._model, recipe.training)
        # Networks with fewer channels, and with fake quantizers, by the shapes of the weights they take.
        self._smaller: dict[tuple, TorchNetwork] = {}
        self._quantized: dict[tuple, TorchNetwork] = {}

    def check(self) -> None:
        """See `Session.check`."""
        from edgeprivacy.converters.executorch.convert import check_exports

        if self.recipe.model.weights is not None:
            self.load_weights(Path(self.recipe.model.weights))
        try:
            rows = min(self.recipe.training.batch_size, 8)
            self._network.try_step(probe_rows(self._input_shape, rows).numpy())
        except (RuntimeError, ValueError, TypeError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            raise ModelError(f"model {self.recipe.model.source} cannot be trained", got=reason) from None
        check_exports(self._shipping_module(self._network), self._input_shape)
        if any(format.startswith("qat") for format in self.recipe.formats_of("executorch")):
            self._quantized_network(state_of(self._model))

    def load_weights(self, path: Path) -> Weights:
        """See `Session.load_weights`."""
        names = ", ".join(list(self._model.body.state_dict())[:5])
        return fitting_weights(read_state_dict(path), self._model, f"weights {path}", f"{names}, ...")

    def initial_weights(self, seed: int) -> Weights:
        """See `Session.initial_weights`."""
        with seeded(seed):
            return state_of(self._build())

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
        return self._loaded(weights).predict(x)

    def compress(
        self, original: Weights, material: Material, defense: Defense, rows: TrainingRows, seed: int
    ) -> Compressed:
        """See `Session.compress`."""
        recipe = self.recipe
        later = defense if recipe.defense_phases == "all" else make_defense("none")
        history: list[dict[str, Any]] = []
        weights = original
        if recipe.prunes:
            prune = {
                "iterative": self._prune_iteratively,
                "structured": self._prune_channels,
            }.get(recipe.prune.schedule, self._prune_by_schedule)
            weights = prune(weights, material, defense, rows, seed, history)
        if self._clustered:
            weights = self._cluster(weights, material, later, rows, seed, history)
        return Compressed(weights, self._request(), history=tuple(history))

    def quantize_aware(
        self, compressed: Compressed, material: Material, defense: Defense, rows: TrainingRows, seed: int
    ) -> Compressed:
        """See `Session.quantize_aware`."""
        from edgeprivacy.backends.executorch.qat import quantized_parameter

        later = defense if self.recipe.defense_phases == "all" else make_defense("none")
        network = self._quantized_network(compressed.weights)
        self._bind(network, material)
        plain = self._loaded(compressed.weights).model
        network.load(network.model.start(plain), derive_seed(seed, "dropout", "qat"))
        free = [name for name in self._pruned if name not in self._clustered]
        network.hold_zeros([quantized_parameter(parameter_of(name)) for name in free])
        parameters = dict(plain.named_parameters())
        network.set_palettes(
            {
                quantized_parameter(parameter_of(name)): palette_of(
                    _array(parameters[parameter_of(name)]), name in self._pruned
                )
                for name in self._clustered
            }
        )
        result = self._fit(network, later, rows, self.recipe.quantize.qat_epochs, seed, "qat")
        return replace(
            compressed, quantized=result.best, history=(*compressed.history, result.summary("qat"))
        )

    def convert(
        self, compressed: Compressed, format: str, calibration: np.ndarray, path: Path, probe: np.ndarray
    ) -> tuple[ArtifactFacts, np.ndarray]:
        """See `Session.convert`."""
        from edgeprivacy.converters.executorch.convert import convert
        from edgeprivacy.converters.ptl.convert import convert_ptl

        request = Request(format, compressed.request.sparsity, compressed.request.clusters)
        if format.startswith("qat"):
            assert compressed.quantized is not None
            network = self._quantized_network(compressed.weights)
            network.load(compressed.quantized, 0)
            module = network.model.finished()
        else:
            network = self._loaded(compressed.weights)
            module = self._shipping_module(network)
        expected = network.predict(probe)
        write = convert_ptl if format.startswith("ptl") else convert
        return write(module, format, calibration, path, request, self._input_shape), expected

    def _train_by_function(
        self, function: str, material: Material, seed: int
    ) -> tuple[Weights, dict[str, Any]]:
        with seeded(derive_seed(seed, "initial weights")):
            model = self._raw()
            trained = train_by_function(function, model, material, self.recipe.training.epochs, seed)
        use_own_threads()
        if not isinstance(trained, torch.nn.Module):
            raise ModelError(
                f"the training function {function} did not return the network it was given",
                got=type(trained).__name__,
                allowed="the torch module it was called with, trained, or None",
            )
        weights = fitting_weights(
            trained.state_dict(),
            self._model,
            f"what the training function {function} returned",
            "the module it was called with, trained, or None",
        )
        return weights, {"phase": "original", "function": function}

    def _bind(self, network: TorchNetwork, material: Material) -> None:
        network.bind(material.train.x, material.train.y, material.validation.x, material.validation.y)

    def _fit(
        self,
        network: TorchNetwork,
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
            self._prune_now(sparsity)
            result = self._fit(network, defense, rows, settings.finetune_epochs, seed, phase)
            best, last = result.best, result.last
            history.append({**result.summary(phase), "sparsity": round(sparsity, 6)})
        return best

    def _prune_by_schedule(
        self,
        weights: Weights,
        material: Material,
        defense: Defense,
        rows: TrainingRows,
        seed: int,
        history: list[dict[str, Any]],
    ) -> Weights:
        """One-shot: masks from the weights as they are, kept. Polynomial: masks anew before each step, until
        the asked sparsity is reached; epochs before that ship nothing."""
        settings, network, batch = self.recipe.prune, self._network, self.recipe.training.batch_size
        epochs, first = settings.finetune_epochs, 0
        self._bind(network, material)
        network.load(weights, derive_seed(seed, "dropout", settings.schedule))
        if settings.schedule == "one-shot":
            self._prune_now(settings.sparsity)
        else:
            passes = [
                defense.epoch(rows, epoch, epochs, 0.0, generator(seed, "defense")) for epoch in range(epochs)
            ]
            end, reached = polynomial_end([sum(-(-len(p.rows) // batch) for p in plan) for plan in passes])
            first = min(reached, epochs - 1)
            network.follow_schedule(
                [parameter_of(name) for name in self._pruned],
                lambda step: polynomial_sparsity(settings.sparsity, step, end) if step <= end else None,
            )
        result = self._fit(network, defense, rows, epochs, seed, settings.schedule, first)
        history.append({**result.summary(settings.schedule), "sparsity": settings.sparsity})
        return result.best

    def _prune_channels(
        self,
        weights: Weights,
        material: Material,
        defense: Defense,
        rows: TrainingRows,
        seed: int,
        history: list[dict[str, Any]],
    ) -> Weights:
        """Channels are removed at once; the smaller network is then trained on."""
        from edgeprivacy.backends.executorch.structured import prune_channels

        settings = self.recipe.prune
        named = settings.layers if isinstance(settings.layers, tuple) else None
        full: Classifier = copy.deepcopy(self._loaded(weights).model).cpu()
        body = prune_channels(full.body, settings.sparsity, probe_rows(self._input_shape), named)
        smaller = state_of(Classifier(body, full.head))
        network = self._network_for(smaller)
        self._bind(network, material)
        network.load(smaller, derive_seed(seed, "dropout", "structured"))
        result = self._fit(network, defense, rows, settings.finetune_epochs, seed, "structured")
        removed = 1 - sum(map(np.size, smaller)) / sum(map(np.size, weights))
        history.append({**result.summary("structured"), "weights_removed": round(removed, 6)})
        return result.best

    def _cluster(
        self,
        weights: Weights,
        material: Material,
        defense: Defense,
        rows: TrainingRows,
        seed: int,
        history: list[dict[str, Any]],
    ) -> Weights:
        network = self._network_for(weights)
        self._bind(network, material)
        network.load(weights, derive_seed(seed, "dropout", "cluster"))
        network.hold_zeros([parameter_of(name) for name in self._pruned if name not in self._clustered])
        parameters = dict(network.model.named_parameters())
        palettes: dict[str, Palette] = {
            parameter_of(name): kmeans_palette(
                _array(parameters[parameter_of(name)]),
                self.recipe.cluster.clusters,
                name in self._pruned,
                derive_seed(seed, "centroids", name),
            )
            for name in self._clustered
        }
        network.set_palettes(palettes)
        result = self._fit(network, defense, rows, self.recipe.cluster.epochs, seed, "cluster")
        history.append(result.summary("cluster"))
        return result.best

    def _prune_now(self, sparsity: float) -> None:
        """Hold the smallest weights of the network as it is at zero, from now on."""
        names = [parameter_of(name) for name in self._pruned]
        parameters = dict(self._model.named_parameters())
        masks = magnitude_masks([_array(parameters[name]) for name in names], sparsity)
        self._network.set_masks(dict(zip(names, masks, strict=True)))

    def _network_for(self, weights: Weights) -> TorchNetwork:
        """The network that takes weights of these shapes: the full one, or one with fewer channels."""
        shapes = _shapes(weights)
        if shapes == _shapes(self._model.state_dict().values()):
            return self._network
        if shapes not in self._smaller:
            from edgeprivacy.backends.executorch.structured import shrink_to

            with seeded(0):
                model = self._build()
            self._smaller[shapes] = TorchNetwork(shrink_to(model, weights), self.recipe.training)
        return self._smaller[shapes]

    def _loaded(self, weights: Weights) -> TorchNetwork:
        network = self._network_for(weights)
        set_state(network.model, weights)
        return network

    def _quantized_network(self, weights: Weights) -> TorchNetwork:
        """The network with fake quantizers for weights of these shapes, in whatever state."""
        shapes = _shapes(weights)
        if shapes not in self._quantized:
            from edgeprivacy.backends.executorch.qat import QuantizationAware

            training = self.recipe.training
            plain = self._network_for(weights).model
            model = QuantizationAware(plain, self._input_shape, training.batch_size)
            self._quantized[shapes] = TorchNetwork(model, training)
        return self._quantized[shapes]

    def _shipping_module(self, network: TorchNetwork) -> torch.nn.Module:
        """A copy of what the file is made from."""
        return copy.deepcopy(network.model).cpu().eval()

    def _request(self) -> Request:
        names = [name for name, _ in self._layers]
        sparsity, clusters = self.recipe.prune.sparsity, self.recipe.cluster.clusters
        return Request(
            "float32",
            tuple(sparsity if name in self._pruned else None for name in names),
            tuple(clusters if name in self._clustered else None for name in names),
        )


def _shapes(weights: Any) -> tuple:
    return tuple(tuple(value.shape) for value in weights)


def _array(parameter: torch.nn.Parameter) -> np.ndarray:
    return parameter.detach().cpu().numpy()


def _layer_names(layers: list[tuple[str, torch.nn.Module]], depthwise: bool) -> list[str]:
    """Names of the weighted layers, each once, with or without depthwise convolutions.

    The TF-Lite backend neither clusters their few weights nor prunes them by a schedule of tfmot: the same
    recipe means the same here.
    """
    return list(dict.fromkeys(name for name, layer in layers if depthwise or not is_depthwise(layer)))


def _selected(layers: list[tuple[str, torch.nn.Module]], recipe: Recipe) -> list[str]:
    """Names of the layers whose weights are held at zero.

    Raises:
        RecipeError: A name that is no weighted layer, or none that the schedule can prune.
    """
    if not recipe.prunes or recipe.prune.schedule == "structured":
        return []
    names = _layer_names(layers, depthwise=recipe.prune.schedule == "iterative")
    wanted = recipe.prune.layers
    if isinstance(wanted, tuple):
        unknown = [name for name in wanted if name not in names]
        if unknown:
            raise RecipeError(
                "prune.layers names no weighted layer", got=", ".join(unknown), allowed=", ".join(names)
            )
        return [name for name in names if name in wanted]
    convolutional = any(isinstance(layer, torch.nn.Conv2d) for _, layer in layers)
    return names if wanted == "all" or convolutional else names[:-1]
