"""Files of one model audited together, and beside their original, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.tflite
ATTACKS = "loss,compleak.nr.lr,compleak.sr.lr,compleak.mr.nr,joint.rmia,trajectory"


def audit(edgeprivacy: Any, leaky: Any, out: Path, *arguments: object) -> dict[str, Any]:
    done = edgeprivacy(
        *("audit", *arguments, "--members", leaky.members, "--nonmembers", leaky.nonmembers),
        *("--attacks", ATTACKS, "--out", out, "--json"),
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def both(edgeprivacy: Any, leaky: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("both") / "out"
    return audit(edgeprivacy, leaky, out, leaky.files["int8"], "--original", leaky.files["float32"])


def test_the_original_stands_beside_the_file(both: dict[str, Any]) -> None:
    assert [(a["name"], a["role"]) for a in both["artifacts"]] == [
        ("int8", "candidate"),
        ("float32", "original"),
    ]
    for artifact in both["artifacts"]:
        assert [attack["name"] for attack in artifact["attacks"]] == ["loss", "compleak.nr.lr"]
    (pair,) = both["version_sets"]
    assert pair["versions"] == ["float32", "int8"] and pair["with_original"] and pair["role"] == "control"
    ran = {attack["name"]: attack["skipped"] for attack in pair["attacks"]}
    assert ran["compleak.sr.lr"] is None and ran["trajectory"] is None  # cross-fitted
    assert "2 compressed versions" in ran["compleak.mr.nr"]
    assert "shadow" in ran["joint.rmia"]
    assert both["recipe"]["original"] == "float32.tflite"
    assert all(test["passed"] is not False for test in both["null_tests"])


def test_two_files_are_a_set_that_ships(edgeprivacy: Any, leaky: Any, tmp_path: Path) -> None:
    found = audit(edgeprivacy, leaky, tmp_path / "out", leaky.files["int8"], leaky.files["float32"])
    (together,) = found["version_sets"]
    assert together["role"] == "candidate" and not together["with_original"]
    assert together["versions"] == ["float32", "int8"]  # the larger first
    ran = {attack["name"]: attack["skipped"] for attack in together["attacks"]}
    assert "compleak.sr.lr" not in ran and ran["compleak.mr.nr"] is None
    assert {gain["attack"] for gain in together["gains"]} == {"compleak.mr.nr", "trajectory"}


def test_one_file_lists_what_needs_more_as_skipped(edgeprivacy: Any, leaky: Any, tmp_path: Path) -> None:
    found = audit(edgeprivacy, leaky, tmp_path / "out", leaky.files["int8"])
    skipped = {a["name"]: a["skipped"] for a in found["artifacts"][0]["attacks"]}
    assert found["version_sets"] == [] and skipped["loss"] is None
    assert "needs the original" in skipped["compleak.sr.lr"]
    assert "versions" in skipped["trajectory"] and "compressed versions" in skipped["compleak.mr.nr"]


def test_a_keras_file_is_an_original(edgeprivacy: Any, leaky: Any, tmp_path: Path) -> None:
    import tf_keras

    inputs = tf_keras.Input((20,))
    model = tf_keras.Model(inputs, tf_keras.layers.Dense(4, activation="softmax")(inputs))
    model.save(tmp_path / "net.keras")
    found = audit(
        edgeprivacy, leaky, tmp_path / "out", leaky.files["int8"], "--original", tmp_path / "net.keras"
    )
    assert [(a["name"], a["role"]) for a in found["artifacts"]] == [
        ("int8", "candidate"),
        ("net", "original"),
    ]


def test_an_original_that_is_none_is_one_line(edgeprivacy: Any, leaky: Any, tmp_path: Path) -> None:
    for name, content in (("gone.keras", None), ("bad.keras", b"no model"), ("bad.tflite", b"no model")):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        done = edgeprivacy(
            *("audit", leaky.files["int8"], "--original", path),
            *("--members", leaky.members, "--nonmembers", leaky.nonmembers),
        )
        assert done.returncode == 2 and name in done.stderr and "Traceback" not in done.stderr
