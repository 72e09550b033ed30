"""Training and compression: deterministic whatever the session made before, sparse and clustered as asked."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprivacy.defenses import make_defense
from edgeprivacy.errors import ModelError, RecipeError

pytestmark = pytest.mark.tflite
MLP = ((12, 256), (256, 128), (128, 3))
"""Kernel shapes of the built-in network on 12 inputs and 3 classes."""


def kernels(weights) -> list[np.ndarray]:
    return [w for w in weights if w.ndim > 1]


def zeros(weights) -> list[int]:
    return [int((kernel == 0).sum()) for kernel in kernels(weights)]


def same(one, other) -> bool:
    return all(map(np.array_equal, one, other)) and len(one) == len(other)


def compressed(session, tools, defense: str = "none", seed: int = 7, data: int = 0, **options):
    rows = tools.material(seed=data)
    original, _ = session.train(rows, seed)
    made = session.compress(original, rows, make_defense(defense, options), tools.training_rows(rows), seed)
    return rows, original, made


@pytest.fixture(scope="module")
def mlp(tools):
    return tools.session(formats=["float32", "qat-int8"])


def test_training_does_not_depend_on_what_was_trained_before(tools, mlp) -> None:
    one, other = tools.material(seed=0), tools.material(seed=1)
    mlp.train(other, 3)
    first, history = mlp.train(one, 7)
    second, _ = mlp.train(other, 8)
    again, history_again = mlp.train(one, 7)
    assert same(first, again) and history == history_again
    assert not same(first, second)
    fresh = tools.fresh(formats=["float32", "qat-int8"])
    assert same(first, fresh.train(one, 7)[0])
    assert not same(first, mlp.train(one, 9)[0])  # the seed reaches weights and order
    assert [w.shape for w in kernels(first)] == list(MLP)


def test_a_given_start_is_trained_on_and_an_original_learns(tools, mlp) -> None:
    rows = tools.material()
    original, history = mlp.train(rows, 7)
    assert history["phase"] == "original" and history["epochs"] == 3
    accuracy = np.mean(mlp.predict(original, rows.validation.x).argmax(axis=1) == rows.validation.y)
    assert accuracy > 0.8 and accuracy == pytest.approx(history["validation_accuracy"], abs=1e-6)
    longer, _ = mlp.train(rows, 7, initial=original)
    assert not same(longer, original)


def test_sub_models_train_a_fixed_number_of_epochs_and_repeat(tools, mlp) -> None:
    rows = tools.material().train
    once = mlp.train_plain(rows, 2, 3)
    mlp.train(tools.material(seed=1), 1)
    assert same(once, mlp.train_plain(rows, 2, 3))
    assert not same(once, mlp.train_plain(rows, 1, 3))
    assert mlp.predict(once, rows.x).sum(axis=1) == pytest.approx(np.ones(90), abs=1e-5)


@pytest.mark.parametrize("defense", ["none", "wemem", "wemem:rmr", "wemem:swmr", "less-data", "wemem:random"])
def test_iterative_pruning_ends_exactly_sparse_under_every_defense(tools, mlp, defense) -> None:
    _, original, made = compressed(mlp, tools, defense)
    # every layer but the classifier; round(0.6 * size) zeros each
    assert zeros(made.weights) == [round(0.6 * 12 * 256), round(0.6 * 256 * 128), 0]
    assert made.request.sparsity == (0.6, 0.6, None) and made.request.clusters == (None,) * 3
    phases = [entry["phase"] for entry in made.history]
    assert phases == ["prune 1/3", "prune 2/3", "prune 3/3"]
    assert [entry["sparsity"] for entry in made.history] == [0, pytest.approx(1 - 0.4**0.5, abs=1e-6), 0.6]
    assert not same(original, made.weights)


@pytest.mark.parametrize(("scope", "arm"), [("global", "rewind"), ("layer", "rewind"), ("global", "remove")])
def test_rewound_weights_ship_where_they_began_and_pruned_ones_stay_zero(tools, mlp, scope, arm) -> None:
    from edgeprivacy.seeding import derive_seed

    _, _, plain = compressed(mlp, tools)
    _, _, made = compressed(mlp, tools, "cwrf", rate=0.2, scope=scope, arm=arm)
    began = mlp.initial_weights(derive_seed(7, "initial weights"))
    assert all(now >= before for now, before in zip(zeros(made.weights), zeros(plain.weights), strict=True))
    if arm == "rewind":
        left = [of != 0 for of in made.weights]
        back = [(w == b) & of for w, b, of in zip(made.weights, began, left, strict=True)]
        share = sum(int(b.sum()) for b in back) / sum(int(of.sum()) for of in left)
        assert share == pytest.approx(0.2, abs=0.01)
        if scope == "layer":
            assert all(
                b[of].mean() == pytest.approx(0.2, abs=0.03)
                for b, of in zip(back, left, strict=True)
                if of.ndim > 1
            )
    else:
        assert sum(zeros(made.weights)) > 1.1 * sum(zeros(plain.weights))
    assert made.history[-1]["phase"] == "rewind"


def test_weights_are_scored_in_the_network_that_pruning_left(tools, mlp, monkeypatch) -> None:
    probed, importance = [], mlp._network.importance

    def scores():
        probed.append(zeros(mlp._network.trainable()))
        return importance()

    monkeypatch.setattr(mlp._network, "importance", scores)
    compressed(mlp, tools, "cwrf")
    assert probed == [[round(0.6 * 12 * 256), round(0.6 * 256 * 128), 0]]


@pytest.mark.parametrize("arm", ["rewind", "tune-rewound"])
def test_weights_rewound_before_pruning_are_spared_and_stay(tools, mlp, arm) -> None:
    from edgeprivacy.seeding import derive_seed

    _, original, plain = compressed(mlp, tools)
    _, _, made = compressed(mlp, tools, "cwrf", rate=0.1, when="before", arm=arm)
    assert zeros(made.weights) == zeros(plain.weights), "as sparse as asked"
    began = mlp.initial_weights(derive_seed(7, "initial weights"))
    sizes = sum(w.size for w in made.weights)
    if arm == "rewind":
        back = sum(int(((w == b) & (w != 0)).sum()) for w, b in zip(made.weights, began, strict=True))
        assert back / sizes == pytest.approx(0.1, abs=0.01)
    else:
        stayed = [(w == o) | (w == 0) for w, o in zip(made.weights, original, strict=True)]
        assert sum(int(each.sum()) for each in stayed) / sizes == pytest.approx(0.9, abs=0.02)
    assert [entry["phase"] for entry in made.history][:2] == ["rewind", "prune 1/3"]
    assert made.history[0]["rewound"] == pytest.approx(0.1, abs=1e-3)


def test_admm_draws_weights_to_zero_and_prunes_exactly(tools) -> None:
    """What it prunes lies nearer to zero before it is cut than what plain training leaves."""
    session = tools.session(prune__schedule="one-shot", prune__sparsity=0.8, prune__finetune_epochs=1)
    cut: dict[float, float] = {}
    hold = type(session)._hold_smallest
    for rho in (0.0, 0.5):
        with pytest.MonkeyPatch.context() as patch:

            def seen(self, sparsity, rho=rho):
                kernels = [np.abs(kernel) for kernel in self._pruned_kernels()]
                cut[rho] = sum(np.sort(k.ravel())[: round(0.8 * k.size)].sum() for k in kernels)
                hold(self, sparsity)

            patch.setattr(type(session), "_hold_smallest", seen)
            _, _, made = compressed(session, tools, "mia-pruning", rho=rho, epochs=6)
        expected = [round(0.8 * kernel.size) for kernel in kernels(made.weights)[:2]]
        assert zeros(made.weights)[:2] == pytest.approx(expected, abs=1)
        assert [entry["phase"] for entry in made.history] == ["admm", "retrain"]
    assert cut[0.5] < 0.8 * cut[0.0]


def test_compression_does_not_depend_on_what_came_before(tools, mlp) -> None:
    first = compressed(mlp, tools, "wemem:swmr")[2]
    compressed(mlp, tools, "none", data=1)
    compressed(mlp, tools, "less-data", seed=3)
    assert same(first.weights, compressed(mlp, tools, "wemem:swmr")[2].weights)
    fresh = tools.fresh(formats=["float32", "qat-int8"])
    assert same(first.weights, compressed(fresh, tools, "wemem:swmr")[2].weights)


def test_a_resumed_compression_ends_as_an_uninterrupted_one(tools) -> None:
    """Where the original came from a cache, nothing was trained before it in the process. Dropout, too, must
    then draw what it drew in the process that trained the original."""
    settings = {"cluster__clusters": 8, "formats": ["qat-int8"], "model__dropout": 0.3}
    session = tools.fresh(**settings)
    session.train(tools.material(seed=1), 3)
    rows, original, made = compressed(session, tools, "wemem")
    arguments = rows, make_defense("wemem"), tools.training_rows(rows), 7
    quantized = session.quantize_aware(made, *arguments).quantized
    resumed = tools.fresh(**settings)
    assert len(resumed._network._generators) == 2  # both dropout layers, to be reset
    assert same(quantized, resumed.quantize_aware(made, *arguments).quantized)
    assert same(made.weights, resumed.compress(original, *arguments).weights)


def test_a_defense_changes_the_rows_that_train(tools, mlp) -> None:
    """RSW with two of thirty rows a class takes far fewer steps than all rows."""
    narrow = compressed(mlp, tools, "wemem", window=2, step=1)[2].history
    plain = compressed(mlp, tools, "none")[2].history
    assert [entry["steps"] for entry in narrow] == [1 * entry["epochs"] for entry in narrow]
    assert [entry["steps"] for entry in plain] == [3 * entry["epochs"] for entry in plain]


@pytest.mark.parametrize(("layers", "pruned"), [(["logits"], (0, 0, 1)), ("all", (1, 1, 1))])
def test_pruned_layers_by_name(tools, layers, pruned) -> None:
    session = tools.session(prune__layers=layers, prune__sparsity=0.5, prune__iterations=2)
    found = zeros(compressed(session, tools)[2].weights)
    assert found == [
        yes * round(0.5 * rows * columns) for yes, (rows, columns) in zip(pruned, MLP, strict=True)
    ]


def test_layer_names_that_do_not_exist_are_refused(tools) -> None:
    with pytest.raises(RecipeError, match="names no weighted layer") as caught:
        tools.fresh(prune__layers=["logits", "dens"])
    assert caught.value.got == "dens" and "logits" in caught.value.allowed


@pytest.mark.parametrize("schedule", ["one-shot", "polynomial"])
@pytest.mark.parametrize("defense", ["none", "wemem:swmr"])
def test_tfmot_schedules_reach_exact_sparsity(tools, schedule, defense) -> None:
    session = tools.session(prune__schedule=schedule, prune__finetune_epochs=4)
    _, _, made = compressed(session, tools, defense)
    # tfmot rounds the number of weights that stay
    assert zeros(made.weights)[:2] == [
        pytest.approx(0.6 * 12 * 256, abs=1),
        pytest.approx(0.6 * 256 * 128, abs=1),
    ]
    assert zeros(made.weights)[2] == 0
    (phase,) = made.history
    assert phase["phase"] == schedule
    again = compressed(session, tools, defense)[2]
    assert same(made.weights, again.weights)
    if schedule == "polynomial" and defense == "none":
        # 12 steps: the sparsity is reached in step 7, and only epochs from then on can ship
        assert phase["best_epoch"] >= 2


@pytest.mark.parametrize("sparsity", [0.0, 0.6])
def test_clusters_and_zeros(tools, sparsity) -> None:
    session = tools.session(cluster__clusters=8, prune__sparsity=sparsity)
    _, _, made = compressed(session, tools, "wemem")
    assert all(len(np.unique(kernel)) <= 8 for kernel in kernels(made.weights))
    assert all(len(np.unique(kernel)) > 3 for kernel in kernels(made.weights))
    if sparsity:
        assert zeros(made.weights)[:2] == [round(0.6 * 12 * 256), round(0.6 * 256 * 128)]
    assert made.request.clusters == (8, 8, 8)
    assert made.history[-1]["phase"] == "cluster"
    compressed(session, tools, "none", data=1)
    assert same(made.weights, compressed(session, tools, "wemem")[2].weights)


def test_pruning_only_leaves_the_later_phases_undefended(tools) -> None:
    steps = {}
    for phases in ("all", "pruning"):
        session = tools.session(cluster__clusters=8, prune__sparsity=0.6, defense_phases=phases)
        made = compressed(session, tools, "wemem", window=2, step=1)[2]
        steps[phases] = [entry["steps"] for entry in made.history]
    assert steps["all"] == [2, 2, 2, 1] and steps["pruning"] == [2, 2, 2, 3]


def test_quantization_aware_training_starts_from_the_compressed_weights_alone(tools) -> None:
    """Arms that were compressed to the same weights share the network: neither may go on from the other."""
    settings = {"prune__schedule": "none", "formats": ["qat-int8"]}
    session = tools.fresh(**settings)
    rows, _, plain = compressed(session, tools)
    arguments = plain, rows, make_defense("none"), tools.training_rows(rows), 7
    first = session.quantize_aware(*arguments)
    session.quantize_aware(plain, rows, make_defense("wemem"), tools.training_rows(rows), 7)
    again = session.quantize_aware(*arguments)
    assert same(first.quantized, again.quantized)
    assert same(first.quantized, tools.fresh(**settings).quantize_aware(*arguments).quantized)
    assert [entry["phase"] for entry in first.history] == ["qat"]


def test_a_seed_of_any_size_gives_initial_weights(mlp) -> None:
    assert same(mlp.initial_weights(2**63 - 1), mlp.initial_weights(2**63 - 1))
    assert not same(mlp.initial_weights(1), mlp.initial_weights(2))


TRAINER = """
import numpy as np
import tf_keras as keras

