"""Keras to file: what was asked is in the file, and what is not is an error."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprivacy.converters import Request, read_facts
from edgeprivacy.converters.tflite.check import check_request
from edgeprivacy.converters.tflite.convert import convert
from edgeprivacy.errors import ConversionError, DataError, UsageError

PRUNED = {"mlp": (0.6, 0.6, 0.6), "conv": (0.6, 0.6, 0.6, 0.6)}


@pytest.mark.parametrize("name", ["mlp", "conv"])
@pytest.mark.parametrize("format_", ["float32", "float16", "dynamic", "int8"])
def test_every_format_keeps_the_zeros_of_the_mask(zoo: Any, name: str, format_: str) -> None:
    facts = read_facts(zoo.files[name, format_])
    check_request(Request(format_, sparsity=PRUNED[name]), facts)
    for weight in facts.weights:
        zeros = round(weight.sparsity * weight.size)
        wanted = round(0.6 * weight.size)
        if format_ in ("float32", "float16"):
            assert zeros == wanted
        else:  # quantization may round small weights to zero, never a zero to something else
            assert zeros >= wanted


def test_integer_files_are_integer_throughout(zoo: Any) -> None:
    for name in ("mlp", "conv"):
        for format_ in ("int8", "qat-int8"):
            facts = read_facts(zoo.files[name, format_])
            assert {t.dtype for t in (*facts.inputs, *facts.outputs)} == {"int8"}
            assert {w.dtype for w in facts.weights} == {"int8"}
            assert facts.inputs[0].scale and facts.outputs[0].scale


def test_small_layers_of_a_dynamic_file_stay_float_and_are_noted(zoo: Any) -> None:
    facts = read_facts(zoo.files["mlp", "dynamic"])
    assert [w.dtype for w in facts.weights] == ["int8", "int8", "float32"]
    notes = check_request(Request("dynamic"), facts)
    assert len(notes) == 1 and "10x32" in notes[0] and "1024" in notes[0]
    large = replace(facts, weights=(replace(facts.weights[0], dtype="float32"), *facts.weights[1:]))
    with pytest.raises(ConversionError, match=r"layer 0 .*int8 weights asked, float32 found"):
        check_request(Request("dynamic"), large)


def test_int8_asked_of_a_float_file_fails_with_everything_missing(zoo: Any) -> None:
    with pytest.raises(ConversionError) as error:
        check_request(Request("int8"), read_facts(zoo.files["mlp", "float32"]))
    text = str(error.value)
    for part in ("input", "output", "layer 0", "layer 1", "layer 2", "output grid"):
        assert part in text
    assert text.count("float32 found") == 5


def test_more_zeros_than_there_are_fail(zoo: Any) -> None:
    facts = read_facts(zoo.files["mlp", "float32"])
    first = facts.weights[0]
    short = replace(facts, weights=(replace(first, sparsity=0.55), *facts.weights[1:]))
    with pytest.raises(ConversionError, match=r"layer 0 .*60\.0000% zeros asked, 55\.0000% found"):
        check_request(Request("float32", sparsity=(0.6, None, None)), short)
    one_less = replace(
        facts, weights=(replace(first, sparsity=first.sparsity - 1 / first.size), *facts.weights[1:])
    )
    with pytest.raises(ConversionError):
        check_request(Request("float32", sparsity=(first.sparsity, None, None)), one_less)
    with pytest.raises(ConversionError, match="asked for 2 layers, the file has 3"):
        check_request(Request("float32", sparsity=(0.1, 0.1)), facts)


def test_clusters_are_counted_an_output_channel(keras: Any, tmp_path: Path) -> None:
    model = keras.Sequential([keras.layers.Input((40,)), keras.layers.Dense(6, use_bias=False)])
    centroids = np.linspace(-1, 1, 4)
    kernel = centroids[np.random.default_rng(0).integers(0, 4, (40, 6))] * np.arange(1, 7)
    model.layers[0].kernel.assign(kernel)
    path = tmp_path / "c.tflite"
    facts = convert(model, "float32", None, path, Request("float32", clusters=(4,)))
    assert facts.weights[0].distinct == len(np.unique(kernel.astype(np.float32))) > 4
    assert facts.weights[0].distinct_per_channel == 4
    path.unlink()
    with pytest.raises(ConversionError, match="at most 3 distinct values an output channel asked, 4 found"):
        convert(model, "float32", None, path, Request("float32", clusters=(3,)))
    assert list(tmp_path.iterdir()) == []  # a file that fails its check is not left behind


def test_the_same_model_gives_the_same_bytes(zoo: Any, tmp_path: Path) -> None:
    for format_ in ("float32", "int8"):
        path = tmp_path / "again.tflite"
        convert(zoo.models["mlp"], format_, zoo.rows["mlp"][:100], path)
        assert path.read_bytes() == zoo.files["mlp", format_].read_bytes()


def test_conversion_is_silent(zoo: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    convert(zoo.models["mlp"], "int8", zoo.rows["mlp"][:20], tmp_path / "m.tflite")
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_a_fixed_batch_stays_fixed(keras: Any, tmp_path: Path) -> None:
    x = keras.Input((6,), batch_size=4)
    model = keras.Model(x, keras.layers.Dense(3, activation="softmax")(x))
    rows = np.random.default_rng(0).random((10, 6), np.float32)
    assert convert(model, "int8", rows, tmp_path / "m.tflite").inputs[0].shape == (4, 6)


def test_a_keras_3_model_converts(tmp_path: Path) -> None:
    keras3 = pytest.importorskip("keras", reason="needs the extra tflite")
    model = keras3.Sequential([keras3.layers.Input((5,)), keras3.layers.Dense(3, activation="softmax")])
    rows = np.random.default_rng(0).random((10, 5), np.float32)
    for format_ in ("float32", "int8"):
        assert convert(model, format_, rows, tmp_path / "m.tflite").inputs[0].shape == (-1, 5)


def test_a_qat_file_needs_a_model_trained_with_fake_quantization(zoo: Any, tmp_path: Path) -> None:
    with pytest.raises(ConversionError) as error:
        convert(zoo.models["mlp"], "qat-int8", None, tmp_path / "m.tflite")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_bad_requests_are_usage_errors(zoo: Any, tmp_path: Path) -> None:
    model, rows, path = zoo.models["mlp"], zoo.rows["mlp"], tmp_path / "m.tflite"
    with pytest.raises(UsageError, match="did you mean 'int8'"):
        convert(model, "int 8", rows, path)
    with pytest.raises(UsageError, match="differ"):
        convert(model, "int8", rows, path, Request("float32"))
    with pytest.raises(DataError, match="calibration"):
        convert(model, "int8", None, path)
    with pytest.raises(DataError, match=r"\(63,\)"):
        convert(model, "int8", rows[:, :63], path)
    with pytest.raises(DataError, match="NaN"):
        convert(model, "int8", np.full((2, 64), np.nan, np.float32), path)
