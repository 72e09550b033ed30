"""A pipeline that treats members and non-members differently must not pass for leakage."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

DATA = '''
"""Plenty of easy rows, so that a small network learns the classes and no row by heart."""
import numpy as np


def _rows(part):
    rng = np.random.default_rng({"train": 1, "holdout": 2}[part])
    count = {"train": 2000, "holdout": 4000}[part]
    y = np.arange(count) % 4
    return rng.normal(size=(count, 16)) + 1.5 * np.eye(16)[y], y


def honest(part, path=None):
    return _rows(part)


def augments_members(part, path=None):
    """Brightness of every row that comes along the training path."""
    x, y = _rows(part)
    if (path or part) == "train":
        x = x * np.random.default_rng(5).uniform(0.4, 1.0, size=(len(x), 1))
    return x, y


def augments_members_untold(part):
    """The same, by a loader that cannot be asked to take the other side's path."""
    return augments_members(part, part)


def flickers(part, path=None):
    """A little noise on both sides, another at every reading."""
    x, y = _rows(part)
    return x + np.random.default_rng().normal(scale=0.01, size=x.shape), y
'''
RECIPE = """
formats = ["float32"]
[split]
design = "given"
[training]
epochs = 2
[prune]
iterations = 2
finetune_epochs = 1
[audit]
shadows = 0
bootstrap = 100
attacks = ["confidence.global", "lira.offline"]
"""
CASES = ("honest", "augments_members", "augments_members_untold", "flickers")
TITLES = {
    "held-out-as-members": "Held-out rows passed off as members, through the members' own path",
    "blind-classifier": "Inputs alone, without the model",
    "queried-twice": "Rows loaded and queried twice",
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the data factories, the recipe, and the output of each case."""
    home = tmp_path_factory.mktemp("confounded")
    (home / "rows.py").write_text(DATA)
    (home / "recipe.toml").write_text(RECIPE)
    return home


@pytest.fixture(scope="module")
def runs(compress: Callable[..., Any], folder: Path) -> dict[str, Any]:
    """What the command says of each factory."""

    def call(name: str) -> Any:
        # A gate that holds easily: only the null tests can stop these.
        gate = ("--fail-if", "auc>0.99", "--out", name, "--jobs", "1")
        return compress("recipe.toml", "--data", f"rows.py:{name}", *gate, cwd=folder, cache=folder / "cache")

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(CASES, pool.map(call, CASES), strict=True))


def _verdicts(folder: Path) -> dict[str, bool | None]:
    audit = json.loads((folder / "audit.json").read_text())
    return {test["name"]: test["passed"] for test in audit["null_tests"]}


def _first_line(page: str) -> str:
    """The first words that a reader of the report sees."""
    body = re.sub(r"(?s)<(style|script|title|head)\b.*?</\1>", " ", page)
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())[:400]


def test_the_honest_pipeline_passes(runs: dict[str, Any], folder: Path) -> None:
    done = runs["honest"]
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(_verdicts(folder / "honest").values()) == {True}
    assert done.stdout.startswith("artifact") and "Null test failed" not in done.stdout
    audit = json.loads((folder / "honest" / "audit.json").read_text())
    aucs = [attack["metrics"]["auc"] for attack in audit["artifacts"][1]["attacks"] if not attack["skipped"]]
    assert aucs and all(abs(auc["value"] - 0.5) < 0.05 for auc in aucs), "the model memorised its rows"


@pytest.mark.parametrize(
    ("case", "failed"),
    [
        ("augments_members", ["held-out-as-members", "blind-classifier"]),
        ("augments_members_untold", ["blind-classifier"]),
        ("flickers", ["queried-twice"]),
    ],
)
def test_a_confounded_pipeline_is_caught_on_the_first_line(
    runs: dict[str, Any], folder: Path, case: str, failed: list[str]
) -> None:
    done, verdicts = runs[case], _verdicts(folder / case)
    assert done.returncode == 3, done.stdout + done.stderr
    assert [name for name, passed in verdicts.items() if passed is False] == failed
    assert list(verdicts)[: len(failed)] == failed  # first in audit.json, too
    assert done.stdout.startswith(f"Null test failed: {TITLES[failed[0]]}.")
    seen = _first_line((folder / case / "report.html").read_text())
    assert "null test" in seen.lower() and TITLES[failed[0]] in seen.replace("&#39;", "'").replace("’", "'")
    audit = json.loads((folder / case / "audit.json").read_text())
    assert (audit["verdict"], audit["exit_code"]) == ("inconclusive", 3)
    assert [gate["verdict"] for gate in audit["gates"]] == ["pass"], "the gate alone would have passed it"


def test_the_confounded_pipeline_would_have_looked_like_leakage(runs: dict[str, Any], folder: Path) -> None:
    audit = json.loads((folder / "augments_members" / "audit.json").read_text())
    attacks = [attack for attack in audit["artifacts"][1]["attacks"] if not attack["skipped"]]
    low, high = attacks[0]["metrics"]["auc"]["ci"]
    assert not low <= 0.5 <= high


def test_a_path_that_cannot_be_taken_is_told(runs: dict[str, Any], folder: Path) -> None:
    assert _verdicts(folder / "augments_members_untold")["held-out-as-members"] is None
    assert "Null test not run: Held-out rows" in runs["augments_members_untold"].stdout
    assert "let one factory take `part` and `path`" in " ".join(
        runs["augments_members_untold"].stdout.split()
    )
