"""What the files hold after every combination: integers are integers, zeros and centroids survive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeprivacy.backends.base import Compressed
from edgeprivacy.converters import ArtifactFacts, Request, read_facts
from edgeprivacy.defenses import make_defense
from edgeprivacy.device_runner import Queries, open_runner
from edgeprivacy.errors import ConversionError, ModelError

pytest.importorskip("torch", reason="needs the extra executorch")
pytestmark = pytest.mark.executorch

QUICK = {"training__epochs": 2, "prune__iterations": 2, "prune__finetune_epochs": 1, "model__scale": 4.0}
NETWORKS = {"mlp": {"shape": (12,), "layers": 3}, "normed": {"shape": (8, 8, 3), "layers": 4}}
# A user's own conv net: BatchNorm, a depthwise convolution, a sum, its own softmax.
NORMED = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.a, self.na = nn.Conv2d(3, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
        self.b, self.nb = nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False), nn.BatchNorm2d(12)
        self.c, self.nc = nn.Conv2d(12, 12, 1, bias=False), nn.BatchNorm2d(12)
        self.pool, self.d, self.end = nn.AdaptiveAvgPool2d(1), nn.Linear(12, classes), nn.Softmax(dim=-1)
    def forward(self, x):
        shortcut = torch.relu(self.na(self.a(x.permute(0, 3, 1, 2))))
        x = torch.relu(self.nb(self.b(shortcut)))
        x = torch.relu(self.nc(self.c(x)) + shortcut)
        return self.end(self.d(self.pool(x).flatten(1)))
def build(classes):
    return Net(classes)
"""
COMBINATIONS = {
    "prune": {},
    "cluster": {"prune__schedule": "none", "cluster__clusters": 8},
    "prune+cluster": {"cluster__clusters": 8},
}


def settings_of(tools, network: str, combination: str) -> dict:
    """Of the recipe; quantization-aware training included."""
    source = network
    if network == "normed":
        source = f"{tools.folder / 'normed.py'}:build"
        (tools.folder / "normed.py").write_text(NORMED)
    return QUICK | COMBINATIONS[combination] | {"model__source": source, "formats": ["qat-int8"]}


def make(tools, network: str, combination: str):
    """The session and its compressed model under RSW, quantization-aware training included; made once."""
    kind, key = NETWORKS[network], f"made {network} {combination}"
    if key not in tools.opened:
        session = tools.session(kind["shape"], **settings_of(tools, network, combination))
        rows = tools.material(kind["shape"])
        original, _ = session.train(rows, 3)
        arguments = rows, make_defense("wemem"), tools.training_rows(rows), 3
        made = session.compress(original, *arguments)
        tools.opened[key] = rows, session, session.quantize_aware(made, *arguments)
    return tools.opened[key]


def convert(made, format: str, folder: Path) -> tuple[ArtifactFacts, np.ndarray, np.ndarray]:
    rows, session, compressed = made
    path = folder / (f"{format}.ptl" if format.startswith("ptl") else f"{format}.pte")
    probe = rows.validation
    facts, expected = session.convert(compressed, format, rows.calibration.x, path, probe.x)
    (answered,) = open_runner("host").collect([path], Queries(probe.x, probe.ids, probe.y))
    return facts, expected, answered.probabilities


