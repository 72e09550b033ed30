"""A network with its optimizers, reused for every model of the same form: epochs over rows that lie in memory
in the epoch's order."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from edgeprivacy.backends.base import Weights
from edgeprivacy.backends.executorch.adam import FusedAdam
from edgeprivacy.backends.executorch.clipping import LinearClipping, clipped_one_by_one
from edgeprivacy.backends.executorch.constraints import Masks, RoundedWeights, Schedule, SharedValues
from edgeprivacy.backends.executorch.dropout import RandomBits, ShortDropout, use_short_random_numbers
from edgeprivacy.backends.executorch.frameworks import DEVICE, torch
from edgeprivacy.backends.executorch.opponent import Opponent
from edgeprivacy.backends.executorch.ops import TorchOps, two_class
from edgeprivacy.backends.executorch.tensors import (
    as_rows,
    batch_sizes,
    get_random_state,
    random_state,
    set_random_state,
    set_state,
    state_of,
)
from edgeprivacy.compression.palette import Palette
from edgeprivacy.defenses import Batch, Defense, make_defense
from edgeprivacy.defenses.dpsgd import PrivateSteps
from edgeprivacy.defenses.inference_network import draw_others
from edgeprivacy.recipe_sections import TrainingSection

_EVALUATION_BATCH = 512
# Rows are copied into an epoch's order piece by piece, so that large sets do not lie in memory twice.
_GATHERED_VALUES = 2**24


class TorchNetwork:
    """Trains and evaluates a module that has `logits(x)`.

    Args:
        model: The module; its parameters and buffers are shared, not copied.
        training: Batch size and learning rate.
        label_sets: Whether its logits are of independent labels: those of rows are 0 and 1 [rows, labels].
    """

    def __init__(self, model: Any, training: TrainingSection, label_sets: bool = False) -> None:
        self.model, self._label_sets = model.to(DEVICE), label_sets
        use_short_random_numbers(self.model)
        layers = self.model.modules()
        self.dropout_layers = sum(isinstance(layer, ShortDropout) and layer.p > 0 for layer in layers)
        self._batch, self._learning_rate = training.batch_size, training.learning_rate
        self._parameters = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self._leaves = list(self._parameters.values())
        self._masks = Masks(self._parameters)
        self._importance: list[torch.Tensor] = []
        self._frozen: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._pulled: dict[str, tuple[torch.Tensor, float]] = {}
        self._shared: dict[str, SharedValues] = {}
        self._rounded: RoundedWeights | None = None
        self._optimizers: dict[str, FusedAdam] = {}
        self._random, self._bits = random_state(0), RandomBits(0)
        self._mixes, self._noise = np.random.default_rng(0), np.random.default_rng(0)
        self._other_draws, self._seed = np.random.default_rng([0, 1]), 0
        self._others: np.ndarray = np.empty(0, np.int32)
        self._opponent: Opponent | None = None
        self._linear = LinearClipping(self.model, self._leaves)
        self._defense: Defense = make_defense("none")
        self._columns: dict[str, torch.Tensor] = {}
        self._ops = TorchOps()
        self._normed = any(name.endswith("running_var") for name, _ in self.model.named_buffers())

    def load(self, weights: Weights | None, seed: int) -> None:
        """Set all parameters and buffers (None keeps them); forget optimizers, masks, palettes and random
        state."""
        if weights is not None:
            set_state(self.model, weights)
        self._masks.clear()
        self._importance, self._frozen, self._pulled = [], [], {}
        self._shared, self._optimizers, self._rounded = {}, {}, None
        self._random, self._bits = random_state(seed), RandomBits(seed)
        self._mixes, self._noise = np.random.default_rng(seed), np.random.default_rng(seed)
        self._other_draws, self._seed = np.random.default_rng([seed, 1]), seed
        self._opponent = None

    def bind(self, x: np.ndarray, y: np.ndarray, validation_x: np.ndarray, validation_y: np.ndarray) -> None:
        """The rows that epochs and validation refer to."""
        self._x, self._y = as_rows(x), torch.from_numpy(np.asarray(y, dtype=np.int64)).to(DEVICE)
        self._validation_x = as_rows(validation_x)
        self._validation_y = torch.from_numpy(np.asarray(validation_y, dtype=np.int64)).to(DEVICE)

    def bind_others(self, x: np.ndarray, y: np.ndarray) -> None:
        """Reference rows, for defenses that want some beside each batch."""
        self._other_x, self._other_y = as_rows(x), torch.from_numpy(np.asarray(y, np.int64)).to(DEVICE)

    def use_loss(self, defense: Defense, columns: Mapping[str, np.ndarray] | None = None) -> None:
        """The loss of the passes that follow, and what it sees of the bound rows beside their labels."""
        self._defense = defense
        self._columns = {name: as_rows(value).float() for name, value in (columns or {}).items()}

    def set_masks(self, masks: Mapping[str, np.ndarray]) -> None:
        """Hold weights at zero where a mask is False, from now on; by the parameter's name."""
        self._masks.hold(masks)

    def hold_zeros(self, names: list[str]) -> None:
        """Hold those weights of these parameters that are zero now, from now on."""
        self.set_masks({name: self._parameters[name].detach().cpu().numpy() != 0 for name in names})

    def follow_schedule(self, names: list[str], schedule: Schedule) -> None:
        """Prune these parameters before each step from 1 on, by the sparsity that the schedule says."""
        self._masks.follow(names, schedule)

    def set_palettes(self, palettes: Mapping[str, Palette]) -> None:
        """Let parameters share values, from now on; by the parameter's name."""
        self._shared = {
            name: SharedValues(self._parameters[name], palette) for name, palette in palettes.items()
        }
        self._optimizers = {}

    def run_epoch(self, order: np.ndarray, weight_decay: float, optimizer: str, epoch: int = 0) -> None:
        """One pass over the bound rows in this order, in this epoch of the phase."""
        if optimizer not in self._optimizers:
            self._optimizers[optimizer] = FusedAdam(self._variables(), self._learning_rate)
        update = self._optimizers[optimizer].step
        if self._defense.wants_others:
            self._others = draw_others(len(order), len(self._other_x), self._other_draws)
        self.model.train()
        number = torch.tensor(float(epoch), device=DEVICE)
        with self._own_random_numbers():
            for x, y, seen in self._batches(np.asarray(order, dtype=np.int64)):
                self._masks.before_step()
                gradients = self._gradients(x, y, number, seen)
                if self._defense.scores_weights:
                    self._sum_up(gradients)
                if self._rounded is not None:
                    self._rounded.unround()
                update(gradients, weight_decay)
                self._hold_frozen()
                self._masks.apply()
                if self._rounded is not None:
                    self._rounded.round()
                for shared in self._shared.values():
                    shared.apply()

    def _mixed(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, float]:
        """Inputs, and where the defense mixes them the labels of what was mixed in and their own share."""
        beta = self._defense.mixing
        if not beta:
            return x, None, 1.0
        partner = torch.from_numpy(self._mixes.permutation(len(x))).to(DEVICE)
        share = float(self._mixes.beta(beta, beta))
        return share * x + (1.0 - share) * x[partner], y[partner], share

    def trainable(self) -> Weights:
        """A copy of what training moves."""
        return [leaf.detach().cpu().numpy().copy() for leaf in self._leaves]

    def importance(self) -> Weights:
        """|gradient * weight|, summed over the steps since `load`."""
        return [total.cpu().numpy() for total in self._importance]

    def freeze(self, start: Weights, frozen: Sequence[np.ndarray]) -> None:
        """Set what training moves, and hold the frozen ones there until the next `load`."""
        masks = [torch.from_numpy(mask).to(DEVICE) for mask in frozen]
        values = [torch.from_numpy(np.ascontiguousarray(value)).to(DEVICE) for value in start]
        with torch.no_grad():
            for leaf, value in zip(self._leaves, values, strict=True):
                leaf.copy_(value)
        self._frozen = list(zip(masks, values, strict=True))

    def pull(self, targets: Mapping[str, np.ndarray], strength: float) -> None:
        """Add strength / 2 * |W - target|^2 of these parameters to the loss until the next `load`."""
        self._pulled = {
            name: (torch.from_numpy(np.ascontiguousarray(target)).to(DEVICE), strength)
            for name, target in targets.items()
        }

    def hold_grid(self, steps: Mapping[int, np.ndarray], levels: Mapping[int, int]) -> None:
        """Round what training moves, by its position, until the next `load`."""
        self._rounded = RoundedWeights(self._leaves, steps, levels)

    @torch.no_grad()
    def _sum_up(self, gradients: list[torch.Tensor | None]) -> None:
        if not self._importance:
            self._importance = [torch.zeros_like(leaf) for leaf in self._leaves]
        for total, leaf, gradient in zip(self._importance, self._leaves, gradients, strict=True):
            if gradient is not None:
                total += (gradient * leaf).abs()

    @torch.no_grad()
    def _hold_frozen(self) -> None:
        for leaf, (mask, value) in zip(self._leaves, self._frozen, strict=False):
            leaf.copy_(torch.where(mask, value, leaf))

    def try_step(self, x: np.ndarray) -> None:
        """Compute the gradients of one batch [batch, ...] and forget them: what cannot train fails."""
        self.model.train()
        rows = as_rows(x).float()
        with self._own_random_numbers():
            outputs = self.model.logits(rows).shape[1:] if self._label_sets else ()
            labels = torch.zeros((len(rows), *outputs), dtype=torch.int64, device=DEVICE)
            self._gradients(rows, labels, torch.tensor(0.0, device=DEVICE), {})

    @torch.no_grad()
    def answers_alone(self, x: np.ndarray) -> bool:
        """Whether in training what a row [1, ...] is answered does not depend on the rows beside it."""
        if self._normed:
            return False
        self.model.train()
        rows = as_rows(x).float()
        with ShortDropout.drawing_from(self._bits, 0.0):
            together = self.model.logits(rows)
            alone = torch.cat([self.model.logits(row) for row in rows.split(1)])
        return bool(torch.allclose(together, alone, rtol=1e-3, atol=1e-3 * float(together.abs().max())))

    @torch.no_grad()
    def validate(self) -> float:
        """Accuracy on the bound validation rows; of independent labels the share of labels that are right."""
        self.model.eval()
        correct = 0
        for x, y in zip(
            self._validation_x.split(_EVALUATION_BATCH),
            self._validation_y.split(_EVALUATION_BATCH),
            strict=True,
        ):
            logits = two_class(self.model.logits(x.float()))
            answered = (logits > 0).long() if self._label_sets else logits.argmax(dim=-1)
            correct += int((answered == y).sum())
        return correct / max(1, self._validation_y.numel())

    def weights(self) -> Weights:
        """A copy of all parameters and buffers, in the order of `state_dict`."""
        return state_of(self.model)

    @torch.no_grad()
    def predict(self, x: np.ndarray) -> np.ndarray:
        """float32 [rows, classes]."""
        self.model.eval()
        chunks = [
            self._squashed(self.model.logits(rows.float().to(DEVICE))).cpu().numpy()
            for rows in torch.from_numpy(np.ascontiguousarray(x)).split(_EVALUATION_BATCH)
        ]
        return np.concatenate(chunks)

    def _squashed(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(logits) if self._label_sets else torch.softmax(two_class(logits), dim=-1)

    def _variables(self) -> list[torch.Tensor]:
        return [
            self._shared[name].values if name in self._shared else parameter
            for name, parameter in self._parameters.items()
        ]

    def _gradients(
        self, x: torch.Tensor, y: torch.Tensor, epoch: torch.Tensor, columns: Mapping[str, torch.Tensor]
    ) -> list[torch.Tensor | None]:
        """Of the loss, for each variable; None for what the loss does not depend on."""
        private = self._defense.private()
        if private is not None:
            gradients: list[torch.Tensor | None] = [*self._private(x, y, epoch, private)]
        else:
            gradients = self._plain(x, y, epoch, columns)
        for position, name in enumerate(self._parameters):
            gradient = gradients[position]
            if name in self._pulled and gradient is not None:
                target, strength = self._pulled[name]
                gradients[position] = gradient + strength * (self._leaves[position].detach() - target)
        return gradients

    def _plain(
        self, x: torch.Tensor, y: torch.Tensor, epoch: torch.Tensor, columns: Mapping[str, torch.Tensor]
    ) -> list[torch.Tensor | None]:
        loss = self._loss(x, y, epoch, columns)
        found: tuple[torch.Tensor | None, ...] = torch.autograd.grad(loss, self._leaves, allow_unused=True)
        return [
            self._shared[name].gradient(gradient)
            if gradient is not None and name in self._shared
            else gradient
            for name, gradient in zip(self._parameters, found, strict=True)
        ]

    def _loss(
        self, x: torch.Tensor, y: torch.Tensor, epoch: torch.Tensor, columns: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        x, partners, share = self._mixed(x, y)
        logits = two_class(self.model.logits(x))
        others = self._beside(len(x)) if self._defense.wants_others else None
        declared, inferred = self._defense.opponent(), None
        if declared is not None and others is not None:
            if self._opponent is None:
                self._opponent = Opponent(declared, logits.shape[-1], self._seed)
            self._opponent.learn(logits, y, others)
            inferred = self._opponent.logits(logits, y)
        batch = Batch(logits, y, epoch, columns, partners, share, others, inferred)
        loss: torch.Tensor = self._defense.loss(self._ops, batch)
        return loss

    def _beside(self, count: int) -> Batch:
        """The next reference rows of the epoch."""
        rows = torch.from_numpy(self._others[:count].astype(np.int64)).to(DEVICE)
        self._others = self._others[count:]
        x, y = self._other_x.index_select(0, rows).float(), self._other_y.index_select(0, rows)
        return Batch(two_class(self.model.logits(x)), y)

    def _private(
        self, x: torch.Tensor, y: torch.Tensor, epoch: torch.Tensor, private: PrivateSteps
    ) -> list[torch.Tensor]:
        """The rows' clipped gradients and noise, over the expected size of a batch."""
        variables, total = self._variables(), None
        if self._linear.fits and not self._shared and len(x):
            total = self._linear.clipped(lambda: self._loss(x, y, epoch, {}), len(x), private.clip)
        if total is None:
            zeros = [torch.zeros_like(variable) for variable in variables]
            total = clipped_one_by_one(
                lambda row: self._plain(x[row : row + 1], y[row : row + 1], epoch, {}),
                len(x),
                zeros,
                private.clip,
            )
        noise = private.noise_like([tuple(variable.shape) for variable in variables], self._noise)
        return [
            (each + torch.from_numpy(drawn).to(DEVICE)) / self._batch
            for each, drawn in zip(total, noise, strict=True)
        ]

    def _batches(
        self, order: np.ndarray
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]]:
        private = self._defense.private()
        if private is None:
            yield from self._in_order(torch.from_numpy(order).to(DEVICE))
            return
        for drawn in private.batches(order, self._batch, self._noise):
            rows = torch.from_numpy(drawn).to(DEVICE)
            yield self._x.index_select(0, rows).float(), self._y.index_select(0, rows), {}

    def _in_order(
        self, order: torch.Tensor
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]]:
        values = max(1, self._x[:1].numel())
        piece = self._batch * max(1, _GATHERED_VALUES // (values * self._batch))
        for start in range(0, len(order), piece):
            rows = order[start : start + piece]
            sizes = batch_sizes(len(rows), self._batch, self._normed)
            x = self._x.index_select(0, rows).float().split(sizes)
            y = self._y.index_select(0, rows).split(sizes)
            columns = {name: c.index_select(0, rows).split(sizes) for name, c in self._columns.items()}
            for number in range(len(sizes)):
                yield x[number], y[number], {name: parts[number] for name, parts in columns.items()}

    @contextlib.contextmanager
    def _own_random_numbers(self) -> Iterator[None]:
        """Dropout draws from this network's own streams, whatever else the process draws."""
        devices = [DEVICE] if DEVICE.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            set_random_state(self._random)
            # On a GPU torch's own numbers are the faster ones.
            stream = self._bits if DEVICE.type == "cpu" else None
            with ShortDropout.drawing_from(stream, self._defense.dropout):
                yield
            self._random = get_random_state()
