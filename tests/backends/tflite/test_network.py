"""The compiled epoch against the same steps written in numpy: Adam, coupled L2, two optimizers, masks."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprivacy.defenses import make_defense

pytestmark = pytest.mark.tflite
RATE, B1, B2, EPSILON = 1e-2, 0.9, 0.999, 1e-8


class Adam:
    """Kingma & Ba (2015), with the efficient form's bias correction; moments of its own."""

    def __init__(self, parameters: list[np.ndarray]) -> None:
        self.step = 0
        self.m, self.v = ([np.zeros_like(p) for p in parameters] for _ in range(2))

    def apply(self, parameters: list[np.ndarray], gradients: list[np.ndarray]) -> None:
        self.step += 1
        rate = RATE * np.sqrt(1 - B2**self.step) / (1 - B1**self.step)
        for k, (p, g) in enumerate(zip(parameters, gradients, strict=True)):
            self.m[k] = B1 * self.m[k] + (1 - B1) * g
            self.v[k] = B2 * self.v[k] + (1 - B2) * g * g
            p -= rate * self.m[k] / (np.sqrt(self.v[k]) + EPSILON)


def gradients(parameters: list[np.ndarray], x: np.ndarray, y: np.ndarray, decay: float) -> list[np.ndarray]:
    """Of mean softmax cross-entropy plus decay/2 * |W|^2 over kernel and bias alike."""
    kernel, bias = parameters
    z = x @ kernel + bias
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(len(y)), y] -= 1
    p /= len(y)
    return [x.T @ p + decay * kernel, p.sum(axis=0) + decay * bias]


@pytest.fixture(scope="module")
def linear(tools, keras):
    """A softmax regression, compiled, and its rows."""
    from edgeprivacy.backends.tflite.network import CompiledNetwork

    inputs = keras.Input((12,))
    logits = keras.layers.Dense(3, name="logits")(inputs)
    model = keras.Model(inputs, keras.layers.Softmax()(logits))
    training = tools.recipe(training__learning_rate=RATE, training__batch_size=8).training
    network = CompiledNetwork(model, training, [model.get_layer("logits").kernel])
    rows = tools.material().train
    network.bind(rows.x, rows.y, rows.x, rows.y)
    network.use_loss(make_defense("none"))
    return network, rows


def start(network, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=(12, 3)).astype(np.float32), rng.normal(size=3).astype(np.float32)]
    network.load(weights, 0)
    return [w.astype(np.float64) for w in weights]


def run_numpy(parameters, rows, plan, mask=None) -> None:
    """`plan`: (order, decay, optimizer) of each pass."""
    optimizers: dict[str, Adam] = {}
    for order, decay, name in plan:
        adam = optimizers.setdefault(name, Adam(parameters))
        for begin in range(0, len(order), 8):
            batch = order[begin : begin + 8]
            adam.apply(parameters, gradients(parameters, rows.x[batch].astype(float), rows.y[batch], decay))
            if mask is not None:
                parameters[0] *= mask


def plan_of(*passes: tuple[str, float], epochs: int = 3, seed: int = 0):
    rng = np.random.default_rng(seed)
    return [(rng.permutation(45), decay, name) for _ in range(epochs) for name, decay in passes]


