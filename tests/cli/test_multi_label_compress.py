"""`compress` of rows with several independent labels, as a process; torch is tested with its backend."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

pytest.importorskip("tf_keras", reason="needs the extra tflite")
pytestmark = [pytest.mark.slow, pytest.mark.tflite]

SMALL = (
    *("--epochs", "20", "--finetune-epochs", "6", "--prune-iterations", "2", "--shadows", "1"),
    *("--attacks", "loss,entropy,difficulty,label-only.noise", "--quiet", "--json"),
)
LABELS = np.array([[d % 2 == 0, d > 4, d in (0, 6, 8, 9), d in (2, 3, 5, 7)] for d in range(10)], dtype=int)


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], np.ndarray]:
    """The finished folder, its audit, and the labels that files are asked about."""
    folder, rng = tmp_path_factory.mktemp("sets"), np.random.default_rng(3)
    x, digits = load_digits(return_X_y=True)
    some = rng.permutation(len(x))[:600]
    y = LABELS[digits[some]] ^ (rng.random((600, 4)) < 0.1)
    np.savez(folder / "digits.npz", x=x[some].astype(np.float32), y=y)
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("edgeprivacy")),
            *("compress", "--data", "digits.npz", "--backend", "tflite", "--defense", "wemem"),
            *("--formats", "int8", "--out", "out", *SMALL),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache")},
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "out", json.loads(done.stdout), y


def test_every_file_answers_each_label(released: tuple[Path, dict[str, Any], np.ndarray]) -> None:
    out, audit, y = released
    assert len(audit["artifacts"]) == 2
    for artifact in audit["artifacts"]:
        kept = np.load(out / "confidences" / f"{artifact['name']}.npz")
        rows = np.array([int(row.rpartition(":")[2]) for row in kept["row_ids"].tolist()])
        assert np.array_equal(kept["label_truth"], y[rows])
        assert 0.7 < ((kept["label_answers"] > 0.5) == kept["label_truth"]).mean()
        assert artifact["parity"]["max_abs"] < (0.15 if "int8" in artifact["name"] else 1e-4)


def test_attacks_and_utility_are_those_of_rows_as_a_whole(
    released: tuple[Path, dict[str, Any], np.ndarray],
) -> None:
    out, audit, _ = released
    split = json.loads((out / "split.json").read_text())
    test = set(split["roles"]["test"])
    for artifact in audit["artifacts"]:
        attacks = {attack["name"]: attack for attack in artifact["attacks"]}
        assert attacks["loss"]["metrics"]["auc"]["value"] > 0.55
        assert all("independent" in attacks[name]["skipped"] for name in ("entropy", "label-only.noise"))
        kept = np.load(out / "confidences" / f"{artifact['name']}.npz")
        of_test = np.array([row in test for row in kept["row_ids"].tolist()])
        right = ((kept["label_answers"] > 0.5) == kept["label_truth"]).all(axis=1)
        found = artifact["utility"]["test_accuracy"]["value"]
        assert found == pytest.approx(right[of_test].mean(), abs=1e-6)
    assert any("independent labels" in note for note in audit["notes"])
