"""The built-in networks against Keras' own; the user's factories and weights: what is taken, what is not."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from edgeprivacy.defenses import make_defense
from edgeprivacy.errors import EXIT_USAGE, ModelError

torch = pytest.importorskip("torch", reason="needs the extra executorch")
pytestmark = pytest.mark.executorch
nn = torch.nn

HEAD = "import torch\nfrom torch import nn\n"


def factory(folder: Path, name: str, text: str) -> str:
    path = folder / f"{name}.py"
    path.write_text(HEAD + text)
    return f"{path}:build"


def from_keras(model) -> dict:
    """Name of a torch parameter or buffer to its array, from a tf_keras model's layers of the same names."""
    found = {}
    for layer in model.layers:
        for variable in layer.weights:
            kind = variable.name.split("/")[-1].split(":")[0]
            array = variable.numpy()
            if kind == "kernel":
                array = array.T if array.ndim == 2 else array.transpose(3, 2, 0, 1)
            word = {
                "kernel": "weight",
                "gamma": "weight",
                "beta": "bias",
                "moving_mean": "running_mean",
                "moving_variance": "running_var",
            }.get(kind, kind)
            found[f"{layer.name}.{word}"] = array
    return found


@pytest.mark.parametrize(
    ("source", "shape", "scale"),
    [
        ("mlp", (12,), 1.0),
        ("mlp", (5, 4, 3), 16.0),
        ("cnn", (16, 16, 3), 255.0),
        ("cnn", (9, 14, 1), 1.0),
        ("resnet", (16, 16, 3), 255.0),
        ("resnet", (9, 14, 1), 4.0),
        ("resnet", (11, 11, 3), 1.0),
        ("resnet-no-norm", (9, 14, 3), 255.0),
    ],
)
def test_built_in_networks_compute_what_keras_computes(tools, keras, source, shape, scale) -> None:
    from edgeprivacy.backends.tflite.built_in import BUILT_IN

    keras.backend.reset_uids()
    theirs = BUILT_IN[source](shape, 4, scale, 0.1)
    rng = np.random.default_rng(0)
    for variable in theirs.variables:  # BatchNorm that has seen data, biases that are not zero
        low = 0.5 if "variance" in variable.name or "gamma" in variable.name else -0.3
        variable.assign(rng.uniform(low, low + 0.9, variable.shape))
    session = tools.session(shape, 4, model__source=source, model__scale=scale)
    body = session._model.body
    own = body.state_dict()
    given = from_keras(theirs)
    assert {n for n in own if not n.endswith("num_batches_tracked")} == set(given)
    body.load_state_dict({**own, **{n: torch.from_numpy(np.array(a)) for n, a in given.items()}})
    rows = (rng.normal(size=(20, *shape)) * scale).astype(np.float32)
    got = session._network.predict(rows)
    np.testing.assert_allclose(got, theirs(rows), atol=1e-5)
    assert np.ptp(got) > 0.05
    # a recipe's prune.layers names the same layers in both
    from edgeprivacy.backends.tflite.models import weighted_layers

    assert {layer.name for layer in session._layers} == {layer.name for layer in weighted_layers(theirs)}


@pytest.mark.parametrize("kind", ["training", "statistics"])
def test_batch_norm_means_the_same_in_both(tools, keras, kind) -> None:
    """One training call on the same batch: same output, same moving mean and variance (Keras' fused form)."""
    rows = np.random.default_rng(1).normal(2, 3, size=(32, 6, 6, 5)).astype(np.float32)
    theirs = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)
    out = np.asarray(theirs(rows, training=True))
    ours = nn.BatchNorm2d(5, eps=1e-5, momentum=0.1).train()
    got = ours(torch.from_numpy(rows).permute(0, 3, 1, 2)).detach().permute(0, 2, 3, 1).numpy()
    if kind == "training":
        np.testing.assert_allclose(got, out, atol=1e-5)
    else:
        np.testing.assert_allclose(ours.running_mean, theirs.moving_mean, atol=1e-5)
        np.testing.assert_allclose(ours.running_var, theirs.moving_variance, atol=1e-4)


