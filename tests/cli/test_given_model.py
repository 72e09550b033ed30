"""`given`: the user's rows as they are and the user's trained model as the original (examples/own_model)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.slow
EXAMPLE = Path(__file__).parents[2] / "examples" / "own_model"
BRIEF = (
    *("--finetune-epochs", "1", "--prune-iterations", "2", "--epochs", "2", "--shadows", "2"),
    *("--attacks", "confidence,gap", "--jobs", "1", "--quiet"),
)
FLAGS = (
    *("--train", "train.npz", "--holdout", "holdout.npz", "--weights", "model.weights.h5"),
    *("--model", "examples/own_model/model.py:build", "--prune", "0", "--formats", "float32,int8"),
)


@pytest.fixture(scope="module")
def folder(compress: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example followed as its recipe says, in `wemem`; and the model audited as it is, in `as-it-is`."""
    home = tmp_path_factory.mktemp("given")
    shutil.copytree(EXAMPLE, home / "examples" / "own_model")
    for script in ("data.py", "train.py"):
        subprocess.run(
            [sys.executable, f"examples/own_model/{script}"],
            cwd=home,
            check=True,
            capture_output=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    runs = {"wemem": ("examples/own_model/recipe.toml",), "as-it-is": FLAGS}

    def call(name: str) -> Any:
        return compress(*runs[name], *BRIEF, "--out", name, cwd=home, cache=home / "cache")

    with ThreadPoolExecutor(2) as pool:
        for done in pool.map(call, runs):
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return home


def _audit(folder: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / name / "audit.json").read_text())
    return content


def _rows(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, str], set[str]]:
    """Inputs by row id, side by row id, ids of the train rows."""
    x, side = {}, {}
    for name in ("train", "holdout"):
        with np.load(folder / f"{name}.npz") as rows:
            x |= dict(zip(rows["ids"].tolist(), rows["x"], strict=True))
            side |= dict.fromkeys(rows["ids"].tolist(), name)
    return x, side, {row_id for row_id, name in side.items() if name == "train"}


@pytest.mark.parametrize("name", ["wemem", "as-it-is"])
def test_the_original_answers_as_the_given_model_does(keras: Any, folder: Path, name: str) -> None:
    from edgeprivacy.confidences import Confidences

    # The model once more, by Keras alone.
    scope: dict[str, Any] = {}
    exec((EXAMPLE / "model.py").read_text(), scope)
    model = scope["build"](keras)
    model.load_weights(folder / "model.weights.h5")
    inputs, _, _ = _rows(folder)
    found = Confidences.load(folder / name / "confidences" / "original-float32.npz")
    expected = model.predict(np.stack([inputs[row_id] for row_id in found.row_ids.tolist()]), verbose=0)
    assert len(expected) > 900
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)
    if name == "as-it-is":
        whole = Confidences.load(folder / name / "confidences" / "dense-float32.none.npz")
        np.testing.assert_allclose(whole.probabilities, expected, atol=1e-5)
        int8 = Confidences.load(folder / name / "confidences" / "dense-int8.none.npz")
        assert np.mean(int8.probabilities.argmax(1) == expected.argmax(1)) > 0.98


@pytest.mark.parametrize("name", ["wemem", "as-it-is"])
def test_members_are_all_train_rows_and_no_other(folder: Path, name: str) -> None:
    from edgeprivacy.data.splits import Split

    split = Split.load(folder / name / "split.json")
    _, side, train = _rows(folder)
    assert split.design == "given" and set(split.train_ids(0).tolist()) == train
    outside = [row_id for role, ids in split.roles.items() if role != "pool" for row_id in ids.tolist()]
    assert {side[row_id] for row_id in outside} == {"holdout"}
    audit = _audit(folder, name)
    assert audit["split"]["counts"]["members"] == len(train) == 600
    assert "trained on all 600 train rows as given" in audit["notes"][0]
    assert any("The original was given with its weights" in note for note in audit["notes"])
    assert {test["passed"] for test in audit["null_tests"]} == {True}


def test_the_defended_file_is_trained_further_and_the_other_is_not(folder: Path) -> None:
    phases = {
        f"{name}/{artifact['name']}": [phase["phase"] for phase in artifact["facts"]["history"]]
        for name in ("wemem", "as-it-is")
        for artifact in _audit(folder, name)["artifacts"]
    }
    assert phases["wemem/prune60-int8.wemem"][1:] == ["prune 1/2", "prune 2/2"]
    assert not [phase for phase in phases["as-it-is/dense-int8.none"] if phase != "defense"]
    artifacts = {artifact["name"]: artifact for artifact in _audit(folder, "as-it-is")["artifacts"]}
    assert set(artifacts) == {"original-float32", "dense-float32.none", "dense-int8.none"}
    assert artifacts["dense-int8.none"]["role"] == "candidate"
    same = artifacts["original-float32"]["sha256"] == artifacts["dense-float32.none"]["sha256"]
    assert same, "nothing was done to it, so it is the same file"
    notes = _audit(folder, "as-it-is")["notes"]
    assert any("Nothing trains after the original" in note for note in notes)


def test_the_train_accuracy_is_that_of_a_model_that_saw_those_rows(folder: Path) -> None:
    original = _audit(folder, "as-it-is")["artifacts"][0]["utility"]
    assert original["train_accuracy"]["value"] > 0.99 > original["test_accuracy"]["value"] > 0.9


@pytest.mark.parametrize("name", ["model.py", "data.py"])
def test_the_example_is_ten_lines(name: str) -> None:
    lines = [line for line in (EXAMPLE / name).read_text().splitlines() if line.strip()]
    assert len([line for line in lines if not line.startswith(('"""', "import", "from"))]) <= 10