def train(model, x, y, validation_x, epochs, seed):
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy())
    model.fit(x, y, epochs=epochs, verbose=0, shuffle=False)

def other(model):
    return keras.Sequential([keras.layers.Dense(3)])

def number(model):
    return 3

def raises(model, y):
    raise ValueError("no more patience")

def greedy(model, gpu):
    return model
"""


def test_a_function_of_the_users_trains_the_original(tools, tmp_path) -> None:
    (tmp_path / "trainer.py").write_text(TRAINER)
    session = tools.fresh(**{"training.function": f"{tmp_path}/trainer.py:train", "training.epochs": 8})
    rows = tools.material()
    weights, history = session.train(rows, 7)
    assert history == {"phase": "original", "function": f"{tmp_path}/trainer.py:train"}
    accuracy = np.mean(session.predict(weights, rows.validation.x).argmax(axis=1) == rows.validation.y)
    assert accuracy > 0.8 and [w.shape for w in kernels(weights)] == list(MLP)
    assert not same(weights, session.train(rows, 8)[0])  # other initial weights
    made = session.compress(weights, rows, make_defense("none"), tools.training_rows(rows), 7)
    assert [w.shape for w in kernels(made.weights)] == list(MLP)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("other", "did not return the network"),
        ("number", "did not return the network"),
        ("raises", "no more patience"),
        ("greedy", "takes parameters that nothing fills"),
        ("trian", "did you mean 'train'"),
    ],
)
def test_a_training_function_that_fails_is_one_error(tools, tmp_path, name, says) -> None:
    (tmp_path / "trainer.py").write_text(TRAINER)
    session = tools.fresh(**{"training.function": f"{tmp_path}/trainer.py:{name}"})
    with pytest.raises(ModelError) as caught:
        session.train(tools.material(), 7)
    assert says in str(caught.value)


def test_the_ablations_train_without_pruning_and_prune_without_training(tools) -> None:
    finetuned = tools.session(prune__schedule="finetune")
    _, original, made = compressed(finetuned, tools, "wemem")
    assert zeros(made.weights) == [0, 0, 0] and made.request.sparsity == (None, None, None)
    assert [entry["phase"] for entry in made.history] == ["prune 1/3", "prune 2/3", "prune 3/3"]
    assert not same(made.weights, original)
    untrained = tools.session(prune__schedule="untrained")
    _, original, made = compressed(untrained, tools, "wemem")
    assert made.request.sparsity == (0.6, 0.6, None)
    assert zeros(made.weights) == [round(0.6 * 12 * 256), round(0.6 * 256 * 128), 0]
    for before, after in zip(kernels(original), kernels(made.weights), strict=True):
        kept = after != 0
        np.testing.assert_array_equal(before[kept], after[kept])  # nothing else was touched
        if not kept.all():
            assert np.abs(before[~kept]).max() <= np.abs(before[kept]).min()
