"""Rows of several independent labels, trained, compressed and written as .tflite files."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeprivacy.backends.base import Material
from edgeprivacy.data.dataset import Dataset
from edgeprivacy.defenses import Batch, TrainingRows, make_defense
from edgeprivacy.device_runner import Queries, open_runner
from edgeprivacy.errors import ModelError

LABELS = 4


def several(rows: int, seed: int) -> Dataset:
    """Labels that hold where a direction of their own says so."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 12)).astype(np.float32)
    directions = np.random.default_rng(99).normal(size=(12, LABELS))
    y = (x @ directions + rng.normal(size=(rows, LABELS)) > 0).astype(np.int64)
    ids = np.array([f"{seed}:{row}" for row in range(rows)])
    return Dataset(x, y, ids, LABELS, tuple(map(str, range(LABELS))), "rows")


@pytest.fixture(scope="module")
def made(tools: Any) -> tuple[Any, Material, Any]:
    """A session, its rows, and the original trained on them."""
    from edgeprivacy.backends import open_backend

    material = Material(*(several(size, seed) for seed, size in enumerate((300, 80, 20, 60))))
    recipe = tools.recipe(training__epochs=8, cluster__clusters=8)
    session = open_backend("tflite").open(recipe, LABELS, (12,), label_sets=True)
    return session, material, session.train(material, 3)


def test_the_loss_is_the_mean_binary_cross_entropy(tools: Any) -> None:
    import tensorflow as tf

    from edgeprivacy.backends.tflite.ops import TensorFlowOps

    rng = np.random.default_rng(1)
    z, y = rng.normal(size=(6, LABELS)).astype(np.float32), rng.integers(0, 2, (6, LABELS))
    p = 1 / (1 + np.exp(-z.astype(float)))
    wanted = [
        -np.mean([np.log(p[r, k] if y[r, k] else 1 - p[r, k]) for k in range(LABELS)]) for r in range(6)
    ]
    found = make_defense("wemem").loss(TensorFlowOps(), Batch(tf.constant(z), tf.constant(y)))
    assert float(found) == pytest.approx(np.mean(wanted), rel=1e-5)


def test_each_label_is_learned(made: tuple[Any, Material, Any]) -> None:
    session, material, (weights, history) = made
    answers = session.predict(weights, material.validation.x)
    assert answers.shape == (80, LABELS) and not np.allclose(answers.sum(axis=1), 1)
    right = (answers > 0.5) == material.validation.y
    assert history["validation_accuracy"] == pytest.approx(right.mean(), abs=1e-6)
    assert (right.mean(axis=0) > 0.75).all()


def test_every_format_answers_what_the_network_does(made: tuple[Any, Material, Any], tmp_path: Any) -> None:
    session, material, (weights, _) = made
    rows = TrainingRows.of(material.train.y, LABELS)
    rows = TrainingRows(rows.labels, rows.classes, np.random.default_rng(0).random(300))
    compressed = session.compress(weights, material, make_defense("wemem"), rows, 5)
    aware = session.quantize_aware(compressed, material, make_defense("wemem"), rows, 5)
    probe = material.validation
    for format, step in (("float32", 1e-5), ("float16", 5e-3), ("dynamic", 0.05), ("int8", 0.1)):
        check(session, compressed, format, probe, tmp_path, step)
    check(session, aware, "qat-int8", probe, tmp_path, 0.1)


def check(session: Any, ready: Any, format: str, probe: Dataset, folder: Any, most: float) -> None:
    path = folder / f"{format}.tflite"
    facts, expected = session.convert(ready, format, probe.x, path, probe.x)
    assert expected.shape == (len(probe), LABELS) and "LOGISTIC" in facts.operators
    found = open_runner("host").collect([path], Queries(probe.x, probe.ids, probe.y))[0]
    assert np.abs(found.sets.answers - expected).max() < most, format
    if found.raw is not None:
        assert np.abs((found.raw.astype(float) + 128) / 256 - found.sets.answers).max() < 1e-6
    assert found.labels.tolist() == [1] * len(probe)


def test_a_network_of_ones_own_must_end_in_sigmoids(tools: Any) -> None:
    from edgeprivacy.backends.tflite.models import prepare, several_sigmoids

    keras = __import__("edgeprivacy.backends.tflite.frameworks", fromlist=["keras"]).keras

    def network(activation: str, units: int = LABELS):
        inputs = keras.Input((12,))
        return keras.Model(inputs, keras.layers.Dense(units, activation=activation)(inputs))

    assert several_sigmoids(prepare(network("sigmoid"), "mine", LABELS, (12,), label_sets=True))
    for wrong, labels in (
        (network("softmax"), True),
        (network("sigmoid"), False),
        (network("sigmoid", 3), True),
    ):
        with pytest.raises(ModelError, match=r"sigmoid|number of labels"):
            prepare(wrong, "mine", LABELS, (12,), label_sets=labels)
    with pytest.raises(ModelError, match="one sigmoid unit a label"):
        prepare(network("softmax"), "mine", LABELS, (12,), label_sets=True)
