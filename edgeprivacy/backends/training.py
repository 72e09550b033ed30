"""What every backend's session does alike: which layers, which rows, which seeds, which schedule."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeprivacy.backends.base import Material, Weights
from edgeprivacy.backends.fitting import fit
from edgeprivacy.backends.layers import Layer, names_of, pruned_layers
from edgeprivacy.backends.phases import Phases
from edgeprivacy.backends.planning import low_bits_of
from edgeprivacy.backends.work import TrainableNetwork, Work, bind
from edgeprivacy.compression.grid import FULL, largest_multiple
from edgeprivacy.compression.magnitude import polynomial_end
from edgeprivacy.converters import Request
from edgeprivacy.data.dataset import Dataset
from edgeprivacy.defenses import Defense, TrainingRows, make_defense
from edgeprivacy.errors import RecipeError
from edgeprivacy.recipe import Recipe
from edgeprivacy.seeding import derive_seed, generator


class TrainingSession(Phases):
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
        self._clustered = names_of(layers, depthwise=False) if recipe.cluster.clusters else []

    @abstractmethod
    def _train_by_function(self, function: str, material: Material, seed: int) -> Weights:
        """Weights that the user's own training function gives."""

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
                    hint="--model mlp, cnn or resnet-no-norm; or FILE.py:FUNCTION without it",
                )

    def check_dropout(self) -> None:
        """Raise RecipeError where a defense wants dropout and the network has none."""
        for arm in self.recipe.arms:
            if make_defense(arm.name, arm.settings).dropout and not self._network.dropout_layers:
                raise RecipeError(
                    f"defense '{arm.name}' sets the rate of dropout layers, and this network has none",
                    got=f"model {self.recipe.model.source}",
                    allowed="networks with Dropout layers of a rate above 0, such as mlp",
                    hint="model.dropout is the rate of those that take one; others need the layers built in",
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

    def _request(self, defense: Defense) -> Request:
        """What every file of a compressed model must hold, but for its format."""
        sparsity, clusters = self.recipe.prune.sparsity, self.recipe.cluster.clusters
        low_bits, bits = low_bits_of(self.recipe, defense), []
        values = [clusters if layer.name in self._clustered else None for layer in self._layers]
        if low_bits is not None:
            found = self._bits(low_bits)
            bits = [found[layer.name] if found[layer.name] < FULL else None for layer in self._layers]
            values = [None if b is None else 2 * largest_multiple(b) + 1 for b in bits]
        return Request(
            "float32",
            tuple(sparsity if layer.name in self._pruned else None for layer in self._layers),
            tuple(values),
            tuple(bits),
        )