@pytest.mark.parametrize("source", ["mlp", "cnn", "resnet"])
def test_initial_weights_are_drawn_as_keras_draws(tools, source) -> None:
    shape = (40,) if source == "mlp" else (8, 8, 3)
    session = tools.session(shape, 3, model__source=source)
    weights = session.initial_weights(5)
    names = [name.removeprefix("body.") for name in session._model.state_dict()]
    for name, array in zip(names, weights, strict=True):
        if name.endswith("bias") or name.endswith("running_mean"):
            assert not array.any()
        elif array.ndim > 1:
            fan_in, fan_out = math.prod(array.shape[1:]), len(array)
            variance = 2 / fan_in if array.ndim == 4 else 2 / (fan_in + fan_out)
            assert array.std() == pytest.approx(math.sqrt(variance), rel=6 / math.sqrt(array.size))
            # nothing beyond two deviations of the normal that was cut, and some near them
            border = 2 * math.sqrt(variance) / 0.87962566103423978
            assert 0.8 * border < np.abs(array).max() <= border * 1.0001
    assert not np.array_equal(weights[0], session.initial_weights(6)[0])
    torch.manual_seed(1)
    again = session.initial_weights(5)
    assert all(map(np.array_equal, weights, again))


def test_a_residual_network_without_norm_starts_with_empty_branches_in_both(tools, keras) -> None:
    """Zeros where a branch ends, he_normal in every other convolution; and each row has its own answer."""
    from edgeprivacy.backends.tflite.built_in import BUILT_IN

    keras.backend.reset_uids()
    theirs = from_keras(BUILT_IN["resnet-no-norm"]((8, 8, 3), 3, 255.0, 0.1))
    session = tools.session((8, 8, 3), 3, model__source="resnet-no-norm", model__scale=255.0)
    names = [name.removeprefix("body.") for name in session._model.state_dict()]
    ours = dict(zip(names, session.initial_weights(5), strict=True))
    assert set(ours) == set(theirs) and not any("norm" in name for name in ours)
    for weights in (ours, theirs):
        empty = {name for name, array in weights.items() if array.ndim == 4 and not array.any()}
        assert empty == {f"conv2d_{number}.weight" for number in (2, 5, 8)}
        for name, array in weights.items():
            if array.ndim == 4 and name not in empty:
                expected = math.sqrt(2 / math.prod(array.shape[1:]))
                assert array.std() == pytest.approx(expected, rel=6 / math.sqrt(array.size))
            elif array.ndim == 1:
                assert not array.any()
    assert session._network.answers_alone(np.random.default_rng(0).random((4, 8, 8, 3)).astype(np.float32))


@pytest.mark.parametrize(("source", "size"), [("resnet18", 11_173_962), ("mobilenetv2", 2_236_682)])
def test_large_networks_have_their_papers_sizes_and_cifar_form(tools, source, size) -> None:
    """As many parameters as torchvision's with 10 classes, but for the 3x3 stem of ResNet-18."""
    from edgeprivacy.backends.executorch.models import BUILT_IN

    network = BUILT_IN[source]((32, 32, 3), 10, 255.0, 0.1)
    assert sum(p.numel() for p in network.parameters()) == size
    sizes = []
    network.avgpool.register_forward_hook(lambda layer, given, answer: sizes.append(given[0].shape[2:]))
    with torch.no_grad():
        rows = torch.rand(2, 32, 32, 3) * 255
        logits = network(rows)  # in training: BatchNorm has seen nothing yet
    assert logits.shape == (2, 10) and tuple(sizes[0]) == (4, 4)
    assert not torch.allclose(logits[0], logits[1])
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert max(layer.groups for layer in convolutions) == (1 if source == "resnet18" else 960)


def test_built_in_conv_nets_take_images_only(tools) -> None:
    for source in ("cnn", "resnet", "resnet-no-norm", "resnet18", "mobilenetv2"):
        with pytest.raises(ModelError, match="takes images"):
            tools.fresh(model__source=source)


TAKEN = {
    "logits": "def build(classes, input_shape):\n    return nn.Sequential(nn.Linear(*input_shape, classes))",
    "softmax": "def build():\n    return nn.Sequential(nn.Linear(12, 3), nn.Softmax(dim=-1))",
    "nested": "def build():\n    body = nn.Sequential(nn.Linear(12, 3), nn.LogSoftmax(dim=1))\n"
    "    return nn.Sequential(nn.Sequential(nn.Linear(12, 12), nn.ReLU()), body)",
    "own": "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
    "        self.d, self.end = nn.Linear(12, 3), nn.Softmax(dim=-1)\n"
    "    def forward(self, x):\n        return self.end(self.d(x))\ndef build():\n    return Net()",
}


