"""What the files hold after every combination: integers are integers, zeros and centroids survive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeprivacy.backends.base import Compressed
from edgeprivacy.converters import ArtifactFacts, Request, read_facts
from edgeprivacy.defenses import make_defense
from edgeprivacy.device_runner import Queries, open_runner
from edgeprivacy.errors import ConversionError, RecipeError

pytestmark = [pytest.mark.tflite, pytest.mark.litert]

QUICK = {
    "training__epochs": 2,
    "prune__iterations": 2,
    "prune__finetune_epochs": 1,
    "model__scale": 4.0,  # a Rescaling layer at the front
}
NETWORKS = {
    "mlp": {"shape": (12,), "layers": 3},
    "normed": {"shape": (8, 8, 3), "layers": 4},
}
# A user's own conv net: BatchNorm, a depthwise convolution, a sum.
NORMED = """
def build(keras, input_shape, classes):
    layers = keras.layers
    x = inputs = keras.Input(input_shape)
    x = layers.Conv2D(12, 3, padding="same", use_bias=False)(x)
    x = shortcut = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.Conv2D(12, 1, use_bias=False)(x)
    x = layers.BatchNormalization(momentum=0.9)(x)
    x = layers.ReLU()(layers.Add()([x, shortcut]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(classes, activation="softmax")(x))
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
    """The session and its compressed model under SWMR, quantization-aware training included; made once."""
    kind, key = NETWORKS[network], f"made {network} {combination}"
    if key not in tools.opened:
        settings = settings_of(tools, network, combination)
        session = tools.session(kind["shape"], **settings)
        rows = tools.material(kind["shape"])
        original, _ = session.train(rows, 3)
        # SWMR compiles two optimizers: on the small network it shows as much
        defense = make_defense("wemem:swmr" if network == "mlp" else "wemem")
        arguments = rows, defense, tools.training_rows(rows), 3
        made = session.compress(original, *arguments)
        tools.opened[key] = rows, session, session.quantize_aware(made, *arguments)
    return tools.opened[key]


def convert(made, format: str, folder: Path) -> tuple[ArtifactFacts, np.ndarray, np.ndarray]:
    rows, session, compressed = made
    path = folder / f"{format}.tflite"
    probe = rows.validation
    facts, expected = session.convert(compressed, format, rows.calibration.x, path, probe.x)
    (answered,) = open_runner("host").collect([path], Queries(probe.x, probe.ids, probe.y))
    return facts, expected, answered.probabilities


@pytest.mark.parametrize("combination", COMBINATIONS)
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("format", ["int8", "qat-int8"])
def test_integer_files_of_every_combination(tools, tmp_path, network, combination, format) -> None:
    facts, expected, answered = convert(make(tools, network, combination), format, tmp_path)
    assert [t.dtype for t in (*facts.inputs, *facts.outputs)] == ["int8", "int8"]
    assert {weight.dtype for weight in facts.weights} == {"int8"}
    # nothing is left in float between input and output
    assert "DEQUANTIZE" not in facts.operators
    assert facts.output_grid.scale == 1 / 256 and facts.output_grid.zero_point == -128
    assert len(facts.weights) == NETWORKS[network]["layers"]
    pruned = facts.weights[:-1] if network == "mlp" else facts.weights
    if "prune" in combination:
        for weight in pruned:
            assert round(weight.sparsity * weight.size) >= round(0.6 * weight.size)
    if "cluster" in combination:
        # tfmot does not cluster depthwise filters, and nothing is asked of them
        clustered = [weight for weight in facts.weights if weight.operator != "DEPTHWISE_CONV_2D"]
        assert all(weight.distinct_per_channel <= 8 for weight in clustered)
    else:
        assert max(weight.distinct_per_channel for weight in facts.weights) > 8
    # the file answers as the network does, up to what 8 bits cost
    assert np.mean(expected.argmax(axis=1) == answered.argmax(axis=1)) > 0.8
    if format == "qat-int8":
        assert np.abs(expected - answered).max() < 0.15


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


@pytest.mark.parametrize("network", ["mlp", "normed"])
@pytest.mark.parametrize("format", ["float32", "float16"])
def test_float_files_answer_as_the_network(tools, tmp_path, network, format) -> None:
    facts, expected, answered = convert(make(tools, network, "prune+cluster"), format, tmp_path)
    assert {weight.dtype for weight in facts.weights} == {format}
    assert {t.dtype for t in (*facts.inputs, *facts.outputs)} == {"float32"}
    np.testing.assert_allclose(expected, answered, atol=1e-5 if format == "float32" else 2e-2)
    clustered = [weight for weight in facts.weights if weight.operator != "DEPTHWISE_CONV_2D"]
    assert len(clustered) == 3 and all(weight.distinct_per_channel <= 8 for weight in clustered)
    for weight in facts.weights[: -1 if network == "mlp" else None]:
        assert round(weight.sparsity * weight.size) >= round(0.6 * weight.size)


def test_dynamic_files_have_float_ends_and_integer_weights(tools, tmp_path) -> None:
    facts, expected, answered = convert(make(tools, "mlp", "prune"), "dynamic", tmp_path)
    assert {t.dtype for t in (*facts.inputs, *facts.outputs)} == {"float32"}
    assert [weight.dtype for weight in facts.weights] == ["int8", "int8", "float32"]  # 384 weights stay float
    assert any("stays float32" in note for note in facts.notes)
    assert np.abs(expected - answered).max() < 0.1


def test_the_facts_are_those_of_the_file_and_the_bytes_repeat(tools, tmp_path) -> None:
    rows, session, compressed = made = make(tools, "normed", "prune+cluster")
    session.train(rows, 4)  # the network is used for something else in between
    other = rows, tools.fresh((8, 8, 3), **settings_of(tools, "normed", "prune+cluster")), compressed
    for format in ("float32", "int8", "qat-int8"):
        facts, _, _ = convert(made, format, tmp_path)
        found = read_facts(tmp_path / f"{format}.tflite")
        assert (found.weights, found.sha256) == (facts.weights, facts.sha256)
        assert convert(made, format, tmp_path)[0].sha256 == facts.sha256
        assert convert(other, format, tmp_path)[0].sha256 == facts.sha256


@pytest.mark.parametrize("format", ["float32", "int8", "qat-int8"])
@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request("float32", (0.7, 0.6, None)), "70.0000% zeros asked"),
        (Request("float32", (0.6, 0.6, 0.6)), "60.0000% zeros asked"),
        (Request("float32", (), (8, 4, 8)), "at most 4 distinct values an output channel asked"),
        (Request("float32", (0.6, 0.6)), "asked for 2 layers, the file has 3"),
    ],
)
def test_what_was_asked_and_is_not_in_the_file_is_an_error(
    tools, tmp_path, format, request_, message
) -> None:
    rows, session, compressed = make(tools, "mlp", "prune+cluster")
    wrong = Compressed(compressed.weights, request_, compressed.quantized)
    with pytest.raises(ConversionError, match=message) as caught:
        convert((rows, session, wrong), format, tmp_path)
    assert caught.value.exit_code == 4
    assert list(tmp_path.iterdir()) == []  # no file that is not what it should be


