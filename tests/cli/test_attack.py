"""`edgeprivacy attack` on tables that another tool wrote."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

ROWS = 300


@pytest.fixture
def table(tmp_path: Path) -> dict[str, Any]:
    rng = np.random.default_rng(6)
    labels, members = rng.integers(0, 3, ROWS), rng.random(ROWS) < 0.5
    logits = rng.normal(size=(ROWS, 3))
    logits[np.arange(ROWS), labels] += 1 + 2 * members
    p = softmax(logits, axis=1)
    for name, values in (("p", p), ("logits", logits)):
        with (tmp_path / f"{name}.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["member", "p0", "p1", "p2", "label"])
            writer.writerows(zip(members.astype(int), *values.T, labels, strict=True))
    auc = roc_auc_score(members, p[np.arange(ROWS), labels])
    return {"p": tmp_path / "p.csv", "logits": tmp_path / "logits.csv", "auc": auc}


def test_one_table_with_a_member_column(
    edgeprivacy: Callable[..., Any],
    in_process: Callable[..., Any],
    table: dict[str, Any],
    tmp_path: Path,
) -> None:
    for call, name, more in ((in_process, "p", ()), (edgeprivacy, "logits", ("--logits",))):
        done = call("attack", "--table", table[name], "--json", *more, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        (artifact,) = json.loads(done.stdout)["artifacts"]
        assert artifact["name"] == name
        found = {attack["name"]: attack for attack in artifact["attacks"]}
        assert found["confidence.global"]["metrics"]["auc"]["value"] == pytest.approx(table["auc"], abs=1e-4)
        assert "population" in found["attack-p"]["skipped"]


def test_what_a_table_cannot_show_is_said(
    in_process: Callable[..., Any], table: dict[str, Any], tmp_path: Path
) -> None:
    done = in_process(
        "attack", "--table", table["p"], "--attacks", "loss", "--fail-if", "auc>0.95", cwd=tmp_path
    )
    assert done.returncode == 0 and "PASS" in done.stdout
    assert done.stdout.count("Null test not run") == 3
    assert "the model file was not seen" in " ".join(done.stdout.split())


def test_mistakes_end_in_one_line_and_exit_2(
    in_process: Callable[..., Any], table: dict[str, Any], tmp_path: Path
) -> None:
    cases = [
        (("--table", table["logits"]), "pass --logits"),
        (("--table", table["p"], "--member-column", "membre"), "did you mean 'member'?"),
        (("--table", table["p"], "--label", "lable"), "did you mean 'label'?"),
        (("--table", table["p"], "--members", table["p"]), "--table stands instead"),
        (("--table", tmp_path / "nope.csv"), "does not exist"),
        ((), "nothing to attack"),
    ]
    for arguments, words in cases:
        done = in_process("attack", *arguments, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert words in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "edgeprivacy-out").exists()