@pytest.mark.parametrize("name", TAKEN)
def test_a_factorys_softmax_is_found_and_what_ships_answers_probabilities(tools, tmp_path, name) -> None:
    session = tools.fresh(model__source=factory(tmp_path, name, TAKEN[name]))
    rows = torch.from_numpy(tools.material().train.x)
    model = session._model.eval()
    with torch.no_grad():
        raw = session._raw().eval()
        raw.load_state_dict({k.removeprefix("body."): v for k, v in model.state_dict().items()})
        answer, logits, p = raw(rows), model.logits(rows), model(rows)
    expected = {"logits": answer.softmax(-1), "nested": answer.exp()}.get(name, answer)
    np.testing.assert_allclose(p, expected, atol=1e-6)
    assert logits.min() < 0 and not np.allclose(logits.exp().sum(-1), 1)  # no log-probabilities either
    np.testing.assert_allclose(session.predict(session._network.weights(), rows.numpy()), p, atol=1e-6)


REFUSED = {
    "raises": ("def build():\n    raise RuntimeError('no weights\\nat home')", "RuntimeError"),
    "exits": ("def build():\n    raise SystemExit('bye')", "SystemExit"),
    "asks": ("def build(keras):\n    return 1", "keras"),
    "number": ("def build():\n    return 3", "no torch model"),
    "shape": ("def build():\n    return nn.Linear(5, 3)", r"does not take rows of shape \[12\]"),
    "classes": ("def build():\n    return nn.Linear(12, 4)", "another number of classes"),
    "pair": (
        "class Net(nn.Module):\n    def forward(self, x):\n        return x, x\n"
        "def build():\n    return Net()",
        "one row of logits or probabilities",
    ),
    "flat": ("def build():\n    return nn.Flatten(0)", "one row of logits or probabilities"),
    "functional": (
        "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.d = nn.Linear(12, 3)\n    def forward(self, x):\n"
        "        return self.d(x).softmax(-1)\ndef build():\n    return Net()",
        "no layer of its own makes",
    ),
    "sigmoids": (
        "def build():\n    return nn.Sequential(nn.Linear(12, 3), nn.Sigmoid())",
        "in a softmax, or in one sigmoid unit",
    ),
    "twice": (
        "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.d, self.e, self.s = nn.Linear(12, 12), nn.Linear(12, 3), nn.Softmax(dim=-1)\n"
        "    def forward(self, x):\n        return self.s(self.e(self.s(self.d(x))))\n"
        "def build():\n    return Net()",
        "used elsewhere",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_one_line(tools, tmp_path, name) -> None:
    text, message = REFUSED[name]
    with pytest.raises(ModelError, match=message) as caught:
        tools.fresh(model__source=factory(tmp_path, name, text))
    assert caught.value.exit_code == EXIT_USAGE
    assert "\n" not in str(caught.value) and f"{name}.py" in str(caught.value)


def test_a_factory_that_keeps_its_model_gives_every_release_its_own(tools, tmp_path) -> None:
    text = "kept = nn.Linear(12, 3)\ndef build():\n    return kept"
    session, rows = tools.fresh(model__source=factory(tmp_path, "kept", text)), tools.material()
    before = session.initial_weights(1)
    session.train(rows, 1)
    assert all(map(np.array_equal, before, session.initial_weights(2)))


def test_one_sigmoid_unit(tools, tmp_path) -> None:
    for name, end in (("unit", ", nn.Sigmoid()"), ("logit", "")):
        text = f"def build():\n    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 1){end})"
        source = factory(tmp_path, name, text)
        session = tools.fresh(classes=2, model__source=source, training__learning_rate=0.01)
        rows = tools.material(classes=2)
        original, history = session.train(rows, 1)
        assert history["validation_accuracy"] > 0.8
        p = session.predict(original, rows.validation.x)
        assert p.shape == (60, 2)
        np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-6)
        with torch.no_grad():
            shipped = session._model.eval()(torch.from_numpy(rows.validation.x))
        np.testing.assert_allclose(shipped[:, 0], p[:, 1], atol=1e-6)


class Pickled:
    """What a hostile file names."""


@pytest.fixture(scope="module")
def trained(tools):
    """A session and weights that are not those it was built with."""
    session = tools.session(model__source="mlp")
    weights, _ = session.train(tools.material(), 3)
    names = [name.removeprefix("body.") for name in session._model.state_dict()]
    return session, weights, {n: torch.from_numpy(w.copy()) for n, w in zip(names, weights, strict=True)}


def test_state_dicts_and_safetensors_give_their_weights(trained, tmp_path) -> None:
    from safetensors.torch import save_file

    session, weights, state = trained
    torch.save(state, tmp_path / "w.pt")
    save_file(state, tmp_path / "w.safetensors")
    torch.save(dict(reversed(state.items())), tmp_path / "other_order.pt")
    for name in ("w.pt", "w.safetensors", "other_order.pt"):
        assert all(map(np.array_equal, session.load_weights(tmp_path / name), weights))


def test_weights_that_are_none_or_do_not_fit_are_refused(trained, tmp_path) -> None:
    from safetensors.torch import save_file

    session, _, state = trained
    nan = {**state, "logits.bias": torch.full((3,), float("nan"))}
    torch.save(nn.Linear(12, 3), tmp_path / "model.pt")
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "checkpoint.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save(Pickled(), tmp_path / "pickled.pt")
    torch.save({k: v for k, v in state.items() if k != "logits.bias"}, tmp_path / "lacks.pt")
    torch.save({**state, "more": torch.ones(1)}, tmp_path / "more.pt")
    torch.save({**state, "logits.bias": torch.ones(4)}, tmp_path / "shape.pt")
    torch.save(nan, tmp_path / "nan.pt")
    save_file({"a": torch.ones(2)}, tmp_path / "other.safetensors")
    torch.jit.script(nn.Linear(12, 3)).save(str(tmp_path / "script.pt"))
    (tmp_path / "text.pt").write_text("hello")
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "more.pt").read_bytes()[:2000])
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "other.safetensors").read_bytes()[:20])
    for name, message in [
        ("model.pt", "hold a pickled object.*state_dict"),
        ("pickled.pt", "hold a pickled object"),
        ("checkpoint.pt", "hold more than a state dict"),
        ("list.pt", "are no state dict"),
        ("lacks.pt", "it lacks logits.bias"),
        ("more.pt", "it holds unknown more"),
        ("shape.pt", "does not fit the model at 'logits.bias'"),
        ("nan.pt", "NaN or infinity"),
        ("other.safetensors", "it lacks dense.weight"),
        ("script.pt", "TorchScript"),
        ("text.pt", "cannot be read"),
        ("empty.pt", "cannot be read"),
        ("cut.pt", "cannot be read"),
        ("cut.safetensors", "cannot be read"),
        ("none.pt", "do not exist"),
    ]:
        with pytest.raises(ModelError, match=message) as caught:
            session.load_weights(tmp_path / name)
        assert "\n" not in str(caught.value) and name in str(caught.value)


