"""What becomes of an original, phase by phase, under a defense: pruned, rewound, rounded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.backends.base import Material, Weights
from edgeprivacy.backends.fitting import Fit, fit
from edgeprivacy.backends.layers import Layer
from edgeprivacy.backends.planning import low_bits_of
from edgeprivacy.backends.work import Held, TrainableNetwork, Work, bind
from edgeprivacy.compression.grid import FULL, LowBits, grid_steps, largest_multiple
from edgeprivacy.compression.magnitude import iterative_sparsity, magnitude_masks
from edgeprivacy.defenses import Defense
from edgeprivacy.defenses.cwrf import Rewinding
from edgeprivacy.recipe import Recipe
from edgeprivacy.seeding import derive_seed, generator


class Phases(ABC):
    """The phases that every backend's session has, on the network that it supplies.

    Attributes:
        recipe: What to make.
    """

    recipe: Recipe
    _layers: tuple[Layer, ...]
    _network: Any
    _pruned: list[str]

    @abstractmethod
    def initial_weights(self, seed: int) -> Weights:
        """See `Session.initial_weights`."""

    @abstractmethod
    def predict(self, weights: Weights, x: NDArray[Any]) -> NDArray[np.float32]:
        """See `Session.predict`."""

    @abstractmethod
    def _set_masks(self, masks: Sequence[NDArray[np.bool_]]) -> None:
        """Hold the pruned layers' weights at zero where a mask is False, from now on."""

    @abstractmethod
    def _pruned_kernels(self) -> Weights:
        """The weights that pruning may hold at zero, an array a layer, as they are in the network now."""

    @abstractmethod
    def _pull(self, targets: Weights, strength: float) -> None:
        """Add strength / 2 * |W - target|^2 of the pruned kernels to the loss until the next `load`."""

    @abstractmethod
    def _hold_zeros(self) -> None:
        """Hold the pruned layers' weights that are zero now at zero, from now on."""

    @abstractmethod
    def _kernels(self) -> dict[str, tuple[int, int]]:
        """Of each weighted layer that is trained: where its weights are in the network's `trainable`, and
        which axis is that of their output channels."""

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
                self._hold_smallest(sparsity, work.held)
            if work.held is not None:
                network.freeze(network.trainable(), work.held.frozen)
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

    def _hold_smallest(self, sparsity: float, held: Held | None = None) -> None:
        """Hold the smallest weights of the network as it is at zero, from now on."""
        kernels = self._pruned_kernels()
        if held is not None:
            at = self._kernels()
            spared = [held.spared[at[name][0]] for name in self._pruned]
            kernels = [np.where(of, np.inf, kernel) for of, kernel in zip(spared, kernels, strict=True)]
        self._set_masks(magnitude_masks(kernels, sparsity))

    def _rewind_first(self, original: Weights, work: Work) -> tuple[Weights, Work]:
        """The original with its vulnerable weights rewound, where the defense wants that before pruning, and
        what pruning then may not touch."""
        rewinding, network = work.defense.rewinding(), self._network
        if rewinding is None or rewinding.when == "after":
            return original, work
        start, frozen, vulnerable = self._vulnerable(original, work, rewinding)
        network.load(original, derive_seed(work.seed, "dropout", "rewind"))
        network.freeze(start, frozen)
        work.history.append({"phase": "rewind", "rewound": _share(vulnerable)})
        return network.weights(), replace(work, held=Held(frozen, vulnerable))

    def _rewind(self, weights: Weights, work: Work) -> Weights:
        """Set the vulnerable ones of the weights that pruning left back to where they began, and fine-tune
        the others."""
        rewinding, network = work.defense.rewinding(), self._network
        if rewinding is None or rewinding.when == "before":
            return weights
        start, frozen, vulnerable = self._vulnerable(weights, work, rewinding)
        bind(network, work.material)
        network.load(weights, derive_seed(work.seed, "dropout", "rewind"))
        self._hold_zeros()
        network.freeze(start, frozen)
        result = self._fit(network, work, self.recipe.prune.finetune_epochs, "rewind")
        work.history.append({**result.summary("rewind"), "rewound": _share(vulnerable)})
        return result.best

    def _vulnerable(
        self, weights: Weights, work: Work, rewinding: Rewinding
    ) -> tuple[list[NDArray[Any]], list[NDArray[np.bool_]], list[NDArray[np.bool_]]]:
        """Score the weights: where fine-tuning starts, what it leaves alone, and which are vulnerable."""
        network, material = self._network, work.material
        initial = self.initial_weights(derive_seed(work.seed, "initial weights"))
        untrained = np.maximum(self.predict(initial, material.reference.x), np.finfo(np.float32).tiny)
        network.load(initial, 0)
        began = network.trainable()
        self._bind_probe(material, untrained, rewinding.probe())
        network.load(weights, derive_seed(work.seed, "dropout", "probe"))
        self._hold_zeros()  # what pruning took has no part in what the network answers while it is probed
        trained, rng = network.trainable(), generator(work.seed, "order", "probe")
        for epoch in range(rewinding.epochs):
            order = _side_by_side(len(material.train), len(material.reference), rng)
            network.run_epoch(order, 0.0, "probe", epoch)
        vulnerable = rewinding.chosen(network.importance(), trained)
        bind(network, material)
        return *rewinding.start(vulnerable, trained, began), vulnerable

    def _round(self, weights: Weights, work: Work) -> Weights:
        """Train the weights on a grid of few bits, where the recipe or the defense wants one."""
        low_bits, network = low_bits_of(self.recipe, work.defense), self._network
        if low_bits is None:
            return weights
        bind(network, work.material)
        network.load(weights, derive_seed(work.seed, "dropout", "grid"))
        self._hold_zeros()
        trained, bits, steps, levels = network.trainable(), self._bits(low_bits), {}, {}
        for name, (position, axis) in self._kernels().items():
            if bits[name] < FULL:
                steps[position] = grid_steps(trained[position], bits[name], axis)
                levels[position] = largest_multiple(bits[name])
        network.hold_grid(steps, levels)
        result = self._fit(network, work, low_bits.epochs, "grid")
        work.history.append({**result.summary("grid"), "bits": bits})
        return result.best

    def _bits(self, low_bits: LowBits) -> dict[str, int]:
        """Bits of each weighted layer."""
        kernels, bits = self._kernels(), low_bits.of_layers(len(self._layers))
        return {
            layer.name: wanted if layer.name in kernels else FULL
            for layer, wanted in zip(self._layers, bits, strict=True)
        }

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


def _share(vulnerable: Sequence[NDArray[np.bool_]]) -> float:
    chosen = sum(int(each.sum()) for each in vulnerable)
    return round(chosen / sum(each.size for each in vulnerable), 6)


def _side_by_side(members: int, others: int, rng: np.random.Generator) -> NDArray[np.int32]:
    """An order in which members and reference rows take turns, so that every batch holds as many of the one
    as of the other; of the fewer ones each stands several times."""
    inside = rng.permutation(members)
    rounds = -(-members // others)
    outside = np.concatenate([rng.permutation(others) for _ in range(rounds)])[:members] + members
    return np.stack([inside, outside], axis=1).ravel().astype(np.int32)
