"""DP-SGD in both backends against a loop in numpy that takes one row after the other; its accountant against
another library; what it refuses."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import math
from typing import Any

import numpy as np
import pytest

from edgeprivacy.defenses import make_defense
from edgeprivacy.defenses.accountant import epsilon_of, guarantee, told
from edgeprivacy.defenses.dpsgd import PrivateSteps
from edgeprivacy.recipe_sections import TrainingSection

RATE, BATCH, SEED, DECAY = 1e-2, 16, 3, 1e-3
BACKENDS = [
    pytest.param("tflite", marks=pytest.mark.tflite),
    pytest.param("executorch", marks=pytest.mark.executorch),
]
RNG = np.random.default_rng(1)
X, Y = RNG.normal(size=(70, 6)).astype(np.float32), RNG.integers(0, 3, 70)
LABEL_SETS = RNG.integers(0, 2, (70, 3))
WEIGHTS = [RNG.normal(size=shape).astype(np.float32) for shape in ((6, 5), (5,), (5, 3), (3,))]


def training() -> TrainingSection:
    return TrainingSection(learning_rate=RATE, batch_size=BATCH)


def network_of(backend: str, body: str = "dense", label_sets: bool = False) -> Any:
    """A small network with WEIGHTS: dense layers, or the same in layers that take no short cut."""
    if backend == "tflite":
        keras = pytest.importorskip("tf_keras", reason="needs the extra tflite")
        from edgeprivacy.backends.tflite.network import CompiledNetwork

        x = inputs = keras.Input((6,))
        if body != "dense":
            x = keras.layers.Reshape((1, 6))(x)
        x = keras.layers.Dropout(0.5)(keras.layers.Dense(5, activation="relu")(x))
        x = keras.layers.Dense(3)(x)
        if body != "dense":
            x = keras.layers.Flatten()(x)
        head = keras.layers.Activation("sigmoid") if label_sets else keras.layers.Softmax()
        network: Any = CompiledNetwork(keras.Model(inputs, head(x)), training(), label_sets=label_sets)
        assert network._dense.fits == (body == "dense")
        network.load(WEIGHTS, SEED)
    else:
        torch = pytest.importorskip("torch", reason="needs the extra executorch")
        from edgeprivacy.backends.executorch.models import Classifier
        from edgeprivacy.backends.executorch.network import TorchNetwork

        nn = torch.nn
        layers = [nn.Linear(6, 5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 3)]
        if body != "dense":
            layers = [nn.Unflatten(1, (1, 6)), *layers, nn.Flatten()]
        head = "sigmoid" if label_sets else "softmax"
        network = TorchNetwork(Classifier(nn.Sequential(*layers), head), training(), label_sets)
        network.load([w.T for w in WEIGHTS], SEED)
    y = LABEL_SETS if label_sets else Y
    network.bind(X, y, X, y)
    return network


def weights_of(network: Any, backend: str) -> list[np.ndarray]:
    return [w if backend == "tflite" else w.T for w in network.weights()]


def row_gradient(weights: list[np.ndarray], x: np.ndarray, y: int) -> list[np.ndarray]:
    """Of one row's cross-entropy, by hand."""
    w1, b1, w2, b2 = weights
    before = x @ w1 + b1
    hidden = np.maximum(before, 0)
    z = hidden @ w2 + b2
    p = np.exp(z - z.max())
    p /= p.sum()
    p[y] -= 1
    back = (w2 @ p) * (before > 0)
    return [np.outer(x, back), back, np.outer(hidden, p), p]


def by_hand(private: PrivateSteps, epochs: int, transposed: bool) -> tuple[list[np.ndarray], list[float]]:
    """Weights after so many epochs, and all norms that were met."""
    rng, weights = np.random.default_rng(SEED), [w.astype(np.float64) for w in WEIGHTS]
    m, v = ([np.zeros_like(w) for w in weights] for _ in range(2))
    step, norms = 0, []
    for _ in range(epochs):
        chosen = [rng.random(len(X)) < BATCH / len(X) for _ in range(math.ceil(len(X) / BATCH))]
        for rows in chosen:
            total = [np.zeros_like(w) for w in weights]
            for row in np.flatnonzero(rows):
                g = row_gradient(weights, X[row].astype(float), Y[row])
                norm = math.sqrt(sum((part**2).sum() for part in g))
                norms.append(norm)
                total = [t + part * min(1, private.clip / norm) for t, part in zip(total, g, strict=True)]
            step += 1
            for k, w in enumerate(weights):
                shape = w.shape[::-1] if transposed else w.shape
                drawn = rng.standard_normal(shape, dtype=np.float32) * private.noise * private.clip
                g = (total[k] + (drawn.T if transposed else drawn)) / BATCH + DECAY * w
                m[k] = 0.9 * m[k] + 0.1 * g
                v[k] = 0.999 * v[k] + 0.001 * g * g
                w -= RATE * (m[k] / (1 - 0.9**step)) / (np.sqrt(v[k] / (1 - 0.999**step)) + 1e-8)
    return weights, norms