@pytest.mark.parametrize("name", ["net.pt", "net.pte", "nonsense"])
def test_a_file_is_no_network(tools, tmp_path, name) -> None:
    torch.save(nn.Linear(12, 3), tmp_path / "net.pt")
    with pytest.raises(ModelError, match=r"FILE\.py:FUNCTION"):
        tools.fresh(model__source=str(tmp_path / name))


def test_a_layer_that_runs_twice_is_one_layer_and_is_released(tools, tmp_path) -> None:
    """Its weights stand in the file once."""
    text = (
        "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.a, self.b, self.c = nn.Linear(12, 8), nn.Linear(8, 8), nn.Linear(8, 3)\n"
        "    def forward(self, x):\n        x = self.b(self.b(torch.relu(self.a(x))))\n"
        "        return self.c(torch.relu(x))\ndef build():\n    return Net()"
    )
    bits = {"quantize__weight_bits": 4, "quantize__outer_bits": 4, "quantize__grid_epochs": 1}
    quick = {
        "training__epochs": 1,
        "prune__iterations": 2,
        "prune__finetune_epochs": 1,
        "prune__layers": "all",
    }
    source = factory(tmp_path, "again", text)
    session, rows = tools.fresh(model__source=source, **quick, **bits), tools.material()
    original, _ = session.train(rows, 1)
    made = session.compress(original, rows, make_defense("none"), tools.training_rows(rows), 1)
    facts, _ = session.convert(made, "int8", rows.calibration.x, tmp_path / "f.pte", rows.validation.x)
    assert [weight.dtype for weight in facts.weights] == ["int4"] * 3