def test_plain_quantization_aware_training_of_dense_weights(tools, tmp_path) -> None:
    session = tools.session(**QUICK, prune__schedule="none", formats=["qat-int8"])
    rows = tools.material()
    original, _ = session.train(rows, 3)
    arguments = rows, make_defense("none"), tools.training_rows(rows), 3
    made = session.quantize_aware(session.compress(original, *arguments), *arguments)
    facts, expected, answered = convert((rows, session, made), "qat-int8", tmp_path)
    assert {weight.dtype for weight in facts.weights} == {"int8"}
    assert np.abs(expected - answered).max() < 0.1
    assert all(weight.sparsity < 0.3 for weight in facts.weights)


def test_schedules_of_tfmot_leave_depthwise_filters_whole(tools, tmp_path) -> None:
    settings = settings_of(tools, "normed", "prune") | {"prune__schedule": "one-shot", "formats": ["float32"]}
    session, rows = tools.session((8, 8, 3), **settings), tools.material((8, 8, 3))
    made = session.compress(
        session.train(rows, 3)[0], rows, make_defense("none"), tools.training_rows(rows), 3
    )
    facts, _, _ = convert((rows, session, made), "float32", tmp_path)
    sparse = [weight.operator for weight in facts.weights if weight.sparsity > 0.59]
    whole = [weight.operator for weight in facts.weights if weight.sparsity < 0.01]
    assert (len(sparse), whole) == (3, ["DEPTHWISE_CONV_2D"])
    settings["prune__layers"] = ("depthwise_conv2d",)
    with pytest.raises(RecipeError, match="names no weighted layer"):
        tools.fresh((8, 8, 3), **settings)


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
    for format in ("float32", "int8"):
        facts, _ = session.convert(
            made, format, rows.calibration.x, tmp_path / f"{format}.tflite", rows.validation.x
        )
        held = [weight.distinct_per_channel for weight in facts.weights]
        assert held[0] <= 15 and held[-1] <= 15 and max(held[1:-1]) <= 7, format
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
    facts, _ = session.convert(made, "int8", rows.calibration.x, tmp_path / "int8.tflite", rows.validation.x)
    assert [weight.dtype for weight in facts.weights] == ["int4", "int2", "int4"]
    assert facts.weights[1].distinct_per_channel <= 3 and facts.weights[1].sparsity >= 0.6


def test_names_in_a_quantization_aware_model_do_not_count_what_was_made_before(tools) -> None:
    """They stand in the file: a release's bytes must not depend on how many came before it."""
    from edgeprivacy.backends.tflite.qat import quantization_aware

    model = tools.session(NETWORKS["mlp"]["shape"], **settings_of(tools, "mlp", "prune"))._model
    first, second = ([v.name for v in quantization_aware(model, True, False).variables] for _ in range(2))
    assert first == second
