"""Logits of files that round their probabilities: the shipped answers must follow from them, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprivacy.device_runner import Queries, Runner, open_runner
from edgeprivacy.errors import ArtifactError
from edgeprivacy.files import sha256_file

tflite_only = pytest.importorskip("ai_edge_litert", reason="needs the extra litert")


@pytest.fixture(scope="module")
def runners() -> Iterator[tuple[Runner, Runner]]:
    both = open_runner("host"), open_runner("host:logits")
    yield both
    for runner in both:
        runner.close()


def queries(x: np.ndarray) -> Queries:
    return Queries(x, np.arange(len(x)).astype(np.str_), np.zeros(len(x), np.int64))


def converted(keras: Any, layers: list[Any], rows: np.ndarray, path: Path) -> Path:
    """A full-integer file of a small network."""
    import tensorflow as tf

    model = keras.Sequential([keras.Input(rows.shape[1:]), *layers])
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([row[None]] for row in rows[:50])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_output_type = tf.int8
    path.write_bytes(converter.convert())
    return path


@pytest.mark.parametrize("name", ["mlp", "conv"])
@pytest.mark.parametrize("format", ["int8", "qat-int8"])
def test_the_answers_are_the_softmax_of_the_logits_in_steps(
    zoo: Any, runners: tuple[Runner, Runner], name: str, format: str
) -> None:
    host, inside = runners
    file, asked = zoo.files[name, format], queries(zoo.rows[name])
    answered, read = host.collect([file], asked)[0], inside.collect([file], asked)[0]
    assert answered.raw is not None and answered.grid is not None and answered.grid.scale == 1 / 256
    assert read.grid is not None and read.grid.on == "logits" and read.facts["read_before"] == "SOFTMAX"
    steps = np.round(read.probabilities.astype(np.float64) * 256) - 128
    assert np.abs(np.clip(steps, -128, 127) - answered.raw).max() <= 1
    assert len(np.unique(read.probabilities)) > len(np.unique(answered.probabilities))
    assert read.facts["model_sha256"] == sha256_file(file) == answered.facts["model_sha256"]
    assert read.facts["model"] == file.name and read.log_floor < answered.log_floor


def test_files_that_round_no_probabilities_answer_as_on_the_host(
    zoo: Any, runners: tuple[Runner, Runner]
) -> None:
    host, inside = runners
    files = [zoo.files["mlp", format] for format in ("float32", "int8", "float16")]
    asked = queries(zoo.rows["mlp"])
    there, here = host.collect(files, asked), inside.collect(files, asked)
    for position in (0, 2):
        assert np.array_equal(there[position].probabilities, here[position].probabilities)
        assert "read_before" not in here[position].facts
    assert not np.array_equal(there[1].probabilities, here[1].probabilities)
    assert inside.identity(files[0])["device"] == inside.label == "host:logits"


def test_one_sigmoid_is_read_before_it(keras: Any, runners: tuple[Runner, Runner], tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    file = converted(keras, [keras.layers.Dense(1, activation="sigmoid")], rows, tmp_path / "one.tflite")
    host, inside = runners
    answered, read = (runner.collect([file], queries(rows))[0] for runner in (host, inside))
    assert read.facts["read_before"] == "LOGISTIC"
    assert answered.raw is not None and read.probabilities.shape == (200, 2)
    steps = np.clip(np.round(read.probabilities[:, 1].astype(np.float64) * 256) - 128, -128, 127)
    assert np.abs(steps - answered.raw[:, 0]).max() <= 1


def test_a_file_of_logits_is_left_as_it_is(
    keras: Any, runners: tuple[Runner, Runner], tmp_path: Path
) -> None:
    rows = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32)
    file = converted(keras, [keras.layers.Dense(3)], rows, tmp_path / "logits.tflite")
    answered, read = (runner.collect([file], queries(rows), logits=True)[0] for runner in runners)
    assert np.array_equal(answered.probabilities, read.probabilities) and "read_before" not in read.facts


def test_a_softmax_of_another_steepness_is_left_as_it_is(
    zoo: Any, runners: tuple[Runner, Runner], tmp_path: Path
) -> None:
    from ai_edge_litert import schema_py_generated as schema

    content = bytearray(zoo.files["mlp", "int8"].read_bytes())
    graph = schema.Model.GetRootAs(content, 0).Subgraphs(0)
    last = graph.Operators(graph.OperatorsLength() - 1).BuiltinOptions()
    beta = last.Pos + last.Offset(4)
    assert np.frombuffer(content, np.float32, 1, beta)[0] == 1.0
    content[beta : beta + 4] = np.float32(0.5).tobytes()
    file = tmp_path / "flat.tflite"
    file.write_bytes(content)
    read = runners[1].collect([file], queries(zoo.rows["mlp"][:20]))[0]
    assert "read_before" not in read.facts


def test_damaged_files_are_one_line(zoo: Any, runners: tuple[Runner, Runner], tmp_path: Path) -> None:
    file = tmp_path / "cut.tflite"
    file.write_bytes(zoo.files["mlp", "int8"].read_bytes()[:3000])
    with pytest.raises(ArtifactError):
        runners[1].collect([file], queries(zoo.rows["mlp"][:20]))


def test_a_list_that_the_graph_shares_with_an_operator_is_left_as_it_is(
    zoo: Any, runners: tuple[Runner, Runner], tmp_path: Path
) -> None:
    from ai_edge_litert import schema_py_generated as schema

    content = bytearray(zoo.files["mlp", "int8"].read_bytes())
    graph = schema.Model.GetRootAs(content, 0).Subgraphs(0)
    last = graph.Operators(graph.OperatorsLength() - 1)
    shared = last._tab.Vector(last._tab.Offset(8)) - 4
    place = graph._tab.Pos + graph._tab.Offset(8)
    content[place : place + 4] = np.uint32(shared - place).tobytes()
    file = tmp_path / "shared.tflite"
    file.write_bytes(content)
    asked = queries(zoo.rows["mlp"][:20])
    answered, read = (runner.collect([file], asked)[0] for runner in runners)
    assert np.array_equal(answered.probabilities, read.probabilities) and "read_before" not in read.facts
