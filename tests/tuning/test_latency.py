"""The time of a row: asked one at a time, kept for a resumed search."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgeprivacy.data.dataset import Dataset
from edgeprivacy.device_runner import Queries
from edgeprivacy.device_runner.host import HostRunner
from edgeprivacy.tuning.latency import host_latencies

pytestmark = [pytest.mark.tflite, pytest.mark.litert]
ROWS = 300


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Dataset]:
    """Two small networks."""
    keras = pytest.importorskip("tf_keras", reason="needs the extra tflite")
    tf = pytest.importorskip("tensorflow", reason="needs the extra tflite")
    folder = tmp_path_factory.mktemp("files")
    for name, width in (("small", 8), ("large", 80)):
        layers = [keras.layers.Dense(width, "relu"), keras.layers.Dense(3, "softmax")]
        model = keras.Sequential([keras.Input((20,)), *layers])
        (folder / f"{name}.tflite").write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    x = np.random.default_rng(0).random((ROWS, 20), dtype=np.float32)
    ids = np.array([f"row{k}" for k in range(ROWS)])
    return folder, Dataset(x, np.arange(ROWS) % 3, ids, 3, ("a", "b", "c"), "rows")


def test_what_was_measured_is_kept_and_what_is_missing_measured(files: tuple[Path, Dataset]) -> None:
    folder, rows = files
    found = host_latencies(folder, {"small": "small.tflite"}, rows)
    assert list(found) == ["small"] and found["small"] > 0
    both = {name: f"{name}.tflite" for name in ("small", "large")}
    assert min(host_latencies(folder, both, rows).values()) > 0
    # What stands there is believed: a resumed search compares the same numbers.
    (folder / "latency.json").write_text(json.dumps({"small": 17.0, "large": 18.0}))
    assert host_latencies(folder, both, rows) == {"small": 17.0, "large": 18.0}
    (folder / "latency.json").write_text("{")
    assert host_latencies(folder, {"small": "small.tflite"}, rows)["small"] != 17.0


def test_rows_asked_one_by_one_answer_as_together(files: tuple[Path, Dataset]) -> None:
    folder, rows = files
    answers = []
    for largest, batch in ((1, 1), (256, 256)):
        runner = HostRunner(largest_batch=largest)
        (run,) = runner.collect([folder / "small.tflite"], Queries(rows.x, rows.ids, rows.y))
        runner.close()
        assert run.facts["batch"] == batch
        answers.append(run.probabilities)
    np.testing.assert_array_equal(*answers)
