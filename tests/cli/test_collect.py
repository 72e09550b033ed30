"""`edgeprivacy collect` and `edgeprivacy attack`: the two halves of an audit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprivacy.confidences import Confidences


@pytest.fixture(scope="module")
def collected(
    edgeprivacy: Callable[..., Any],
    leaky: Any,
    no_frameworks: tuple[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """Outputs on both sides, collected where no framework can be imported."""
    folder, attempts = no_frameworks
    out = tmp_path_factory.mktemp("collected")
    found: dict[str, Any] = {"folder": out}
    for side in ("members", "nonmembers"):
        path = out / f"{side}.npz"
        done = edgeprivacy(
            "collect",
            leaky.files["int8"],
            "--data",
            getattr(leaky, side),
            "--out",
            path,
            "--json",
            PYTHONPATH=folder,
        )
        assert done.returncode == 0, done.stderr
        found[side], found[f"{side} facts"] = path, json.loads(done.stdout)
    assert not attempts.exists()
    return found


def test_confidences_and_facts_are_saved(collected: dict[str, Any], leaky: Any) -> None:
    saved = Confidences.load(collected["members"])
    with np.load(leaky.members) as data:
        np.testing.assert_array_equal(saved.labels, data["y"])
    assert saved.raw is not None and saved.raw.dtype == np.int8 and saved.grid is not None
    expected = (saved.raw.astype(np.float64) - saved.grid.zero_point) * saved.grid.scale
    np.testing.assert_allclose(saved.probabilities, expected, atol=1e-7)
    facts = collected["members facts"]
    assert facts["rows"] == 300 and facts["artifact"]["format"] == "int8"
    assert facts["artifact"]["size_bytes"] == leaky.files["int8"].stat().st_size
    both = set(saved.row_ids) & set(Confidences.load(collected["nonmembers"]).row_ids)
    assert not both


def test_attack_finds_what_the_audit_finds(
    collected: dict[str, Any], leaky: Any, in_process: Callable[..., Any], tmp_path: Path
) -> None:
    done = in_process(
        "attack",
        "--members",
        collected["members"],
        "--nonmembers",
        collected["nonmembers"],
        "--fail-if",
        "auc>0.6",
        "--json",
        cwd=tmp_path,
    )
    assert done.returncode == 1, done.stderr
    content = json.loads(done.stdout)
    (artifact,) = content["artifacts"]
    assert artifact["name"] == "int8" and artifact["format"] == "int8"
    assert artifact["sha256"] == collected["members facts"]["artifact"]["sha256"]
    assert artifact["run"]["log_floor"] == 1 / 512
    states = {test["name"]: test["passed"] for test in content["null_tests"]}
    assert states == {
        "held-out-as-members": None,
        "permuted-labels": True,
        "blind-classifier": None,
        "queried-twice": None,
    }
    (out,) = (tmp_path / "edgeprivacy-out").iterdir()
    assert out.name.startswith("attack-int8-")
    assert {path.name for path in out.iterdir()} >= {"audit.json", "report.html"}


def test_mistakes_end_in_one_line_and_exit_2(
    collected: dict[str, Any], leaky: Any, in_process: Callable[..., Any], tmp_path: Path
) -> None:
    other = tmp_path / "other.npz"
    assert (
        in_process(
            "collect", leaky.files["float32"], "--data", leaky.nonmembers, "--out", other, "--quiet"
        ).stdout
        == ""
    )
    members = ("--members", collected["members"])
    cases = [
        (("attack", *members, "--nonmembers", collected["members"]), "stand among the members too"),
        (("attack", *members, "--nonmembers", other), "different model files"),
        (("attack", *members), "--nonmembers, or --table"),
        (("attack", *members, "--nonmembers", leaky.nonmembers), "has no array 'probabilities'"),
        (
            ("collect", leaky.files["logits"], "--data", leaky.members, "--out", tmp_path / "x.npz"),
            "pass --logits",
        ),
        (("collect", leaky.members, "--data", leaky.members, "--out", tmp_path / "x.npz"), "members.npz"),
        (("collect", leaky.files["int8"], "--data", leaky.members), "--out"),
    ]
    for arguments, words in cases:
        done = in_process(*arguments, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert words in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "x.npz").exists()
