"""What every backend's session does alike: which layers, which rows, which seeds, which schedule."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.backends.base import Material, Weights
from edgeprivacy.backends.fitting import Fit, Network, fit
from edgeprivacy.compression.magnitude import iterative_sparsity, polynomial_end
from edgeprivacy.converters import Request
from edgeprivacy.data.dataset import Dataset
from edgeprivacy.defenses import Defense, TrainingRows, make_defense
from edgeprivacy.errors import RecipeError
from edgeprivacy.recipe import Recipe
from edgeprivacy.seeding import derive_seed, generator


class TrainableNetwork(Network, Protocol):
    """A network of a backend, reused for every model of the same form."""

    def load(self, weights: Weights | None, seed: int) -> None:
        """Set all variables (None keeps them); forget optimizers, masks and random state."""

    def bind(
        self,
        x: NDArray[Any],
        y: NDArray[Any],
        validation_x: NDArray[Any],
        validation_y: NDArray[Any],
    ) -> None:
        """The rows that epochs and validation refer to."""

    def bind_others(self, x: NDArray[Any], y: NDArray[Any]) -> None:
        """Reference rows, for defenses that want some beside each batch."""

    def trainable(self) -> Weights:
        """A copy of what training moves, an array a parameter."""

    def importance(self) -> Weights:
        """|gradient * weight| of the parameters of `trainable`, summed over all steps since `load` under a
        defense that scores weights."""

    def freeze(self, start: Weights, frozen: Sequence[NDArray[np.bool_]]) -> None:
        """Set what training moves, and hold the frozen ones there until the next `load`."""

    def answers_alone(self, x: NDArray[Any]) -> bool:
        """Whether in training what a row is answered does not depend on the rows beside it."""

    def use_loss(self, defense: Defense, columns: Mapping[str, NDArray[Any]] | None = None) -> None:
        """The loss of the passes that follow, and what it sees of the bound rows beside their labels."""


@dataclass(frozen=True)
class Layer:
    """A weighted layer, in the order of execution. `kind` is "dense", "convolution" or "depthwise"."""

    name: str
    kind: str


@dataclass(frozen=True)
class Work:
    """One release being compressed by one arm: its rows, its defense, its seed, and what was done so far."""

    material: Material
    defense: Defense
    rows: TrainingRows
    seed: int
    history: list[dict[str, Any]] = field(default_factory=list)


class TrainingSession(ABC):
    """The training loop of a `Session`, on the network that a backend supplies.

    Args:
        recipe: What to make.
        layers: The network's weighted layers.
        network: The full network.
    """

    def __init__(self, recipe: Recipe, layers: Sequence[Layer], network: TrainableNetwork) -> None:
        self.recipe = recipe
        self._layers = tuple(layers)
        self._network: Any = network
        self._pruned = pruned_layers(layers, recipe)
        self._clustered = _names(layers, depthwise=False) if recipe.cluster.clusters else []

    @abstractmethod
    def initial_weights(self, seed: int) -> Weights:
        """See `Session.initial_weights`."""

    @abstractmethod
    def predict(self, weights: Weights, x: NDArray[Any]) -> NDArray[np.float32]:
        """See `Session.predict`."""

    @abstractmethod
    def _train_by_function(self, function: str, material: Material, seed: int) -> Weights:
        """Weights that the user's own training function gives."""

    @abstractmethod
    def _hold_smallest(self, sparsity: float) -> None:
        """Hold the smallest weights of the network as it is at zero, from now on."""

    @abstractmethod
    def _pruned_kernels(self) -> Weights:
        """The weights that pruning may hold at zero, an array a layer, as they are in the network now."""

    @abstractmethod
    def _pull(self, targets: Weights, strength: float) -> None:
        """Add strength / 2 * |W - target|^2 of the pruned kernels to the loss until the next `load`."""

    @abstractmethod
    def _hold_zeros(self) -> None:
        """Hold the pruned layers' weights that are zero now at zero, from now on."""

    def check_private_steps(self, input_shape: tuple[int, ...]) -> None:
        """Raise RecipeError where a defense wants each row's own gradient and the network has none."""
        rows = np.random.default_rng(0).random((4, *input_shape)).astype(np.float32)
        for arm in self.recipe.arms:
            private = make_defense(arm.name, arm.settings).private()
            if private is not None and not self._network.answers_alone(rows):
                raise RecipeError(
                    f"defense '{arm.name}' cannot train this network",
                    got="in training, what a row is answered depends on the other rows of its batch "
                    "(BatchNorm does that), so no row has a gradient of its own to clip",
                    allowed="networks without BatchNorm: GroupNorm or LayerNorm in its place",
                    hint="--model mlp or cnn; or FILE.py:FUNCTION that builds your network without it",
                )

    def train(
        self,
        material: Material,
        seed: int,
        initial: Weights | None = None,
        defense: Defense | None = None,
        rows: TrainingRows | None = None,
    ) -> tuple[Weights, dict[str, Any]]:
        """See `Session.train`."""
        training = self.recipe.training
        if training.function is not None and initial is None and defense is None:
            weights = self._train_by_function(training.function, material, seed)
            return weights, {"phase": "original", "function": training.function}
        bind(self._network, material)
        start = initial if initial is not None else self.initial_weights(derive_seed(seed, "initial weights"))
        self._network.load(start, derive_seed(seed, "dropout"))
        trained_by = defense or make_defense("none")
        known = rows or TrainingRows.of(material.train.y, material.train.classes)
        self._network.use_loss(trained_by, trained_by.columns(known))
        result = fit(
            self._network,
            lambda epoch: trained_by.epoch(
                known, epoch, training.epochs, training.weight_decay, generator(seed)
            ),
            epochs=training.epochs,
            patience=trained_by.patience(training.patience),
            batch_size=training.batch_size,
            rng=generator(seed, "order"),
            private=trained_by.private(),
        )
        return result.best, result.summary("original")

    def train_plain(self, rows: Dataset, epochs: int, seed: int) -> Weights:
        """See `Session.train_plain`."""
        network = self._network
        network.bind(rows.x, rows.y, rows.x[:1], rows.y[:1])
        network.load(self.initial_weights(derive_seed(seed, "initial weights")), derive_seed(seed, "dropout"))
        network.use_loss(make_defense("none"))
        rng = generator(seed, "order")
        for _ in range(epochs):
            network.run_epoch(rng.permutation(len(rows)), self.recipe.training.weight_decay, "general")
        weights: Weights = network.weights()
        return weights

    def _fit(
        self, network: TrainableNetwork, work: Work, epochs: int, phase: str, first_counted: int = 0
    ) -> Fit:
        """One phase under the work's defense."""
        training = self.recipe.training
        network.use_loss(work.defense, work.defense.columns(work.rows))
        return fit(
            network,
            lambda epoch: work.defense.epoch(
                work.rows, epoch, epochs, training.weight_decay, generator(work.seed, "defense")
            ),
            epochs=epochs,
            patience=work.defense.patience(training.patience),
            batch_size=training.batch_size,
            rng=generator(work.seed, "order", phase),
            first_counted=first_counted,
            private=work.defense.private(),
        )

    def _prune_iteratively(self, weights: Weights, work: Work) -> Weights:
        """WeMem's schedule: each iteration goes on from the last weights of the one before; the best of the
        last iteration ships. Its ablations: nothing is pruned, or nothing is trained."""
        settings, network = self.recipe.prune, self._network
        bind(network, work.material)
        if settings.schedule == "untrained":
            network.load(weights, derive_seed(work.seed, "dropout", "untrained"))
            self._hold_smallest(settings.sparsity)
            work.history.append({"phase": "prune, untrained", "sparsity": settings.sparsity})
            pruned: Weights = network.weights()
            return pruned
        best = last = weights
        final = 0.0 if self.recipe.finetunes else settings.sparsity
        for number, sparsity in enumerate(iterative_sparsity(final, settings.iterations)):
            phase = f"prune {number + 1}/{settings.iterations}"
            network.load(last, derive_seed(work.seed, "dropout", phase))
            if not self.recipe.finetunes:
                self._hold_smallest(sparsity)
            result = self._fit(network, work, settings.finetune_epochs, phase)
            best, last = result.best, result.last
            work.history.append({**result.summary(phase), "sparsity": round(sparsity, 6)})
        return best

    def _prune_by_admm(self, weights: Weights, work: Work) -> Weights:
        """Draw the weights towards sparsity, prune the smallest, and train the others on."""
        admm, settings, network = work.defense.admm(), self.recipe.prune, self._network
        assert admm is not None
        bind(network, work.material)
        network.load(weights, derive_seed(work.seed, "dropout", "admm"))
        network.use_loss(work.defense, work.defense.columns(work.rows))
        dual, order = (
            admm.start(self._pruned_kernels(), settings.sparsity),
            generator(work.seed, "order", "admm"),
        )
        self._pull(dual.targets, dual.rho)
        steps = 0
        for epoch in range(admm.epochs):
            passes = work.defense.epoch(
                work.rows,
                epoch,
                admm.epochs,
                self.recipe.training.weight_decay,
                generator(work.seed, "defense"),
            )
            for entry in passes:
                rows = order.permutation(entry.rows).astype(np.int32)
                network.run_epoch(rows, entry.weight_decay, entry.optimizer, epoch)
                steps += -(-len(rows) // self.recipe.training.batch_size)
            if (epoch + 1) % admm.every == 0:
                dual = admm.updated(dual, self._pruned_kernels(), settings.sparsity)
                self._pull(dual.targets, dual.rho)
        private = work.defense.private()
        told = private.told(len(work.material.train), self.recipe.training.batch_size) if private else None
        work.history.append(
            {"phase": "admm", "epochs": admm.epochs, "steps": steps} | ({"private": told} if told else {})
        )
        drawn = network.weights()
        network.load(drawn, derive_seed(work.seed, "dropout", "retrain"))
        self._hold_smallest(settings.sparsity)
        result = self._fit(network, work, settings.finetune_epochs, "retrain")
        work.history.append({**result.summary("retrain"), "sparsity": settings.sparsity})
        return result.best

    def _rewind(self, weights: Weights, work: Work) -> Weights:
        """Score the weights, set the vulnerable ones back to where they began, and fine-tune the others."""
        rewinding, network, material = work.defense.rewinding(), self._network, work.material
        if rewinding is None:
            return weights
        initial = self.initial_weights(derive_seed(work.seed, "initial weights"))
        untrained = np.maximum(self.predict(initial, material.reference.x), np.finfo(np.float32).tiny)
        network.load(initial, 0)
        began = network.trainable()
        self._bind_probe(material, untrained, rewinding.probe())
        network.load(weights, derive_seed(work.seed, "dropout", "probe"))
        trained, rng = network.trainable(), generator(work.seed, "order", "probe")
        for epoch in range(rewinding.epochs):
            order = _side_by_side(len(material.train), len(material.reference), rng)
            network.run_epoch(order, 0.0, "probe", epoch)
        vulnerable = rewinding.chosen(network.importance(), trained)
        start, frozen = rewinding.start(vulnerable, trained, began)
        bind(network, material)
        network.load(weights, derive_seed(work.seed, "dropout", "rewind"))
        self._hold_zeros()
        network.freeze(start, frozen)
        result = self._fit(network, work, self.recipe.prune.finetune_epochs, "rewind")
        share = sum(int(each.sum()) for each in vulnerable) / sum(each.size for each in vulnerable)
        work.history.append({**result.summary("rewind"), "rewound": round(share, 6)})
        return result.best

    def _bind_probe(self, material: Material, untrained: NDArray[np.float32], probe: Defense) -> None:
        """Members and reference rows in one place, and which of them are which."""
        train, reference = material.train, material.reference
        network = self._network
        network.bind(
            np.concatenate([train.x, reference.x]),
            np.concatenate([train.y, reference.y]),
            material.validation.x,
            material.validation.y,
        )
        filler = np.full((len(train), untrained.shape[1]), 1 / untrained.shape[1], dtype=np.float32)
        columns = {
            "member": np.repeat([1.0, 0.0], [len(train), len(reference)]).astype(np.float32),
            "untrained": np.concatenate([filler, untrained]),
        }
        network.use_loss(probe, columns)

    def _polynomial_end(self, work: Work) -> tuple[int, int]:
        """The step that reaches the polynomial schedule's sparsity, and the first epoch that may ship."""
        epochs, batch = self.recipe.prune.finetune_epochs, self.recipe.training.batch_size
        plans = [
            work.defense.epoch(work.rows, epoch, epochs, 0.0, generator(work.seed, "defense"))
            for epoch in range(epochs)
        ]
        end, reached = polynomial_end([sum(-(-len(p.rows) // batch) for p in plan) for plan in plans])
        return end, min(reached, epochs - 1)

    def _later(self, defense: Defense) -> Defense:
        """The defense of what follows pruning."""
        return defense if self.recipe.defense_phases == "all" else make_defense("none")

    def _request(self) -> Request:
        """What every file of a compressed model must hold, but for its format."""
        sparsity, clusters = self.recipe.prune.sparsity, self.recipe.cluster.clusters
        return Request(
            "float32",
            tuple(sparsity if layer.name in self._pruned else None for layer in self._layers),
            tuple(clusters if layer.name in self._clustered else None for layer in self._layers),
        )


ITERATIVE = ("iterative", "finetune", "untrained")
"""Schedules of `_prune_iteratively`."""


def _side_by_side(members: int, others: int, rng: np.random.Generator) -> NDArray[np.int32]:
    """An order in which members and reference rows take turns, so that every batch holds as many of the one
    as of the other; of the fewer ones each stands several times."""
    inside = rng.permutation(members)
    rounds = -(-members // others)
    outside = np.concatenate([rng.permutation(others) for _ in range(rounds)])[:members] + members
    return np.stack([inside, outside], axis=1).ravel().astype(np.int32)


def bind(network: TrainableNetwork, material: Material) -> None:
    """Bind a release's training and validation rows."""
    network.bind(material.train.x, material.train.y, material.validation.x, material.validation.y)
    network.bind_others(material.reference.x, material.reference.y)


def pruned_layers(layers: Sequence[Layer], recipe: Recipe) -> list[str]:
    """Names of the layers whose weights are held at zero.

    Raises:
        RecipeError: A name that is no weighted layer, or none that the schedule can prune.
    """
    if not recipe.prunes or recipe.prune.schedule == "structured":
        return []
    names = _names(layers, depthwise=recipe.prune.schedule in ITERATIVE)
    wanted = recipe.prune.layers
    if isinstance(wanted, tuple):
        unknown = [name for name in wanted if name not in names]
        if unknown:
            raise RecipeError(
                "prune.layers names no weighted layer", got=", ".join(unknown), allowed=", ".join(names)
            )
        return [name for name in names if name in wanted]
    convolutional = any(layer.kind != "dense" for layer in layers)
    return names if wanted == "all" or convolutional else names[:-1]


def _names(layers: Sequence[Layer], depthwise: bool) -> list[str]:
    """Names of the weighted layers, each once, with or without depthwise convolutions.

    tfmot neither prunes nor clusters their few weights; the same recipe means the same in every backend.
    """
    return list(dict.fromkeys(layer.name for layer in layers if depthwise or layer.kind != "depthwise"))
