"""The ExecuTorch backend: trains an original, compresses it under a defense, converts what came out."""

from __future__ import annotations

import copy
from collections.abc import Sequence
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
from edgeprivacy.backends.executorch.network import TorchNetwork
from edgeprivacy.backends.executorch.tensors import set_state, state_of
from edgeprivacy.backends.executorch.weight_files import read_state_dict
from edgeprivacy.backends.layers import ITERATIVE, Layer
from edgeprivacy.backends.own_training import train_by_function
from edgeprivacy.backends.training import TrainingSession
from edgeprivacy.backends.work import Work, bind
from edgeprivacy.compression.magnitude import polynomial_sparsity
from edgeprivacy.compression.palette import Palette, kmeans_palette, palette_of
from edgeprivacy.converters import ArtifactFacts
from edgeprivacy.converters.executorch.molds import Molds
from edgeprivacy.defenses import Defense, TrainingRows
from edgeprivacy.errors import ModelError
from edgeprivacy.recipe import Recipe
from edgeprivacy.seeding import derive_seed


class ExecuTorchBackend:
    """torch modules to .pte and .ptl."""

    name: ClassVar[str] = "executorch"

    def open(
        self, recipe: Recipe, classes: int, input_shape: tuple[int, ...], label_sets: bool = False
    ) -> ExecuTorchSession:
        """See `Backend.open`."""
        return ExecuTorchSession(recipe, classes, input_shape, label_sets)


