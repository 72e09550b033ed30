"""Attacks that ask the files again, in a release audit as a user types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.tflite


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("asking")


def run(edgeprivacy: Any, work: Path, *more: str) -> tuple[dict[str, Any], str]:
    done = edgeprivacy(
        *(
            "compress",
            "--shadows",
            "4",
            "--epochs",
            "30",
            "--finetune-epochs",
            "2",
            "--prune-iterations",
            "2",
        ),
        *("--formats", "float32,int8", "--out", str(work / "out"), "--json", *more),
        XDG_CACHE_HOME=str(work / "cache"),
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def test_samia_asks_every_file_and_its_answers_are_kept(edgeprivacy: Any, work: Path) -> None:
    audit, told = run(edgeprivacy, work, "--attacks", "samia,loss")
    assert [a["name"] for a in audit["artifacts"]] == [
        "original-float32",
        "prune60-float32.none",
        "prune60-int8.none",
    ]
    for artifact in audit["artifacts"]:
        (samia,) = [attack for attack in artifact["attacks"] if attack["name"] == "samia"]
        assert samia["skipped"] is None and 0 < samia["metrics"]["auc"]["value"] < 1
    assert "3/3 steps" in told  # one a file of the target, shadows within
    kept = list((work / "cache").rglob("answers.npz"))
    assert len(kept) == 3
    times = {path: path.stat().st_mtime_ns for path in kept}
    again, _ = run(edgeprivacy, work, "--attacks", "samia,loss")
    assert {path: path.stat().st_mtime_ns for path in (work / "cache").rglob("answers.npz")} == times
    assert again["artifacts"] == audit["artifacts"]
