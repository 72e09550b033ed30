"""A canary audit of the embedded digits, from the recipe to the verdict: the whole road, made small."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprivacy.compressing import compress
from edgeprivacy.data.split import Split
from edgeprivacy.recipe import Recipe, Run
from edgeprivacy.recipe_toml import merge
from edgeprivacy.results import Audit

pytestmark = [pytest.mark.slow, pytest.mark.tflite, pytest.mark.litert]

SMALL: dict[str, Any] = {
    "defense": "none",
    "formats": ["float32"],
    "prune.sparsity": 0,
    "training.epochs": 60,
    "training.patience": 60,
    "training.batch_size": 32,
    "audit.shadows": 4,
    "audit.bootstrap": 100,
    "audit.attacks": ["gap", "loss", "lira.online"],
    "audit.canaries": "120",
}
GATES = ("auc[canaries]>0.75 for attack=loss", "auc>0.75", "tpr@5%fpr[canaries]>0.99 at ci")


@pytest.fixture(scope="module")
def made(keras: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Audit]:
    folder = tmp_path_factory.mktemp("canaries")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        run = Run(out=str(folder / "out"), jobs=2, fail_if=GATES)
        return folder, compress(Recipe.build(merge({}, SMALL)), run)


def test_canaries_leak_more_than_the_rows_of_the_data(made: tuple[Path, Audit]) -> None:
    for artifact in made[1].artifacts:
        everybody = artifact.attack("loss")
        canaries = next(attack for attack in artifact.canary_attacks if attack.name == "loss")
        assert canaries.auc.ci[0] > everybody.auc.ci[1]
        assert (canaries.targets, everybody.targets) == (5, 1)
        assert canaries.n_members + canaries.n_nonmembers == 5 * 120
        assert len(artifact.canary_attacks) == len(artifact.attacks) == 3
        assert artifact.utility.train_accuracy.value > 0.99  # canaries are not counted


def test_the_gates_tell_them_apart(made: tuple[Path, Audit]) -> None:
    audit = made[1]
    assert [gate.verdict for gate in audit.gates] == ["fail", "pass", "pass"]
    assert audit.verdict == "fail" and "(canaries)" in audit.gates[0].detail
    assert all(test.passed is not False for test in audit.null_tests)


def test_what_is_written_says_that_it_is_not_to_ship(made: tuple[Path, Audit]) -> None:
    out, audit = made[0] / "out", made[1]
    names = sorted(path.name for path in (out / "artifacts").glob("*.tflite"))
    assert names == ["dense-float32.none.audit-only.tflite", "original-float32.audit-only.tflite"]
    for artifact in audit.artifacts:
        assert (out / artifact.file).is_file() and artifact.facts["ship"] is False
        manifest = json.loads((out / "artifacts" / f"{artifact.name}.json").read_text())
        assert (manifest["canaries"], manifest["ship"]) == ("120:mislabelled", False)
    assert any("not to ship" in note for note in audit.notes)
    assert "not the ones to ship" in (out / "report.html").read_text()
    assert Audit.load(out / "audit.json") == audit


def test_the_answers_are_those_of_the_split_that_was_written(made: tuple[Path, Audit]) -> None:
    """By hand: the target's answers, told apart by the coins, and the gap attack on all other rows."""
    out, audit = made[0] / "out", made[1]
    split = Split.load(out / "split.json")
    with np.load(out / "confidences" / "dense-float32.none.npz") as saved:
        ids, labels, answers = saved["row_ids"].astype(str), saved["labels"], saved["probabilities"]
    canary = np.isin(ids, split.canary_ids)
    inside = np.isin(ids, split.train_ids(0))
    assert canary.sum() == 120 and np.char.startswith(ids[canary], "canary:mislabelled:").all()
    own = answers[np.arange(len(labels)), labels]
    assert own[canary & inside].mean() > 2 * own[canary & ~inside].mean()
    right = answers.argmax(axis=1) == labels
    everybody = next(a for a in audit.artifacts if a.name == "dense-float32.none").attack("gap")
    ours = 0.5 * (
        1
        + right[~canary & inside].mean()
        - right[~canary & ~inside & np.isin(ids, split.roles["pool"])].mean()
    )
    assert everybody.auc.value == pytest.approx(ours, abs=1e-6)


def test_only_the_same_canaries_are_found_in_the_cache(
    made: tuple[Path, Audit], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(made[0] / "cache"))
    few = {**SMALL, "audit.shadows": 0}
    for number, canaries in enumerate(("120", None)):
        run = Run(out=str(made[0] / f"other{number}"), jobs=1)
        audit = compress(Recipe.build(merge({}, {**few, "audit.canaries": canaries})), run)
        results = audit.artifacts
        assert (audit.environment["releases"]["trained"] == 0) == (canaries is not None)
        assert [bool(result.canary_attacks) for result in results] == [canaries is not None] * 2
        assert ["audit-only" in result.file for result in results] == [canaries is not None] * 2
        assert any("too few models" in note for note in audit.notes) == (canaries is not None)
        assert {attack.targets for result in results for attack in result.canary_attacks} <= {1}