@pytest.mark.parametrize("body", ["dense", "other"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_are_drawn_clipped_and_noised_one_by_one(backend: str, body: str) -> None:
    network, clip = network_of(backend, body), 1.5
    network.use_loss(make_defense("dpsgd", {"clip": clip, "noise": 0.7}))
    for epoch in range(3):
        network.run_epoch(np.random.default_rng(epoch).permutation(len(X)), DECAY, "general", epoch)
    expected, norms = by_hand(PrivateSteps(clip, 0.7, 1e-5), 3, transposed=backend == "executorch")
    assert min(norms) < clip < max(norms), "clips some rows and leaves others"
    for ours, theirs in zip(weights_of(network, backend), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=3e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_independent_labels_of_a_row_make_one_gradient(backend: str) -> None:
    made = []
    for body in ("dense", "other"):
        network = network_of(backend, body, label_sets=True)
        network.use_loss(make_defense("dpsgd", {"clip": 0.5, "noise": 0.7}))
        network.run_epoch(np.arange(len(X)), DECAY, "general")
        made.append(weights_of(network, backend))
    for short, long, start in zip(*made, WEIGHTS, strict=True):
        assert np.abs(short - start).max() > 1e-3
        np.testing.assert_allclose(short, long, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_seed_decides_everything(backend: str) -> None:
    network = network_of(backend)
    network.use_loss(make_defense("dpsgd"))
    made = []
    for seed in (SEED, SEED, SEED + 1):
        network.load([w if backend == "tflite" else w.T for w in WEIGHTS], seed)
        network.run_epoch(np.arange(len(X)), 0.0, "general")
        made.append(np.concatenate([w.ravel() for w in network.weights()]))
    np.testing.assert_array_equal(made[0], made[1])
    assert np.abs(made[0] - made[2]).max() > 1e-3


def test_batches_hold_each_row_by_itself() -> None:
    private, rows = PrivateSteps(1.0, 1.0, 1e-5), np.arange(10, 410)
    epochs = [private.batches(rows, 20, np.random.default_rng(seed)) for seed in range(100)]
    assert {len(batches) for batches in epochs} == {20}
    sizes = np.array([len(batch) for batches in epochs for batch in batches])
    # Binomial(400, 1/20): mean 20, variance 19; the bounds are six standard errors of 2,000 batches.
    assert abs(sizes.mean() - 20) < 6 * math.sqrt(19 / 2000)
    assert abs(sizes.var() - 19) < 6 * 19 * math.sqrt(2 / 2000)
    assert all(len(set(batch)) == len(batch) and set(batch) <= set(rows) for batch in epochs[0])
    assert [len(b) for b in private.batches(np.arange(5), 20, np.random.default_rng(0))] == [5]


@pytest.mark.parametrize(("noise", "rate", "steps"), [(1.0, 0.05, 1500), (2.9, 0.1, 800), (0.4, 0.05, 500)])
def test_epsilon_is_that_of_another_library(noise: float, rate: float, steps: int) -> None:
    accountants = pytest.importorskip("opacus.accountants", reason="needs the extra dev")
    theirs = accountants.PRVAccountant()
    theirs.history = [(noise, rate, steps)]
    ours = epsilon_of({(rate, noise): steps}, 1e-5)
    # Theirs is an upper bound too, of eps_error 0.01 and delta_error a thousandth of delta.
    assert ours == pytest.approx(theirs.get_epsilon(1e-5, eps_error=0.01), rel=0.01, abs=0.02)
    looser = accountants.RDPAccountant()
    looser.history = [(noise, rate, steps)]
    assert ours < looser.get_epsilon(1e-5)


def test_little_noise_is_accounted_in_a_moment_and_from_above() -> None:
    accountants = pytest.importorskip("opacus.accountants", reason="needs the extra dev")
    coarse = epsilon_of({(0.055, 0.1): 3000}, 1e-5)
    theirs = accountants.RDPAccountant()
    theirs.history = [(0.1, 0.055, 3000)]
    # A fine grid takes minutes and gives 10,309.67.
    assert 10_309 < coarse < 1.01 * 10_309.67 and coarse < theirs.get_epsilon(1e-5)
    assert epsilon_of({(0.5, 0.001): 100}, 1e-5) > 1e6


def test_epsilon_without_steps_or_without_noise() -> None:
    assert epsilon_of({}, 1e-5) == epsilon_of({(0.1, 1.0): 0}, 1e-5) == 0
    assert epsilon_of({(0.1, 1.0): 5, (0.1, 0.0): 1}, 1e-5) == math.inf


@pytest.mark.parametrize(("epsilon", "steps", "rate"), [(8.0, 1700, 0.1), (1.0, 500, 0.05)])
def test_noise_is_the_least_that_keeps_epsilon(epsilon: float, steps: int, rate: float) -> None:
    planned = make_defense("dpsgd", {"epsilon": epsilon}).planned(steps, rate)
    noise = planned.private().noise
    assert epsilon_of({(rate, noise): steps}, 1e-5) <= epsilon
    assert epsilon_of({(rate, 0.97 * noise): steps}, 1e-5) > epsilon
    given = make_defense("cwrf+dpsgd", {"noise": 1.25}).planned(steps, rate)
    assert given.private().noise == 1.25


def test_a_plan_counts_every_phase_that_the_defense_governs() -> None:
    from edgeprivacy.backends.planning import planned_steps
    from edgeprivacy.recipe import Recipe

    content: dict[str, Any] = {
        "backend": "tflite",
        "training": {"epochs": 10, "batch_size": 16},
        "prune": {"iterations": 3, "finetune_epochs": 4},
        "quantize": {"qat_epochs": 5},
        "cluster": {"clusters": 16, "epochs": 7},
        "formats": ["int8"],
    }

    def epochs(name: str, settings: dict[str, Any] | None = None, **changed: Any) -> float:
        recipe = Recipe.build(content | {key: content.get(key, {}) | v for key, v in changed.items()})
        steps, rate = planned_steps(recipe, make_defense(name, settings), 100)
        assert rate == 0.16
        return steps / 7  # 100 rows in batches of 16

    assert epochs("dpsgd") == 10 + 3 * 4 + 7
    assert epochs("dpsgd", {"original": False}) == 3 * 4 + 7
    assert epochs("cwrf+dpsgd") == 10 + 3 * 4 + 4 + 7
    assert epochs("dpsgd", cluster={"clusters": 0}) == 10 + 3 * 4
    assert epochs("dpsgd", prune={"schedule": "one-shot"}) == 10 + 4 + 7
    content["formats"] = ["float32", "qat-int8"]
    assert epochs("dpsgd") == 10 + 3 * 4 + 7 + 5
    content["defense_phases"] = "pruning"
    assert epochs("dpsgd") == 10 + 3 * 4


def phase(name: str, steps: int, private: bool = True) -> dict[str, Any]:
    kept = {"private": {"sampling_rate": 0.1, "noise": 1.0}} if private else {}
    return {"phase": name, "steps": steps, **kept}


def test_the_guarantee_is_of_all_training_that_ran() -> None:
    defense = make_defense("dpsgd")
    whole = guarantee(defense, [phase("original", 100), phase("prune 1/2", 30), phase("prune 2/2", 20)])
    assert whole is not None and whole.steps == 150 and whole.uncovered == ()
    assert whole.epsilon == epsilon_of({(0.1, 1.0): 150}, 1e-5)
    assert "150 steps that ran (original, prune 1/2, prune 2/2)" in told(whole, "dpsgd")
    plain = guarantee(defense, [phase("prune 1/1", 30)])
    assert plain is not None and plain.epsilon == math.inf and plain.unprotected == ("original",)
    assert "ε = ∞" in told(plain, "dpsgd") and "original" in told(plain, "dpsgd")
    later = guarantee(defense, [phase("original", 100), phase("cluster", 30, private=False)])
    assert later is not None and later.epsilon == math.inf and later.unprotected == ("cluster",)
    observed = guarantee(defense, [phase("original", 9), phase("qat", 9)])
    assert observed is not None and "ranges" in told(observed, "dpsgd")
    rewound = guarantee(make_defense("cwrf+dpsgd"), [phase("original", 9)])
    assert rewound is not None and "rewound" in told(rewound, "cwrf+dpsgd")
    assert guarantee(make_defense("relaxloss"), [phase("original", 9)]) is None


def test_what_it_goes_with() -> None:
    from edgeprivacy.errors import RecipeError

    assert make_defense("cwrf+dpsgd").private() == make_defense("dpsgd").private()
    assert make_defense("mia-pruning+dpsgd").private() is not None
    for other in ("relaxloss", "wemem:swmr", "mixup", "early-stopping"):
        with pytest.raises(RecipeError, match="do not go together"):
            make_defense(f"{other}+dpsgd")
    for key, value in (("epsilon", 0), ("clip", 0), ("noise", -1), ("delta", 0), ("delta", 2)):
        with pytest.raises(RecipeError, match=key):
            make_defense("dpsgd", {key: value})


@pytest.mark.parametrize("name", ["dpsgd", "dpsgd:utility", "cwrf+dpsgd"])
def test_delta_stays_below_one_over_the_rows(name: str) -> None:
    from edgeprivacy.defenses import TrainingRows
    from edgeprivacy.errors import RecipeError

    rows = TrainingRows(np.zeros(200, np.int64), 2)
    make_defense(name, {"delta": 0.0049}).check(rows)
    for delta in (0.005, 1.0):
        with pytest.raises(RecipeError, match="promises nothing") as caught:
            make_defense(name, {"delta": delta}).check(rows)
        assert f"given: delta {delta:g} for 200 training rows; allowed: " in str(caught.value)
        assert "set delta = 0.0005" in str(caught.value)


@pytest.mark.tflite
@pytest.mark.parametrize("wrapped", ["clustered", "quantization-aware", "pruned by a schedule"])
def test_wrapped_networks_sum_the_gradients_of_their_rows(wrapped: str) -> None:
    keras = pytest.importorskip("tf_keras", reason="needs the extra tflite")
    import tensorflow as tf

    from edgeprivacy.backends.tflite import clustering, pruning
    from edgeprivacy.backends.tflite.network import CompiledNetwork
    from edgeprivacy.backends.tflite.qat import quantization_aware

    inputs = keras.Input((6,))
    x = keras.layers.Dense(5, activation="relu", name="a")(inputs)
    plain = keras.Model(inputs, keras.layers.Softmax()(keras.layers.Dense(3, name="b")(x)))
    plain.set_weights(WEIGHTS)
    if wrapped == "clustered":
        model = clustering.wrap_for_clustering(plain, ["a", "b"], 4, False)
    elif wrapped == "quantization-aware":
        model = quantization_aware(plain, False, False)
    else:
        model = pruning.wrap_for_pruning(plain, ["a", "b"], "polynomial", 0.6, 10)
    network: Any = CompiledNetwork(model, training())
    network.load(None, 0)
    for _ in range(20):  # ranges settle
        network._logits(X, training=True)
    defense = make_defense("dpsgd", {"clip": 1e6, "noise": 1.0})
    found = network._clipped_sum(tf.constant(X), tf.constant(Y), defense)
    with tf.GradientTape() as tape:
        logits = network._logits(X, training=False)
        loss = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(Y, logits))
    for ours, theirs in zip(found, tape.gradient(loss, network._variables), strict=True):
        assert np.abs(ours).max() > 0
        np.testing.assert_allclose(ours, tf.convert_to_tensor(theirs), rtol=1e-4, atol=1e-5)
    clipped = network._clipped_sum(tf.constant(X), tf.constant(Y), make_defense("dpsgd", {"clip": 0.01}))
    norm = math.sqrt(sum(float(np.square(each).sum()) for each in clipped))
    assert 0 < norm <= 0.01 * len(X) * (1 + 1e-5)


@pytest.mark.executorch
def test_values_that_weights_share_are_clipped_together() -> None:
    from edgeprivacy.compression.palette import kmeans_palette

    network = network_of("executorch")
    parameters = dict(network.model.named_parameters())
    name = next(name for name, value in parameters.items() if value.dim() == 2)
    palette = kmeans_palette(parameters[name].detach().numpy(), 4, False, 0)
    network.set_palettes({name: palette})
    clip, noise = 0.5, 0.3
    network.use_loss(make_defense("dpsgd", {"clip": clip, "noise": noise}))
    network.run_epoch(np.arange(len(X)), 0.0, "general")
    shared = network.model.state_dict()[name].numpy()
    assert len(np.unique(shared)) <= 4
    rows = [[g.numpy() for g in network._plain(x, y, None, {})] for x, y in _each(network)]
    shapes = [tuple(v.shape) for v in network._variables()]
    assert shapes[0] == (4,) and all(g.shape == s for g, s in zip(rows[0], shapes, strict=True))


def _each(network: Any) -> list[tuple[Any, Any]]:
    return [(network._x[k : k + 1].float(), network._y[k : k + 1]) for k in range(3)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_batch_norm_is_refused_with_the_reason(backend: str) -> None:
    from edgeprivacy.backends import open_backend
    from edgeprivacy.errors import RecipeError
    from edgeprivacy.recipe import Recipe

    def session(model: str) -> Any:
        content = {"backend": backend, "model": {"source": model}, "defense": {"name": "dpsgd"}}
        return open_backend(backend).open(Recipe.build(content), 3, (8, 8, 3))

    with pytest.raises(RecipeError, match="cannot train this network") as caught:
        session("resnet").check()
    assert "BatchNorm" in str(caught.value)
    for model in ("cnn", "resnet-no-norm"):
        session(model).check_private_steps((8, 8, 3))