def holds(facts: ArtifactFacts, network: str, combination: str) -> None:
    """Zeros and shared values, layer by layer."""
    assert len(facts.weights) == NETWORKS[network]["layers"]
    if "prune" in combination:
        for weight in facts.weights[: -1 if network == "mlp" else None]:
            assert round(weight.sparsity * weight.size) >= round(0.6 * weight.size)
    if "cluster" in combination:
        # depthwise filters (9 weights a channel) are not clustered, and nothing is asked of them
        clustered = [w for w in facts.weights if w.size // w.shape[w.channel_axis] > 9]
        assert len(clustered) == 3 and all(weight.distinct_per_channel <= 8 for weight in clustered)
    else:
        assert max(weight.distinct_per_channel for weight in facts.weights) > 8


@pytest.mark.parametrize(
    ("network", "combination", "format"),
    [
        ("mlp", "prune", "int8"),
        ("mlp", "cluster", "qat-int8"),
        ("mlp", "prune+cluster", "int8"),
        ("mlp", "prune+cluster", "qat-int8"),
        ("normed", "prune+cluster", "qat-int8"),
    ],
)
def test_integer_files_of_every_combination(tools, tmp_path, network, combination, format) -> None:
    facts, expected, answered = convert(make(tools, network, combination), format, tmp_path)
    assert {weight.dtype for weight in facts.weights} == {"int8"}
    assert facts.output_grid is not None and facts.output_grid.on == "logits"
    holds(facts, network, combination)
    # the file answers as the network does, up to what 8 bits cost
    assert np.mean(expected.argmax(axis=1) == answered.argmax(axis=1)) > 0.8
    assert np.abs(expected - answered).max() < (0.1 if format == "qat-int8" else 0.2)


def test_integer_files_of_a_residual_network_without_norm(tools, tmp_path) -> None:
    settings = {**QUICK, "training__epochs": 12, "model__source": "resnet-no-norm"}
    rows = tools.material((8, 8, 3))
    session = tools.session((8, 8, 3), **settings)
    original, _ = session.train(rows, 3)
    made = session.compress(original, rows, make_defense("none"), tools.training_rows(rows), 3)
    facts, expected, answered = convert((rows, session, made), "int8", tmp_path)
    assert {weight.dtype for weight in facts.weights} == {"int8"} and len(facts.weights) == 10
    assert all(round(weight.sparsity * weight.size) >= round(0.6 * weight.size) for weight in facts.weights)
    assert np.ptp(expected) > 0.3
    assert np.mean(expected.argmax(axis=1) == answered.argmax(axis=1)) > 0.9
    assert np.abs(expected - answered).max() < 0.15


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("format", ["float32", "portable-float32", "ptl-float32"])
def test_float_files_answer_as_the_network(tools, tmp_path, network, format) -> None:
    facts, expected, answered = convert(make(tools, network, "prune+cluster"), format, tmp_path)
    np.testing.assert_allclose(expected, answered, atol=1e-5)
    assert np.ptp(expected) > 0.1
    assert {weight.dtype for weight in facts.weights} == {"float32"}
    if not format.startswith("ptl"):
        holds(facts, network, "prune+cluster")


@pytest.mark.parametrize("format", ["dynamic", "ptl-int8"])
def test_other_integer_files_answer_nearly_as_the_network(tools, tmp_path, format) -> None:
    facts, expected, answered = convert(make(tools, "mlp", "prune+cluster"), format, tmp_path)
    assert 0 < np.abs(expected - answered).max() < 0.1
    assert [weight.dtype for weight in facts.weights] == ["int8"] * 3
    holds(facts, "mlp", "prune+cluster")


def test_the_facts_are_those_of_the_file_and_the_bytes_repeat(tools, tmp_path) -> None:
    rows, session, compressed = made = make(tools, "mlp", "prune+cluster")
    session.train(rows, 4)  # the network is used for something else in between
    other = rows, tools.fresh(**settings_of(tools, "mlp", "prune+cluster")), compressed
    facts, _, _ = convert(made, "qat-int8", tmp_path)
    found = read_facts(tmp_path / "qat-int8.pte")
    assert (found.weights, found.sha256) == (facts.weights, facts.sha256)
    assert convert(other, "qat-int8", tmp_path)[0].sha256 == facts.sha256


@pytest.mark.parametrize(
    ("format", "request_", "message"),
    [
        ("float32", Request("float32", (0.7, 0.6, None)), "70.0000% zeros asked"),
        (
            "qat-int8",
            Request("float32", (0.6, 0.6), (8, 4, 8)),
            "asked for 2 layers, the file has 3; .*at most 4 distinct values an output channel asked",
        ),
    ],
)
def test_what_was_asked_and_is_not_in_the_file_is_an_error(
    tools, tmp_path, format, request_, message
) -> None:
    rows, session, compressed = make(tools, "mlp", "prune+cluster")
    wrong = Compressed(compressed.weights, request_, compressed.quantized)
    with pytest.raises(ConversionError, match=message):
        convert((rows, session, wrong), format, tmp_path)
    assert list(tmp_path.iterdir()) == []  # no file that is not what it should be


def test_fewer_channels_make_a_smaller_file(tools, tmp_path) -> None:
    settings = {**QUICK, "prune__schedule": "structured", "prune__sparsity": 0.5, "model__source": "resnet"}
    session, rows = tools.session((8, 8, 3), **settings), tools.material((8, 8, 3))
    original, _ = session.train(rows, 3)
    made = session.compress(original, rows, make_defense("none"), tools.training_rows(rows), 3)
    facts, expected, answered = convert((rows, session, made), "float32", tmp_path)
    np.testing.assert_allclose(expected, answered, atol=1e-5)
    assert facts.weights[0].shape[0] == 8
    assert facts.size_bytes < 0.4 * 4 * sum(weight.size for weight in original)


BAD = {
    "branch": (
        "    def forward(self, x):\n        return self.d(x) if x.sum() > 0 else self.d(-x)",
        "control flow depends on the data",
    ),
    "detached": ("    def forward(self, x):\n        return self.d(x).detach()", "cannot be trained"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_export_or_train_is_found_before_training(tools, tmp_path, name) -> None:
    path = tmp_path / f"{name}.py"
    path.write_text(
        "from torch import nn\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        f"        self.d = nn.Linear(12, 3)\n{BAD[name][0]}\ndef build():\n    return Net()\n"
    )
    session = tools.fresh(model__source=f"{path}:build")
    with pytest.raises(ModelError, match=BAD[name][1]) as caught:
        session.check()
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)


def test_a_good_model_passes_the_check_and_still_starts_anew(tools) -> None:
    session, rows = tools.fresh(formats=["qat-int8"]), tools.material()
    session.check()
    assert all(map(np.array_equal, session.train(rows, 3)[0], tools.session().train(rows, 3)[0]))


@pytest.mark.parametrize("network", NETWORKS)
def test_a_file_holds_the_grid_of_few_bits(tools, network: str, tmp_path: Path) -> None:
    shape = NETWORKS[network]["shape"]
    settings = settings_of(tools, network, "prune") | {"formats": ["int8"]}
    session, rows = tools.session(shape, **settings), tools.material(shape)
    defense = make_defense("defensive-quantization", {"weight_bits": 3, "outer_bits": 4, "epochs": 2})
    original, _ = session.train(rows, 3)
    made = session.compress(original, rows, defense, tools.training_rows(rows), 3)
    grid = next(entry for entry in made.history if entry["phase"] == "grid")
    assert [*grid["bits"].values()] == [4, *[3] * (NETWORKS[network]["layers"] - 2), 4]
    file = tmp_path / "int8.pte"
    facts, _ = session.convert(made, "int8", rows.calibration.x, file, rows.validation.x)
    held = [weight.distinct_per_channel for weight in facts.weights]
    assert held[0] <= 15 and held[-1] <= 15 and max(held[1:-1]) <= 7
    assert min(held[1:-1]) >= 4, "a grid, not a constant"


def test_a_recipe_s_own_grid_is_trained_under_any_defense_and_packed(tools, tmp_path: Path) -> None:
    bits = {"quantize__weight_bits": 2, "quantize__outer_bits": 4, "quantize__grid_epochs": 2}
    settings = settings_of(tools, "mlp", "prune") | {"formats": ["int8"]} | bits
    shape = NETWORKS["mlp"]["shape"]
    session, rows = tools.session(shape, **settings), tools.material(shape)
    original, _ = session.train(rows, 3)
    made = session.compress(original, rows, make_defense("wemem"), tools.training_rows(rows), 3)
    grid = next(entry for entry in made.history if entry["phase"] == "grid")
    assert [*grid["bits"].values()] == [4, 2, 4] and made.request.bits == (4, 2, 4)
    facts, _ = session.convert(made, "int8", rows.calibration.x, tmp_path / "int8.pte", rows.validation.x)
    assert [weight.dtype for weight in facts.weights] == ["int4", "int4", "int4"]
    assert facts.weights[1].distinct_per_channel <= 3 and facts.weights[1].sparsity >= 0.6