class ExecuTorchSession(TrainingSession):
    """One network, built once, for all releases of a recipe in this process."""

    def __init__(
        self, recipe: Recipe, classes: int, input_shape: tuple[int, ...], label_sets: bool = False
    ) -> None:
        self._input_shape, self._label_sets = input_shape, label_sets
        self._raw = raw_builder(recipe.model, classes, input_shape, recipe.input_scale(input_shape))
        self._build = builder(self._raw, recipe.model.source, classes, input_shape, label_sets)
        with seeded(0):
            self._model = self._build()
        layers = [Layer(name, _kind(layer)) for name, layer in weighted_layers(self._model, input_shape)]
        super().__init__(recipe, layers, TorchNetwork(self._model, recipe.training, label_sets))
        # Networks with fewer channels, and with fake quantizers, by the shapes of the weights they take.
        self._smaller: dict[tuple, TorchNetwork] = {}
        self._quantized: dict[tuple, TorchNetwork] = {}
        self._molds = Molds()

    def check(self) -> None:
        """See `Session.check`."""
        from edgeprivacy.converters.executorch.convert import check_exports
        from edgeprivacy.converters.ptl.convert import check_ptl

        if self.recipe.model.weights is not None:
            self.load_weights(Path(self.recipe.model.weights))
        try:
            rows = min(self.recipe.training.batch_size, 8)
            self._network.try_step(probe_rows(self._input_shape, rows).numpy())
        except (RuntimeError, ValueError, TypeError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            raise ModelError(f"model {self.recipe.model.source} cannot be trained", got=reason) from None
        self.check_private_steps(self._input_shape)
        self.check_dropout()
        formats = self.recipe.formats_of("executorch")
        check_exports(self._shipping_module(self._network), self._input_shape, self._molds)
        if any(format.startswith("ptl") for format in formats):
            check_ptl(self._shipping_module(self._network), self._input_shape, formats)
        if any(format.startswith("qat") for format in formats):
            self._quantized_network(state_of(self._model))

    def load_weights(self, path: Path) -> Weights:
        """See `Session.load_weights`."""
        names = ", ".join(list(self._model.body.state_dict())[:5])
        return fitting_weights(read_state_dict(path), self._model, f"weights {path}", f"{names}, ...")

    def initial_weights(self, seed: int) -> Weights:
        """See `Session.initial_weights`."""
        with seeded(seed):
            return state_of(self._build())

    def predict(self, weights: Weights, x: np.ndarray) -> np.ndarray:
        """See `Session.predict`."""
        return self._loaded(weights).predict(x)

    def compress(
        self, original: Weights, material: Material, defense: Defense, rows: TrainingRows, seed: int
    ) -> Compressed:
        """See `Session.compress`."""
        weights, work = self._rewind_first(original, Work(material, defense, rows, seed))
        if self.recipe.prunes or self.recipe.finetunes:
            own = {"structured": self._prune_channels, **dict.fromkeys(ITERATIVE, self._prune_iteratively)}
            prune = own.get(self.recipe.prune.schedule, self._prune_by_schedule)
            weights = (self._prune_by_admm if defense.admm() else prune)(weights, work)
        weights = self._round(self._rewind(weights, work), work)
        if self._clustered:
            weights = self._cluster(weights, replace(work, defense=self._later(defense)))
        return Compressed(weights, self._request(defense), history=tuple(work.history))

    def quantize_aware(
        self, compressed: Compressed, material: Material, defense: Defense, rows: TrainingRows, seed: int
    ) -> Compressed:
        """See `Session.quantize_aware`."""
        from edgeprivacy.backends.executorch.qat import quantized_parameter

        work = Work(material, self._later(defense), rows, seed)
        network = self._quantized_network(compressed.weights)
        bind(network, material)
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
        result = self._fit(network, work, self.recipe.quantize.qat_epochs, "qat")
        return replace(
            compressed, quantized=result.best, history=(*compressed.history, result.summary("qat"))
        )

    def convert(
        self, compressed: Compressed, format: str, calibration: np.ndarray, path: Path, probe: np.ndarray
    ) -> tuple[ArtifactFacts, np.ndarray]:
        """See `Session.convert`."""
        from edgeprivacy.converters.executorch.convert import convert
        from edgeprivacy.converters.ptl.convert import convert_ptl

        request = replace(compressed.request, format=format)
        if format.startswith("qat"):
            assert compressed.quantized is not None
            network = self._quantized_network(compressed.weights)
            network.load(compressed.quantized, 0)
            module = network.model.finished()
        else:
            network = self._loaded(compressed.weights)
            module = self._shipping_module(network)
        expected = network.predict(probe)
        if format.startswith("ptl"):
            return convert_ptl(module, format, calibration, path, request, self._input_shape), expected
        facts = convert(module, format, calibration, path, request, self._input_shape, self._molds)
        return facts, expected

    def _train_by_function(self, function: str, material: Material, seed: int) -> Weights:
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
        return fitting_weights(
            trained.state_dict(),
            self._model,
            f"what the training function {function} returned",
            "the module it was called with, trained, or None",
        )

    def _prune_by_schedule(self, weights: Weights, work: Work) -> Weights:
        """One-shot: masks from the weights as they are, kept. Polynomial: masks anew before each step, until
        the asked sparsity is reached; epochs before that ship nothing."""
        settings, network, first = self.recipe.prune, self._network, 0
        bind(network, work.material)
        network.load(weights, derive_seed(work.seed, "dropout", settings.schedule))
        if settings.schedule == "one-shot":
            self._hold_smallest(settings.sparsity)
        else:
            end, first = self._polynomial_end(work)
            network.follow_schedule(
                [parameter_of(name) for name in self._pruned],
                lambda step: polynomial_sparsity(settings.sparsity, step, end) if step <= end else None,
            )
        result = self._fit(network, work, settings.finetune_epochs, settings.schedule, first)
        work.history.append({**result.summary(settings.schedule), "sparsity": settings.sparsity})
        return result.best

    def _prune_channels(self, weights: Weights, work: Work) -> Weights:
        """Channels are removed at once; the smaller network is then trained on."""
        from edgeprivacy.backends.executorch.structured import prune_channels

        settings = self.recipe.prune
        named = settings.layers if isinstance(settings.layers, tuple) else None
        full: Classifier = copy.deepcopy(self._loaded(weights).model).cpu()
        body = prune_channels(full.body, settings.sparsity, probe_rows(self._input_shape), named)
        smaller = state_of(Classifier(body, full.head))
        network = self._network_for(smaller)
        bind(network, work.material)
        network.load(smaller, derive_seed(work.seed, "dropout", "structured"))
        result = self._fit(network, work, settings.finetune_epochs, "structured")
        removed = 1 - sum(map(np.size, smaller)) / sum(map(np.size, weights))
        work.history.append({**result.summary("structured"), "weights_removed": round(removed, 6)})
        return result.best

    def _cluster(self, weights: Weights, work: Work) -> Weights:
        network = self._network_for(weights)
        bind(network, work.material)
        network.load(weights, derive_seed(work.seed, "dropout", "cluster"))
        network.hold_zeros([parameter_of(name) for name in self._pruned if name not in self._clustered])
        parameters = dict(network.model.named_parameters())
        palettes: dict[str, Palette] = {
            parameter_of(name): kmeans_palette(
                _array(parameters[parameter_of(name)]),
                self.recipe.cluster.clusters,
                name in self._pruned,
                derive_seed(work.seed, "centroids", name),
            )
            for name in self._clustered
        }
        network.set_palettes(palettes)
        result = self._fit(network, work, self.recipe.cluster.epochs, "cluster")
        work.history.append(result.summary("cluster"))
        return result.best

    def _pruned_kernels(self) -> Weights:
        parameters = dict(self._model.named_parameters())
        return [_array(parameters[parameter_of(name)]) for name in self._pruned]

    def _pull(self, targets: Weights, strength: float) -> None:
        names = [parameter_of(name) for name in self._pruned]
        self._network.pull(dict(zip(names, targets, strict=True)), strength)

    def _hold_zeros(self) -> None:
        self._network.hold_zeros([parameter_of(name) for name in self._pruned])

    def _kernels(self) -> dict[str, tuple[int, int]]:
        trained = [name for name, parameter in self._model.named_parameters() if parameter.requires_grad]
        positions = {name: k for k, name in enumerate(trained)}
        names = [layer.name for layer in self._layers if parameter_of(layer.name) in positions]
        return {name: (positions[parameter_of(name)], 0) for name in names}

    def _set_masks(self, masks: Sequence[np.ndarray]) -> None:
        names = [parameter_of(name) for name in self._pruned]
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
            smaller = shrink_to(model, weights)
            self._smaller[shapes] = TorchNetwork(smaller, self.recipe.training, self._label_sets)
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
            self._quantized[shapes] = TorchNetwork(model, training, self._label_sets)
        return self._quantized[shapes]

    def _shipping_module(self, network: TorchNetwork) -> torch.nn.Module:
        """A copy of what the file is made from."""
        return copy.deepcopy(network.model).cpu().eval()


def _shapes(weights: Any) -> tuple:
    return tuple(tuple(value.shape) for value in weights)


def _array(parameter: torch.nn.Parameter) -> np.ndarray:
    return parameter.detach().cpu().numpy()


def _kind(layer: torch.nn.Module) -> str:
    if is_depthwise(layer):
        return "depthwise"
    return "convolution" if isinstance(layer, torch.nn.Conv2d) else "dense"
