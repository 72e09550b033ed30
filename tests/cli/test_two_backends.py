"""`compress` with the second backend, and with both at once: one recipe, one split, one report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra executorch")
pytest.importorskip("tf_keras", reason="needs the extra tflite")
pytestmark = [pytest.mark.slow, pytest.mark.executorch, pytest.mark.tflite]

SMALL = (
    *("--epochs", "6", "--finetune-epochs", "2", "--prune-iterations", "2", "--shadows", "2"),
    *("--attacks", "loss,confidence,lira.offline", "--quiet", "--json"),
)
Done = subprocess.CompletedProcess[str]


def run(*arguments: object, folder: Path) -> Done:
    return subprocess.run(
        [str(Path(sys.executable).with_name("edgeprivacy")), "compress", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache")},
        timeout=400,
    )


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The finished folder and its audit."""
    folder = tmp_path_factory.mktemp("both")
    done = run(
        *("--backend", "tflite,executorch", "--defense", "wemem", "--out", "out"),
        *("--formats", "float32,float16,int8,ptl-float32"),
        *SMALL,
        folder=folder,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "out", json.loads(done.stdout)


def test_every_file_of_both_stands_in_one_report(both: tuple[Path, dict[str, Any]]) -> None:
    out, audit = both
    files = {artifact["name"]: artifact["file"] for artifact in audit["artifacts"]}
    assert list(files.values()) == [
        f"artifacts/{name}"
        for name in (
            "tflite-original-float32.tflite",
            "tflite-prune60-float32.wemem.tflite",
            "tflite-prune60-float16.wemem.tflite",
            "tflite-prune60-int8.wemem.tflite",
            "executorch-original-float32.pte",
            "executorch-prune60-float32.wemem.pte",
            "executorch-prune60-int8.wemem.pte",
            "executorch-prune60-ptl-float32.wemem.ptl",
        )
    ]
    assert all((out / file).is_file() for file in files.values())
    assert {artifact["backend"] for artifact in audit["artifacts"]} == {"tflite", "executorch"}
    assert [artifact["role"] for artifact in audit["artifacts"]].count("original") == 2
    report = (out / "report.html").read_text()
    assert all(name in report for name in files)


def test_both_answer_the_same_rows_of_the_same_split(both: tuple[Path, dict[str, Any]]) -> None:
    from edgeprivacy.confidences import Confidences

    out, audit = both
    found = [Confidences.load(path) for path in sorted((out / "confidences").glob("*.npz"))]
    assert len(found) == len(audit["artifacts"])
    for confidences in found[1:]:
        assert np.array_equal(confidences.row_ids, found[0].row_ids)
        assert np.array_equal(confidences.labels, found[0].labels)
    members = {
        tuple(a["attacks"][0][key] for key in ("n_members", "n_nonmembers")) for a in audit["artifacts"]
    }
    assert len(members) == 1
    assert {test["name"]: test["passed"] for test in audit["null_tests"]}["queried-twice"] is True


def test_the_pruned_files_hold_their_zeros(both: tuple[Path, dict[str, Any]]) -> None:
    out, _ = both
    for path in sorted((out / "artifacts").glob("*prune60*.json")):
        weights = json.loads(path.read_text())["facts"]["weights"]
        assert [weight["sparsity"] >= 0.6 - 1e-3 for weight in weights[:-1]] == [True, True], path.name


def test_the_second_backend_alone_is_the_same_release(
    both: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """One word changed: nothing is trained anew, and the files are those of the common report."""
    out, audit = both
    done = run(
        *("--backend", "executorch", "--defense", "wemem", "--out", tmp_path / "alone"),
        *("--formats", "float32,int8"),
        *SMALL,
        folder=out.parent,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    alone = json.loads(done.stdout)
    assert alone["environment"]["releases"]["trained"] == 0
    shipped = {artifact["sha256"] for artifact in audit["artifacts"]}
    assert {artifact["sha256"] for artifact in alone["artifacts"]} <= shipped


BRANCHING = """
from torch import nn

class Net(nn.Module):
    def __init__(self, features, classes):
        super().__init__()
        self.layer = nn.Linear(features, classes)

    def forward(self, x):
        return self.layer(x) if x.sum() > 0 else -self.layer(x)

def build(input_shape, classes):
    return Net(input_shape[0], classes)
"""


def test_a_model_that_does_not_export_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(BRANCHING)
    done = run("--backend", "executorch", "--model", "net.py:build", *SMALL, folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    (line,) = done.stderr.splitlines()
    assert "control flow depends on the data" in line and "net.py:10" in line and "torch.where" in line
    assert not (tmp_path / "edgeprivacy-out").exists()
    assert not list(tmp_path.glob("cache/edgeprivacy/original/*/[!.]*"))
