"""A compiled network: one TensorFlow function a whole epoch, reused for every model of the same form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgeprivacy.backends.tflite.adam import FusedAdam
from edgeprivacy.backends.tflite.clipping import DenseClipping, clipped_one_by_one
from edgeprivacy.backends.tflite.dropout import dropping_out, random_generators, use_short_random_numbers
from edgeprivacy.backends.tflite.frameworks import keras, tf
from edgeprivacy.backends.tflite.opponent import Opponent
from edgeprivacy.backends.tflite.ops import TensorFlowOps, two_class, two_class_probabilities
from edgeprivacy.backends.tflite.rounding import RoundedWeights
from edgeprivacy.defenses import Batch, Defense
from edgeprivacy.defenses.dpsgd import PrivateSteps
from edgeprivacy.defenses.inference_network import draw_others
from edgeprivacy.defenses.mixup import draw_mix
from edgeprivacy.recipe_sections import TrainingSection

_EVALUATION_BATCH = 512


class CompiledNetwork:
    """Trains and evaluates a tf_keras model that ends in a separate softmax or sigmoid layer.

    Tracing costs about a second, an epoch of a small network milliseconds: the compiled functions outlive the
    model's weights, which `load` replaces together with all optimizer and dropout state.

    Args:
        model: The model; its variables are shared, not copied.
        training: Batch size and learning rate.
        masked: Kernels that `set_masks` can hold at zero.
        label_sets: Whether its sigmoids answer independent labels: those of rows are 0 and 1 [rows, labels].
    """

    def __init__(
        self, model, training: TrainingSection, masked: Sequence = (), label_sets: bool = False
    ) -> None:
        self.model = model
        self._label_sets = label_sets
        self._labels_spec = tf.TensorSpec([None, None] if label_sets else [None], tf.int64)
        self._batch = training.batch_size
        self._learning_rate = training.learning_rate
        self._logits = keras.Model(model.inputs, _logits_of(model))
        self._variables = model.trainable_variables
        self._masked = list(masked)
        self._masks = [tf.Variable(tf.ones_like(kernel), trainable=False) for kernel in self._masked]
        # Layers wrapped by tfmot's pruning: the step counters that they advance in every training call, and
        # kernels with the masks they compute.
        self._counters = [layer.pruning_step for layer in model.layers if hasattr(layer, "pruning_step")]
        self._wrapped = [pair[:2] for layer in model.layers for pair in getattr(layer, "pruning_vars", ())]
        self.dropout_layers = use_short_random_numbers(model)
        self._generators = list(random_generators(model))
        self._mixes, self._noise = np.random.default_rng(0), np.random.default_rng(0)
        self._other_draws, self._seed = np.random.default_rng([0, 1]), 0
        self._opponents: dict[Defense, Opponent] = {}
        self._other_rows: tuple = ()
        self._dense = DenseClipping(self._logits, self._variables)
        self._optimizers: dict[str, FusedAdam] = {}
        # What a step may sum up of the variables, and the values that it must not move them from; made when
        # they are first asked for.
        self._importance: list[tf.Variable] = []
        self._frozen: list[tuple[tf.Variable, tf.Variable]] = []
        self._targets: list[tf.Variable] = []
        self._strength = tf.Variable(0.0, trainable=False)
        self._rounded = RoundedWeights(self._variables)
        # Which of these three are at work since `load`.
        self._holds: frozenset[str] = frozenset()
        self._epochs: dict[tuple[str, int, frozenset[str]], object] = {}
        self._losses: list[Defense] = []
        self._accuracy = tf.function(
            self._count_correct,
            input_signature=[_rows_spec(model), self._labels_spec],
        )
        self._probabilities = tf.function(
            lambda x: two_class_probabilities(model(x, training=False)), input_signature=[_rows_spec(model)]
        )

    def load(self, weights: Sequence[np.ndarray] | None, seed: int) -> None:
        """Set all variables (None keeps them); forget optimizers, masks and random state."""
        if weights is not None:
            for variable, value in zip(self.model.weights, weights, strict=True):
                variable.assign(value)
        for optimizer in self._optimizers.values():
            optimizer.reset()
        for mask in self._masks:
            mask.assign(tf.ones_like(mask))
        for total in self._importance:
            total.assign(tf.zeros_like(total))
        self._holds = frozenset()
        for counter in self._counters:
            counter.assign(0)
        self._mixes, self._noise = np.random.default_rng(seed), np.random.default_rng(seed)
        self._other_draws, self._seed = np.random.default_rng([seed, 1]), seed
        for opponent in self._opponents.values():
            opponent.restart(seed)
        for number, random in enumerate(self._generators):
            random.reset_from_seed((seed + 7919 * number) % 2**63)

    def bind(self, x: np.ndarray, y: np.ndarray, validation_x: np.ndarray, validation_y: np.ndarray) -> None:
        """The rows that epochs and validation refer to."""
        self._x, self._y = tf.constant(x, tf.float32), tf.constant(y, tf.int64)
        self._validation = tf.constant(validation_x, tf.float32), tf.constant(validation_y, tf.int64)

    def bind_others(self, x: np.ndarray, y: np.ndarray) -> None:
        """Reference rows, for defenses that want some beside each batch."""
        self._other_rows = tf.constant(x, tf.float32), tf.constant(y, tf.int64)

    def use_loss(self, defense: Defense, columns: Mapping[str, np.ndarray] | None = None) -> None:
        """The loss of the passes that follow, and what it sees of the bound rows beside their labels."""
        self._defense = defense
        self._columns = {name: tf.constant(value, tf.float32) for name, value in (columns or {}).items()}

    def set_masks(self, masks: Sequence[np.ndarray]) -> None:
        """Hold weights at zero where a mask is False, from now on."""
        for kernel, variable, mask in zip(self._masked, self._masks, masks, strict=True):
            variable.assign(mask.astype(np.float32))
            kernel.assign(kernel * variable)

    def hold_zeros(self) -> None:
        """Hold the weights that are zero now, from now on."""
        self.set_masks([kernel.numpy() != 0 for kernel in self._masked])

    def run_epoch(self, order: np.ndarray, weight_decay: float, optimizer: str, epoch: int = 0) -> None:
        """One pass over the bound rows in this order, in this epoch of the phase."""
        private = self._defense.private()
        if private is not None:
            self._run_private_epoch(order, weight_decay, optimizer, private)
            return
        self._epoch_function(optimizer)(
            self._x,
            self._y,
            self._columns,
            tf.constant(order, tf.int32),
            tf.constant(weight_decay, tf.float32),
            tf.constant(epoch, tf.float32),
            *self._mix(order),
            *self._beside(len(order)),
        )

    def _beside(self, count: int):
        """Reference rows, and which of them stands beside each row of the epoch."""
        if not self._defense.wants_others:
            return self._x[:0], self._y[:0], tf.constant([], tf.int32)
        x, y = self._other_rows
        return x, y, tf.constant(draw_others(count, len(x), self._other_draws), tf.int32)

    def _run_private_epoch(
        self, order: np.ndarray, weight_decay: float, optimizer: str, private: PrivateSteps
    ) -> None:
        """Steps on batches of their own drawing, each with its noise."""
        step = self._epoch_function(optimizer)
        shapes = [tuple(variable.shape) for variable in self._variables]
        decay = tf.constant(weight_decay, tf.float32)
        for rows in private.batches(order, self._batch, self._noise):
            noise = [tf.constant(drawn) for drawn in private.noise_like(shapes, self._noise)]
            step(self._x, self._y, tf.constant(rows, tf.int32), decay, noise)

    def _mix(self, order: np.ndarray):
        """Partner of each row and share of each batch, where the defense mixes inputs."""
        if not self._defense.mixing:
            return tf.constant([], tf.int32), tf.constant([], tf.float32)
        partners, shares = draw_mix(order, self._batch, self._defense.mixing, self._mixes)
        return tf.constant(partners, tf.int32), tf.constant(shares, tf.float32)

    def validate(self) -> float:
        """Accuracy on the bound validation rows; of independent labels the share of labels that are right."""
        x, y = self._validation
        return float(self._accuracy(x, y)) / max(1, int(tf.size(y)))

    def trainable(self) -> list[np.ndarray]:
        """A copy of what training moves."""
        return [variable.numpy() for variable in self._variables]

    def importance(self) -> list[np.ndarray]:
        """|gradient * weight|, summed over the steps since `load`."""
        return [total.numpy() for total in self._importance]

    def freeze(self, start: Sequence[np.ndarray], frozen: Sequence[np.ndarray]) -> None:
        """Set what training moves, and hold the frozen ones there until the next `load`."""
        if not self._frozen:
            zeros = [[tf.zeros_like(variable)] * 2 for variable in self._variables]
            self._frozen = [tuple(tf.Variable(z, trainable=False) for z in pair) for pair in zeros]
        self._holds |= {"frozen"}
        for variable, (moves, held), value, mask in zip(
            self._variables, self._frozen, start, frozen, strict=True
        ):
            variable.assign(value)
            moves.assign((~mask).astype(np.float32))
            held.assign(np.where(mask, value, 0))

    def pull(self, targets: Sequence[np.ndarray], strength: float) -> None:
        """Add strength / 2 * |W - target|^2 of the maskable kernels to the loss until the next `load`."""
        if not self._targets:
            self._targets = [tf.Variable(tf.zeros_like(k), trainable=False) for k in self._masked]
        for variable, target in zip(self._targets, targets, strict=True):
            variable.assign(target)
        self._strength.assign(strength)
        self._holds |= {"pulled"}

    def hold_grid(self, steps: Mapping[int, np.ndarray], levels: Mapping[int, int]) -> None:
        """Round what training moves, by its position, until the next `load`."""
        self._rounded.hold(steps, levels)
        self._holds |= {"rounded"}

    def _pulled(self, gradients):
        drawn = {
            kernel.ref(): self._strength * (kernel - target)
            for kernel, target in zip(self._masked, self._targets, strict=True)
        }
        return [
            gradient + drawn[variable.ref()] if variable.ref() in drawn else gradient
            for variable, gradient in zip(self._variables, gradients, strict=True)
        ]

    def answers_alone(self, x: np.ndarray) -> bool:
        """Whether in training what a row [1, ...] is answered does not depend on the rows beside it."""
        before, rows = self.model.get_weights(), tf.constant(x, tf.float32)
        with dropping_out(0.0):
            together = self._logits(rows, training=True).numpy()
            alone = np.concatenate(
                [self._logits(rows[k : k + 1], training=True).numpy() for k in range(len(x))]
            )
        self.model.set_weights(before)
        return bool(np.allclose(together, alone, rtol=1e-3, atol=1e-3 * np.abs(together).max()))

    def weights(self) -> list[np.ndarray]:
        """A copy of all variables."""
        return [variable.numpy() for variable in self.model.weights]

    def predict(self, x: np.ndarray) -> np.ndarray:
        """float32 [rows, classes]."""
        chunks = [
            self._probabilities(tf.constant(x[start : start + _EVALUATION_BATCH], tf.float32)).numpy()
            for start in range(0, len(x), _EVALUATION_BATCH)
        ]
        return np.concatenate(chunks)

    def _epoch_function(self, name: str):
        if self._defense not in self._losses:
            self._losses.append(self._defense)
        # Defenses that do not change a step share one compiled epoch.
        own_step = type(self._defense).loss is not Defense.loss or self._defense.dropout is not None
        compile_epoch = self._compile_epoch if self._defense.private() is None else self._compile_private_step
        key = (name, self._losses.index(self._defense) if own_step else -1, self._holds)
        if self._defense.scores_weights and not self._importance:
            self._importance = [tf.Variable(tf.zeros_like(v), trainable=False) for v in self._variables]
        declared = self._defense.opponent()
        if declared is not None and self._defense not in self._opponents:
            classes = max(2, int(self.model.outputs[0].shape[-1]))
            self._opponents[self._defense] = Opponent(declared, classes, self._seed)
        if key not in self._epochs:
            self._epochs[key] = compile_epoch(self._optimizer(name), self._defense)
        return self._epochs[key]

    def _optimizer(self, name: str) -> FusedAdam:
        if name not in self._optimizers:
            self._optimizers[name] = FusedAdam(self._variables, self._learning_rate)
        return self._optimizers[name]

    def _compile_epoch(self, optimizer: FusedAdam, defense: Defense):
        ops, variables, batch = TensorFlowOps(), self._variables, self._batch
        holds, opponent = self._holds, self._opponents.get(defense)

        def epoch(x, y, columns, order, weight_decay, number, partners, shares, other_x, other_y, beside):
            for start in tf.range(0, tf.size(order), batch):
                rows = order[start : start + batch]
                seen = {name: tf.gather(column, rows) for name, column in columns.items()}
                inputs, others, share = tf.gather(x, rows), None, 1.0
                if defense.mixing:
                    mixed_in, share = partners[start : start + batch], shares[start // batch]
                    inputs = share * inputs + (1.0 - share) * tf.gather(x, mixed_in)
                    others = tf.gather(y, mixed_in)
                with tf.GradientTape() as tape, dropping_out(defense.dropout):
                    logits, labels = two_class(self._logits(inputs, training=True)), tf.gather(y, rows)
                    reference = inferred = None
                    if defense.wants_others:
                        of = beside[start : start + batch]
                        answers = two_class(self._logits(tf.gather(other_x, of), training=True))
                        reference = Batch(answers, tf.gather(other_y, of))
                    if opponent is not None and reference is not None:
                        opponent.learn(logits, labels, reference)
                        inferred = opponent.logits(logits, labels)
                    batch_seen = Batch(logits, labels, number, seen, others, share, reference, inferred)
                    loss = defense.loss(ops, batch_seen)
                gradients = tape.gradient(loss, variables)
                if defense.scores_weights:
                    for total, variable, gradient in zip(self._importance, variables, gradients, strict=True):
                        if gradient is not None:
                            total.assign_add(tf.abs(gradient * variable))
                self._update(gradients, weight_decay, optimizer, holds)

        return tf.function(
            epoch,
            input_signature=[
                _rows_spec(self.model),
                self._labels_spec,
                {name: _any_rows(column) for name, column in self._columns.items()},
                tf.TensorSpec([None], tf.int32),
                tf.TensorSpec([], tf.float32),
                tf.TensorSpec([], tf.float32),
                tf.TensorSpec([None], tf.int32),
                tf.TensorSpec([None], tf.float32),
                _rows_spec(self.model),
                self._labels_spec,
                tf.TensorSpec([None], tf.int32),
            ],
        )

    def _update(self, gradients, weight_decay, optimizer: FusedAdam, holds: frozenset[str]) -> None:
        """Move the variables, but for what is held."""
        if "pulled" in holds:
            gradients = self._pulled(gradients)
        if "rounded" in holds:
            self._rounded.unround()
        optimizer.apply(gradients, weight_decay)
        if "frozen" in holds:
            for variable, (moves, held) in zip(self._variables, self._frozen, strict=True):
                variable.assign(variable * moves + held)
        for kernel, mask in [*zip(self._masked, self._masks, strict=True), *self._wrapped]:
            kernel.assign(kernel * mask)
        if "rounded" in holds:
            self._rounded.round()

    def _compile_private_step(self, optimizer: FusedAdam, defense: Defense):
        """One step on the rows of a batch, with noise for the sum of their clipped gradients."""
        holds, batch = self._holds, self._batch

        def step(x, y, rows, weight_decay, noise):
            sums = self._clipped_sum(tf.gather(x, rows), tf.gather(y, rows), defense)
            gradients = [(total + drawn) / batch for total, drawn in zip(sums, noise, strict=True)]
            self._update(gradients, weight_decay, optimizer, holds)

        return tf.function(
            step,
            input_signature=[
                _rows_spec(self.model),
                self._labels_spec,
                tf.TensorSpec([None], tf.int32),
                tf.TensorSpec([], tf.float32),
                [tf.TensorSpec(variable.shape, tf.float32) for variable in self._variables],
            ],
        )

    def _clipped_sum(self, x, y, defense: Defense) -> list:
        private, ops = defense.private(), TensorFlowOps()
        assert private is not None

        def loss(logits, labels):
            return defense.loss(ops, Batch(two_class(logits), labels))

        if self._dense.fits:
            return self._dense.clipped(lambda logits: loss(logits, y), x, private.clip)
        # What counts steps and watches ranges sees the batch once; rows are then asked without dropout.
        with dropping_out(0.0):
            self._logits(x, training=True)
        return clipped_one_by_one(
            lambda row: loss(self._logits(x[row : row + 1], training=False), y[row : row + 1]),
            self._variables,
            tf.shape(y)[0],
            private.clip,
        )

    def _count_correct(self, x, y):
        correct = tf.constant(0, tf.int64)
        for start in tf.range(0, tf.shape(y)[0], _EVALUATION_BATCH):
            logits = two_class(self._logits(x[start : start + _EVALUATION_BATCH], training=False))
            answered = tf.cast(logits > 0, tf.int64) if self._label_sets else tf.argmax(logits, axis=-1)
            hits = answered == y[start : start + _EVALUATION_BATCH]
            correct += tf.reduce_sum(tf.cast(hits, tf.int64))
        return correct


def _logits_of(model):
    """What goes into the last layer in this very model: layers that it shares with another have several."""
    last, node, _ = model.outputs[0]._keras_history
    return last.get_input_at(node)


def _rows_spec(model):
    return _any_rows(model.inputs[0])


def _any_rows(array):
    return tf.TensorSpec([None, *array.shape[1:]], tf.float32)