@pytest.mark.parametrize("decay", [0.0, 5e-4, 0.1])
def test_an_epoch_is_adam_with_coupled_decay_on_every_parameter(linear, decay: float) -> None:
    network, rows = linear
    parameters, plan = start(network), plan_of(("general", decay))  # 45 rows: the last batch is short
    for order, weight_decay, name in plan:
        network.run_epoch(order, weight_decay, name)
    run_numpy(parameters, rows, plan)
    for ours, theirs in zip(network.weights(), parameters, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_two_optimizers_share_the_parameters_not_the_moments(linear) -> None:
    network, rows = linear
    parameters, plan = start(network), plan_of(("risky", 0.1), ("general", 5e-4))
    for order, weight_decay, name in plan:
        network.run_epoch(order, weight_decay, name)
    run_numpy(parameters, rows, plan)
    one = start(network)
    run_numpy(one, rows, [(order, decay, "general") for order, decay, _ in plan])
    network.load([w.astype(np.float32) for w in start(network)], 0)
    for order, weight_decay, name in plan:
        network.run_epoch(order, weight_decay, name)
    for ours, theirs in zip(network.weights(), parameters, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)
    assert np.abs(one[0] - parameters[0]).max() > 1e-3  # one set of moments would be another result


def test_masked_weights_are_zero_after_every_step(linear) -> None:
    network, rows = linear
    parameters, plan = start(network), plan_of(("risky", 0.1), ("general", 5e-4), epochs=2)
    mask = np.random.default_rng(1).random((12, 3)) < 0.4
    network.set_masks([mask])
    parameters[0] *= mask
    for order, weight_decay, name in plan:
        network.run_epoch(order, weight_decay, name)
        assert np.all(network.weights()[0][~mask] == 0) and np.all(network.weights()[0][mask] != 0)
    run_numpy(parameters, rows, plan, mask)
    np.testing.assert_allclose(network.weights()[0], parameters[0], atol=2e-5)


def test_loading_forgets_masks_moments_and_steps(linear) -> None:
    network, rows = linear
    plan = plan_of(("general", 5e-4))
    start(network)
    network.set_masks([np.zeros((12, 3), bool)])
    for order, weight_decay, name in plan:
        network.run_epoch(order, weight_decay, name)
    parameters = start(network)
    for order, weight_decay, name in plan:
        network.run_epoch(order, weight_decay, name)
    run_numpy(parameters, rows, plan)
    np.testing.assert_allclose(network.weights()[0], parameters[0], atol=2e-5)


def test_predictions_and_accuracy_are_those_of_numpy(linear) -> None:
    network, rows = linear
    kernel, bias = start(network)
    x = np.tile(rows.x, (15, 1))  # 1350 rows: more than one evaluation batch
    z = x @ kernel + bias
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(network.predict(x), p, atol=1e-5)
    y = np.tile(rows.y, 15)
    network.bind(rows.x, rows.y, x, y)
    assert network.validate() == pytest.approx(np.mean(p.argmax(axis=1) == y))
    network.bind(rows.x, rows.y, rows.x, rows.y)


def test_importance_is_the_sum_over_steps_of_gradient_times_weight(linear) -> None:
    network, rows = linear

    class Scoring(type(make_defense("none"))):
        scores_weights = True

    parameters, (plan, *_) = start(network), plan_of(("probe", 0.0), epochs=1)
    order = plan[0]
    network.use_loss(Scoring())
    network.run_epoch(order, 0.0, "probe")
    found = network.importance()
    network.use_loss(make_defense("none"))
    adam, totals = Adam(parameters), [np.zeros_like(p) for p in parameters]
    for begin in range(0, len(order), 8):
        batch = order[begin : begin + 8]
        g = gradients(parameters, rows.x[batch].astype(float), rows.y[batch], 0.0)
        totals = [total + np.abs(one * p) for total, one, p in zip(totals, g, parameters, strict=True)]
        adam.apply(parameters, g)
    for ours, theirs in zip(found, totals, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    start(network)
    assert not any(total.any() for total in network.importance())


def test_frozen_weights_stay_through_momentum_and_decay_until_the_next_load(linear) -> None:
    network, rows = linear
    start(network)
    plan = plan_of(("general", 0.0), ("general", 0.1), epochs=2)
    (first, second), rng = (plan[:1], plan[1:]), np.random.default_rng(8)
    network.run_epoch(*first[0][:2], first[0][2])
    began = [rng.normal(size=p.shape).astype(np.float32) for p in network.trainable()]
    masks = [rng.random(p.shape) < 0.4 for p in began]
    network.freeze(began, masks)
    for order, weight_decay, name in second:
        network.run_epoch(order, weight_decay, name)
    for mask, value, weight in zip(masks, began, network.trainable(), strict=True):
        np.testing.assert_array_equal(weight[mask], value[mask])
        assert (weight[~mask] != value[~mask]).all()
    free = start(network)
    run_numpy(free, rows, plan)
    for order, weight_decay, name in plan:
        network.run_epoch(order, weight_decay, name)
    for ours, theirs in zip(network.weights(), free, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_a_pull_is_the_gradient_of_half_the_squared_distance_and_ends_with_the_next_load(linear) -> None:
    network, rows = linear
    parameters, plan = start(network), plan_of(("general", 5e-4), epochs=2)
    target = np.random.default_rng(4).normal(size=parameters[0].shape).astype(np.float32)
    network.pull([target], 0.7)
    for order, weight_decay, name in plan:
        network.run_epoch(order, weight_decay, name)
    adam = Adam(parameters)
    for order, decay, _ in plan:
        for begin in range(0, len(order), 8):
            batch = order[begin : begin + 8]
            g = gradients(parameters, rows.x[batch].astype(float), rows.y[batch], decay)
            g[0] = g[0] + 0.7 * (parameters[0] - target)
            adam.apply(parameters, g)
    for ours, theirs in zip(network.weights(), parameters, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)
    free = start(network)
    run_numpy(free, rows, plan)
    for order, weight_decay, name in plan:
        network.run_epoch(order, weight_decay, name)
    for ours, theirs in zip(network.weights(), free, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_mixed_batches_train_on_blends_of_rows_and_labels(linear) -> None:
    """With the draws written down: a softmax regression on blended inputs towards both labels."""
    network, rows = linear
    defense = make_defense("mixup", {"beta": 0.7})
    order = np.random.default_rng(2).permutation(40)
    parameters = start(network)
    network.use_loss(defense)
    drawn = np.random.default_rng(0)  # `start` loads with the seed 0
    network.run_epoch(order, 0.0, "general")
    network.use_loss(make_defense("none"))
    adam = Adam(parameters)
    pieces = [order[begin : begin + 8] for begin in range(0, 40, 8)]
    partners = [drawn.permutation(piece) for piece in pieces]
    shares = drawn.beta(0.7, 0.7, len(pieces))
    for piece, partner, share in zip(pieces, partners, shares, strict=True):
        x = share * rows.x[piece].astype(float) + (1 - share) * rows.x[partner].astype(float)
        own, other = (gradients(parameters, x, rows.y[of], 0.0) for of in (piece, partner))
        adam.apply(parameters, [share * a + (1 - share) * b for a, b in zip(own, other, strict=True)])
    for ours, theirs in zip(network.weights(), parameters, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)
