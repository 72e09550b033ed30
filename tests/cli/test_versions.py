"""Several versions of one model in one run, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.tflite


@pytest.fixture(scope="module")
def audit(edgeprivacy: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out: Path = tmp_path_factory.mktemp("versions") / "out"
    done = edgeprivacy(
        *("compress", "--shadows", "4", "--epochs", "4", "--finetune-epochs", "2", "--prune-iterations", "2"),
        *("--formats", "int8", "--also", "prune.sparsity=0.9; formats=['float32']", "--ablation"),
        *("--attacks", "loss,lira.online,compleak.sr.lr,joint.lira,compleak.mr", "--out", str(out), "--json"),
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_version_is_made_and_attacked(audit: dict[str, Any]) -> None:
    assert {a["name"]: a["role"] for a in audit["artifacts"]} == {
        "original-float32": "original",
        "prune60-int8.none": "candidate",
        "prune90-float32.none": "control",
        "finetuned-int8.none": "control",
        "prune60-untrained-int8.none": "control",
    }
    for artifact in audit["artifacts"]:
        assert [attack["name"] for attack in artifact["attacks"]] == ["loss", "lira.online"]
        assert all(attack["skipped"] is None for attack in artifact["attacks"])


def test_versions_are_attacked_together_and_compared_with_one(audit: dict[str, Any]) -> None:
    sets = {entry["name"]: entry for entry in audit["version_sets"]}
    together = sets["none: 2 files"]
    assert together["versions"] == ["prune90-float32.none", "prune60-int8.none"]  # by size; no ablation
    assert together["role"] == "candidate" and not together["with_original"]
    assert sets["none: 2 files and the original"]["versions"][0] == "original-float32"
    pair = sets["prune60-int8.none and the original"]
    assert [attack["name"] for attack in pair["attacks"]] == ["compleak.sr.lr", "joint.lira", "compleak.mr"]
    assert "needs 2 compressed versions" in pair["attacks"][2]["skipped"]
    for entry in sets.values():
        ran = [attack for attack in entry["attacks"] if attack["skipped"] is None]
        assert [gain["attack"] for gain in entry["gains"]] == [attack["name"] for attack in ran]
        assert entry["best_artifact"] in entry["versions"] and entry["best_attack"] in ("loss", "lira.online")
        best = next(a for a in audit["artifacts"] if a["name"] == entry["best_artifact"])
        alone = next(a for a in best["attacks"] if a["name"] == entry["best_attack"])["metrics"]["auc"][
            "value"
        ]
        for attack, gain in zip(ran, entry["gains"], strict=True):
            low, high = gain["auc"]["ci"]
            assert low <= gain["auc"]["value"] <= high
            difference = attack["metrics"]["auc"]["value"] - alone
            assert gain["auc"]["value"] == pytest.approx(difference, abs=3e-6)


def test_the_ablation_is_told(audit: dict[str, Any]) -> None:
    (note,) = [note for note in audit["notes"] if note.startswith("Ablation")]
    for words in (
        "prune60-int8.none",
        "fine-tuned and not compressed 0.",
        "compressed and not fine-tuned 0.",
    ):
        assert words in note


def test_a_version_that_is_none_is_one_clear_line(edgeprivacy: Any) -> None:
    done = edgeprivacy("compress", "--also", "seed=3")
    assert done.returncode == 2 and "a version cannot differ in" in done.stderr and "prune" in done.stderr
    assert "Traceback" not in done.stderr


def test_attacks_on_several_versions_alone(edgeprivacy: Any, tmp_path: Path) -> None:
    done = edgeprivacy(
        *("compress", "--shadows", "4", "--epochs", "4", "--finetune-epochs", "2", "--prune-iterations", "2"),
        *("--formats", "int8", "--attacks", "joint.lira", "--out", str(tmp_path / "out"), "--json"),
    )
    assert done.returncode == 0, done.stderr
    audit = json.loads(done.stdout)
    assert [artifact["attacks"] for artifact in audit["artifacts"]] == [[], []]
    (pair,) = audit["version_sets"]
    assert pair["attacks"][0]["skipped"] is None and pair["gains"] == [] and pair["best_attack"] is None
