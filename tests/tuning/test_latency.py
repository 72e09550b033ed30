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
    """A small network and one with a hundred times its work."""
    keras = pytest.importorskip("tf_keras", reason="needs the extra tflite")
    tf = pytest.importorskip("tensorflow", reason="needs the extra tflite")
    folder = tmp_path_factory.mktemp("files")
    for name, width in (("small", 8), ("large", 2000)):
        layers = [
            keras.layers.Dense(width, "relu"),
            keras.layers.Dense(width),
            keras.layers.Dense(3, "softmax"),
        ]
        model = keras.Sequential([keras.Input((20,)), *layers])
        (folder / f"{name}.tflite").write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    x = np.random.default_rng(0).random((ROWS, 20), dtype=np.float32)
    ids = np.array([f"row{k}" for k in range(ROWS)])
    return folder, Dataset(x, np.arange(ROWS) % 3, ids, 3, ("a", "b", "c"), "rows")


def test_more_work_takes_longer_and_what_was_measured_is_kept(files: tuple[Path, Dataset]) -> None:
    folder, rows = files
    names = {name: f"{name}.tflite" for name in ("small", "large")}
    found = host_latencies(folder, names, rows)
    assert 0 < found["small"] < found["large"] / 5
    assert host_latencies(folder, names, rows) == found == json.loads((folder / "latency.json").read_text())
    (folder / "latency.json").write_text("{")
    assert set(host_latencies(folder, {"small": "small.tflite"}, rows)) == {"small"}


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
