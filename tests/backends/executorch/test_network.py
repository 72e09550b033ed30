"""An epoch against the same steps written in numpy: Adam, coupled L2, two optimizers, masks, palettes."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprivacy.compression.palette import kmeans_palette
from edgeprivacy.defenses import make_defense

torch = pytest.importorskip("torch", reason="needs the extra executorch")
pytestmark = pytest.mark.executorch
RATE, B1, B2, EPSILON = 1e-2, 0.9, 0.999, 1e-8
KERNEL = "body.weight"


class Adam:
    """Kingma & Ba (2015); moments of its own."""

    def __init__(self, parameters: list[np.ndarray]) -> None:
        self.step = 0
        self.m, self.v = ([np.zeros_like(p) for p in parameters] for _ in range(2))

    def apply(self, parameters: list[np.ndarray], gradients: list[np.ndarray]) -> None:
        self.step += 1
        for k, (p, g) in enumerate(zip(parameters, gradients, strict=True)):
            self.m[k] = B1 * self.m[k] + (1 - B1) * g
            self.v[k] = B2 * self.v[k] + (1 - B2) * g * g
            mean, square = self.m[k] / (1 - B1**self.step), self.v[k] / (1 - B2**self.step)
            p -= RATE * mean / (np.sqrt(square) + EPSILON)


def gradients(parameters: list[np.ndarray], x: np.ndarray, y: np.ndarray, decay: float) -> list[np.ndarray]:
    """Of mean softmax cross-entropy plus decay/2 * |W|^2 over kernel and bias alike."""
    kernel, bias = parameters
    z = x @ kernel.T + bias
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(len(y)), y] -= 1
    p /= len(y)
    return [p.T @ x + decay * kernel, p.sum(axis=0) + decay * bias]


@pytest.fixture(scope="module")
def linear(tools):
    """A softmax regression and its rows."""
    from edgeprivacy.backends.executorch.models import Classifier
    from edgeprivacy.backends.executorch.network import TorchNetwork

    training = tools.recipe(training__learning_rate=RATE, training__batch_size=8).training
    network = TorchNetwork(Classifier(torch.nn.Linear(12, 3), "softmax"), training)
    rows = tools.material().train
    network.bind(rows.x, rows.y, rows.x, rows.y)
    network.use_loss(make_defense("none"))
    return network, rows


def start(network, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=(3, 12)).astype(np.float32), rng.normal(size=3).astype(np.float32)]
    network.load(weights, 0)
    return [w.astype(np.float64) for w in weights]


def run(network, plan) -> None:
    for order, weight_decay, name in plan:
        network.run_epoch(order, weight_decay, name)


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
    run(network, plan)
    run_numpy(parameters, rows, plan)
    for ours, theirs in zip(network.weights(), parameters, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_two_optimizers_share_the_parameters_not_the_moments(linear) -> None:
    network, rows = linear
    parameters, plan = start(network), plan_of(("risky", 0.1), ("general", 5e-4))
    run(network, plan)
    run_numpy(parameters, rows, plan)
    one = start(network)
    run_numpy(one, rows, [(order, decay, "general") for order, decay, _ in plan])
    run(network, plan)
    for ours, theirs in zip(network.weights(), parameters, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)
    assert np.abs(one[0] - parameters[0]).max() > 1e-3  # one set of moments would be another result


def test_masked_weights_are_zero_after_every_pass(linear) -> None:
    network, rows = linear
    parameters, plan = start(network), plan_of(("risky", 0.1), ("general", 5e-4), epochs=2)
    mask = np.random.default_rng(1).random((3, 12)) < 0.4
    network.set_masks({KERNEL: mask})
    parameters[0] *= mask
    for entry in plan:
        run(network, [entry])
        assert np.all(network.weights()[0][~mask] == 0) and np.all(network.weights()[0][mask] != 0)
    run_numpy(parameters, rows, plan, mask)
    np.testing.assert_allclose(network.weights()[0], parameters[0], atol=2e-5)


@pytest.mark.parametrize("zeros", [False, True])
def test_shared_values_train_on_the_sum_of_their_weights_gradients(linear, zeros: bool) -> None:
    network, rows = linear
    kernel, bias = start(network)
    if zeros:
        kernel[:, ::3] = 0
    palette = kmeans_palette(kernel, 5, zeros, 0)
    assert (palette.zero is not None) == zeros
    plan = plan_of(("risky", 0.1), ("general", 5e-4))
    network.set_palettes({KERNEL: palette})
    run(network, plan)
    values = palette.centroids.astype(np.float64)
    member = palette.assignment[None, :] == np.arange(len(values))[:, None]
    optimizers: dict[str, Adam] = {}
    for order, decay, name in plan:
        adam = optimizers.setdefault(name, Adam([values, bias]))
        for begin in range(0, len(order), 8):
            batch = order[begin : begin + 8]
            whole = values[palette.assignment].reshape(3, 12)
            weight, of_bias = gradients([whole, bias], rows.x[batch].astype(float), rows.y[batch], 0.0)
            summed = member @ weight.ravel() + decay * values
            if zeros:
                summed[palette.zero] = 0
            adam.apply([values, bias], [summed, of_bias + decay * bias])
    got = network.weights()[0]
    np.testing.assert_allclose(got.ravel(), values[palette.assignment], atol=2e-5)
    assert len(np.unique(got)) <= 5
    assert np.array_equal(got == 0, (kernel == 0))


def test_loading_forgets_masks_palettes_moments_and_steps(linear) -> None:
    network, rows = linear
    plan = plan_of(("general", 5e-4))
    kernel, _ = start(network)
    network.set_palettes({KERNEL: kmeans_palette(kernel, 2, False, 0)})
    run(network, plan)
    start(network)
    network.set_masks({KERNEL: np.zeros((3, 12), bool)})
    run(network, plan)
    start(network)
    network.follow_schedule([KERNEL], lambda step: 0.9)
    run(network, plan)
    parameters = start(network)
    run(network, plan)
    run_numpy(parameters, rows, plan)
    np.testing.assert_allclose(network.weights()[0], parameters[0], atol=2e-5)


def test_a_schedule_prunes_before_each_step_by_its_number(linear) -> None:
    network, _ = linear
    start(network)
    asked: list[int] = []

    def schedule(step: int) -> float | None:
        asked.append(step)
        return 0.25 * step if step <= 3 else None

    network.follow_schedule([KERNEL], schedule)
    for step, zeros in enumerate((9, 18, 27, 27, 27), 1):
        network.run_epoch(np.arange(8), 0.0, "general")
        assert asked[-1] == step and int((network.weights()[0] == 0).sum()) == zeros


def test_predictions_and_accuracy_are_those_of_numpy(linear) -> None:
    network, rows = linear
    kernel, bias = start(network)
    x = np.tile(rows.x, (15, 1))  # 1350 rows: more than one evaluation batch
    z = x @ kernel.T + bias
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(network.predict(x), p, atol=1e-5)
    y = np.tile(rows.y, 15)
    network.bind(rows.x, rows.y, x, y)
    assert network.validate() == pytest.approx(np.mean(p.argmax(axis=1) == y))
    network.bind(rows.x, rows.y, rows.x, rows.y)


@pytest.mark.parametrize("piece", [1, 2**24])
def test_bytes_train_as_the_same_floats_in_pieces_of_any_size(linear, monkeypatch, piece: int) -> None:
    network, rows = linear
    monkeypatch.setattr("edgeprivacy.backends.executorch.network._GATHERED_VALUES", piece)
    as_bytes = np.random.default_rng(3).integers(0, 5, rows.x.shape).astype(np.uint8)
    found = []
    for x in (as_bytes, as_bytes.astype(np.float32)):
        start(network)
        network.bind(x, rows.y, x, rows.y)
        run(network, plan_of(("general", 5e-4)))
        found.append((network.weights()[0], network.predict(x)))
    network.bind(rows.x, rows.y, rows.x, rows.y)
    assert np.array_equal(found[0][0], found[1][0]) and np.array_equal(found[0][1], found[1][1])


def test_dropout_draws_from_the_networks_own_stream(tools) -> None:
    from edgeprivacy.backends.executorch.models import Classifier
    from edgeprivacy.backends.executorch.network import TorchNetwork

    body = torch.nn.Sequential(torch.nn.Linear(12, 20), torch.nn.Dropout(0.5), torch.nn.Linear(20, 3))
    network, rows = TorchNetwork(Classifier(body, "softmax"), tools.recipe().training), tools.material().train
    network.bind(rows.x, rows.y, rows.x, rows.y)
    weights, found = network.weights(), []
    for noise, seed in ((1, 7), (2, 7), (2, 8)):
        network.load(weights, seed)
        for epoch in range(2):
            torch.manual_seed(100 * noise + epoch)  # the process draws other numbers in between
            before = torch.get_rng_state()
            network.run_epoch(np.arange(90), 0.0, "general")
            assert torch.equal(before, torch.get_rng_state())
        found.append(network.weights()[0])
    assert np.array_equal(found[0], found[1]) and not np.array_equal(found[1], found[2])


@pytest.mark.parametrize(
    ("rows", "normed", "sizes"),
    [
        (65, True, [32, 31, 2]),
        (65, False, [32, 32, 1]),
        (64, True, [32, 32]),
        (66, True, [32, 32, 2]),
        (1, True, [1]),
        (0, True, []),
    ],
)
def test_batch_norm_never_sees_a_single_row_of_many(rows, normed, sizes) -> None:
    from edgeprivacy.backends.executorch.tensors import batch_sizes

    assert batch_sizes(rows, 32, normed) == sizes


def test_batch_norm_trains_on_a_rest_of_one_row(tools) -> None:
    from edgeprivacy.backends.executorch.models import Classifier
    from edgeprivacy.backends.executorch.network import TorchNetwork

    body = torch.nn.Sequential(torch.nn.Linear(12, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 3))
    network, rows = TorchNetwork(Classifier(body, "softmax"), tools.recipe().training), tools.material().train
    network.bind(rows.x, rows.y, rows.x, rows.y)
    network.run_epoch(np.arange(65), 0.0, "general")
    assert all(np.isfinite(w).all() for w in network.weights())


def test_what_the_loss_does_not_depend_on_stays(tools) -> None:
    from edgeprivacy.backends.executorch.models import Classifier
    from edgeprivacy.backends.executorch.network import TorchNetwork

    class Spare(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.spare = torch.nn.Linear(12, 3), torch.nn.Linear(2, 2)
            self.frozen = torch.nn.Parameter(torch.ones(3), requires_grad=False)

        def forward(self, x):
            return self.used(x) * self.frozen

    network = TorchNetwork(Classifier(Spare(), "softmax"), tools.recipe().training)
    rows = tools.material().train
    network.bind(rows.x, rows.y, rows.x, rows.y)
    names, before = list(network.model.state_dict()), network.weights()
    network.run_epoch(np.arange(90), 0.1, "general")
    moved = {n for n, a, b in zip(names, before, network.weights(), strict=True) if not np.array_equal(a, b)}
    assert moved == {"body.used.weight", "body.used.bias"}


@pytest.mark.parametrize("model", ["cnn", "resnet", "resnet-no-norm", "resnet18", "mobilenetv2"])
def test_convolutions_train_as_torchs_own_loop_trains_them(tools, model: str) -> None:
    """Kernels of images that were laid out as rows have gradients of another layout than their own."""
    from edgeprivacy.backends.executorch.models import builder, raw_builder
    from edgeprivacy.backends.executorch.network import TorchNetwork

    recipe = tools.recipe(model__source=model, model__dropout=0.0, training__batch_size=8)
    shape = (16, 16, 3)
    torch.manual_seed(0)
    built = builder(raw_builder(recipe.model, 4, shape, 255.0), model, 4, shape)()
    network = TorchNetwork(built, recipe.training)
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (24, *shape)).astype(np.float32), rng.integers(0, 4, 24)
    network.bind(x, y, x, y)
    network.use_loss(make_defense("none"))
    start, order = network.weights(), rng.permutation(24)
    network.load(start, 0)
    network.run_epoch(order, 0.0, "general")
    found = network.weights()
    network.load(start, 0)
    built.train()
    adam = torch.optim.Adam(built.parameters(), lr=recipe.training.learning_rate, fused=False)
    for rows in order.reshape(3, 8):
        adam.zero_grad()
        logits = built.logits(torch.from_numpy(x[rows]))
        torch.nn.functional.cross_entropy(logits, torch.from_numpy(y[rows])).backward()
        adam.step()
    for name, ours, theirs, before in zip(built.state_dict(), found, network.weights(), start, strict=True):
        if np.ndim(before) == 4:
            # Adam's first steps have the size of the learning rate whatever the gradient's, so rounding alone
            # turns the step of a gradient next to zero around: not every weight agrees, but nearly all do.
            steps = (ours - before).ravel(), (theirs - before).ravel()
            assert np.corrcoef(*steps)[0, 1] > 0.98, name


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
    network.pull({KERNEL: target}, 0.7)
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
    partners, shares = [], []
    for piece in pieces:
        partners.append(piece[drawn.permutation(8)])
        shares.append(drawn.beta(0.7, 0.7))
    for piece, partner, share in zip(pieces, partners, shares, strict=True):
        x = share * rows.x[piece].astype(float) + (1 - share) * rows.x[partner].astype(float)
        own, other = (gradients(parameters, x, rows.y[of], 0.0) for of in (piece, partner))
        adam.apply(parameters, [share * a + (1 - share) * b for a, b in zip(own, other, strict=True)])
    for ours, theirs in zip(network.weights(), parameters, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)
