"""`edgeprivacy audit` as its user meets it: the installed command on files made by plain TensorFlow."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

QUICK = ("--attacks", "confidence.global")


def test_a_gate_decides_the_exit_code(
    edgeprivacy: Callable[..., Any], in_process: Callable[..., Any], leaky: Any, tmp_path: Path
) -> None:
    base = ("audit", leaky.files["float32"], "--members", leaky.members, "--nonmembers", leaky.nonmembers)

    def run(call: Callable[..., Any], folder: str, *more: str) -> Any:
        return call(*base, *QUICK, "--out", tmp_path / folder, *more)

    with ThreadPoolExecutor(2) as pool:
        failing = pool.submit(run, edgeprivacy, "out", "--fail-if", "auc>0.6")
        gates = ("--fail-if", "auc>0.99", "--fail-if", "tpr@1%fpr>0.9")
        passing = pool.submit(run, edgeprivacy, "passed", *gates, "--json", "--quiet")
    failed, passed = failing.result(), passing.result()
    assert failed.returncode == 1
    assert "FAIL" in failed.stdout and "confidence.global" in failed.stdout
    assert str(tmp_path / "out" / "report.html") in failed.stdout
    assert "never scored" in failed.stderr and "Traceback" not in failed.stderr
    assert (passed.returncode, passed.stderr) == (0, "")
    content = json.loads(passed.stdout)
    assert content == json.loads((tmp_path / "passed" / "audit.json").read_text())
    assert content["schema"] == "edgeprivacy.audit/1" and content["verdict"] == "pass"
    assert [gate["verdict"] for gate in content["gates"]] == ["pass", "pass"]
    too_few = run(in_process, "few", "--fail-if", "tpr@0.1%fpr>0.02", "--quiet")
    assert (too_few.returncode, too_few.stdout, too_few.stderr) == (3, "", "")
    undecided = json.loads((tmp_path / "few" / "audit.json").read_text())
    assert undecided["verdict"] == "inconclusive"
    assert "375 non-members are too few" in undecided["gates"][0]["detail"]


def test_no_framework_is_imported_by_any_process(
    edgeprivacy: Callable[..., Any], leaky: Any, no_frameworks: tuple[str, Path], tmp_path: Path
) -> None:
    folder, attempts = no_frameworks
    done = edgeprivacy(
        "audit",
        leaky.files["int8"],
        "--members",
        leaky.members,
        "--nonmembers",
        leaky.nonmembers,
        "--null-members",
        leaky.held_out,
        cwd=tmp_path,
        PYTHONPATH=folder,
    )
    assert done.returncode == 0, done.stderr
    assert not attempts.exists()
    (out,) = (tmp_path / "edgeprivacy-out").iterdir()
    assert out.name.startswith("audit-int8-")
    content = json.loads((out / "audit.json").read_text())
    assert [test["passed"] for test in content["null_tests"]] == [True] * 4
    assert {path.name for path in (out / "confidences").iterdir()} == {
        f"int8.{side}.npz" for side in ("members", "nonmembers", "population", "null_members")
    }


def test_logits_stand_beside_answers_that_are_rounded(
    in_process: Callable[..., Any], leaky: Any, tmp_path: Path
) -> None:
    base = (
        "audit",
        leaky.files["int8"],
        "--members",
        leaky.members,
        "--nonmembers",
        leaky.nonmembers,
        *QUICK,
    )
    alone = in_process(*base, "--out", tmp_path / "alone", "--json", "--quiet")
    assert alone.returncode == 0, alone.stderr
    (note,) = [note for note in json.loads(alone.stdout)["notes"] if "--device host:logits" in note]
    assert note.startswith("int8: answers probabilities in steps of 1/256")
    both = ("--device", "host", "--device", "host:logits")
    done = in_process(*base, *both, "--out", tmp_path / "both", "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert not any("--device host:logits" in note for note in content["notes"])
    answered, read = content["artifacts"]
    assert (answered["device"], read["device"]) == ("host", "host:logits")
    assert answered["sha256"] == read["sha256"] == read["run"]["model_sha256"]
    assert read["run"]["read_before"] == "SOFTMAX"
    (drift,) = read["drift"]
    assert 0 < drift["max_abs"] < 0.01 and drift["top1_flips"] < drift["rows"] / 10
    assert drift["max_lsb"] is None


AS_PROCESS = ("missing model", "truncated", "wide", "nan", "label", "same rows", "logits", "option")
"""Mistakes that are made through the installed command; the others differ in their words only."""


@pytest.fixture(scope="module")
def mistakes(leaky: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[object, ...]]:
    """Arguments with one mistake each."""
    folder = tmp_path_factory.mktemp("mistakes")
    with np.load(leaky.members) as data:
        x, y = data["x"], data["y"]
    bad = x.copy()
    bad[17, 3] = np.nan
    np.savez(folder / "wide.npz", x=np.hstack([x, x]), y=y)
    np.savez(folder / "wider.npz", x=np.hstack([x, x]) + 1, y=y)
    np.savez(folder / "nan.npz", x=bad, y=y)
    np.savez(folder / "labels.npz", x=x, y=np.where(np.arange(len(y)) == 41, 4, y))
    np.savez(folder / "nameless.npz", features=x, y=y)
    (folder / "text.npz").write_text("not an archive")
    whole = leaky.files["float32"].read_bytes()
    (folder / "truncated.tflite").write_bytes(whole[: len(whole) // 2])
    (folder / "foreign.tflite").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(2000))
    (folder / "table.csv").write_text("a,b,label\n1,2,0\n")
    file, members, nonmembers = leaky.files["float32"], leaky.members, leaky.nonmembers

    def line(model: Path = file, inside: Path = members, outside: Path = nonmembers, *more: str) -> Any:
        return ("audit", model, "--members", inside, "--nonmembers", outside, *more)

    return {
        "missing model": line(folder / "nope.tflite"),
        "missing rows": line(file, folder / "nope.npz"),
        "truncated": line(folder / "truncated.tflite"),
        "foreign": line(folder / "foreign.tflite"),
        "no model": line(folder / "table.csv"),
        "wide": line(file, folder / "wide.npz", folder / "wider.npz"),
        "sides differ": line(file, folder / "wide.npz"),
        "nan": line(file, folder / "nan.npz"),
        "label": line(file, folder / "labels.npz"),
        "nameless": line(file, folder / "nameless.npz"),
        "text": line(file, folder / "text.npz"),
        "same rows": line(file, members, members),
        "logits": line(leaky.files["logits"], members, nonmembers, *QUICK),
        "attack": line(file, members, nonmembers, "--attacks", "confidense"),
        "metric": line(file, members, nonmembers, "--fail-if", "acuracy<0.5"),
        "option": line(file, members, nonmembers, "--fail-iff", "auc>0.5"),
        "device": line(file, members, nonmembers, "--device", "adbb"),
    }


@pytest.fixture(scope="module")
def processes(
    mistakes: dict[str, tuple[object, ...]],
    edgeprivacy: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """What the installed command did, two at a time: starting a process is what takes long."""
    folder = tmp_path_factory.mktemp("mistaken")
    with ThreadPoolExecutor(2) as pool:
        done = pool.map(lambda case: edgeprivacy(*mistakes[case], cwd=folder), AS_PROCESS)
    return dict(zip(AS_PROCESS, done, strict=True))


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("missing model", "nope.tflite does not exist"),
        ("missing rows", "nope.npz does not exist"),
        ("truncated", "truncated"),
        ("foreign", "HDF5"),
        ("no model", "table.csv"),
        ("wide", "[20]"),
        ("sides differ", "differ in shape"),
        ("nan", "row 17, column 3"),
        ("label", "out of range"),
        ("nameless", "has no array 'x'"),
        ("text", "not a readable .npz"),
        ("same rows", "300 of 300 rows stand among both"),
        ("logits", "pass --logits"),
        ("attack", "did you mean 'confidence'?"),
        ("metric", "did you mean 'accuracy'?"),
        ("option", "--fail-if"),
        ("device", "unknown device 'adbb'"),
    ],
)
def test_mistakes_end_in_one_line_and_exit_2(
    mistakes: dict[str, tuple[object, ...]],
    processes: dict[str, Any],
    in_process: Callable[..., Any],
    tmp_path: Path,
    case: str,
    words: str,
) -> None:
    done = processes[case] if case in AS_PROCESS else in_process(*mistakes[case], cwd=tmp_path)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert (done.returncode, done.stdout, len(errors)) == (2, "", 1)
    assert words in errors[0] and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == errors[0]
    if case != "logits":  # the file must have been run to know
        assert len(done.stderr.splitlines()) == 1


def test_same_rows_can_be_dropped_and_logits_taken(
    in_process: Callable[..., Any], leaky: Any, tmp_path: Path
) -> None:
    with np.load(leaky.members) as inside, np.load(leaky.nonmembers) as outside:
        x = np.concatenate([outside["x"], inside["x"][:9]])
        np.savez(tmp_path / "n.npz", x=x, y=np.concatenate([outside["y"], inside["y"][:9]]))
    done = in_process(
        "audit",
        leaky.files["logits"],
        "--logits",
        "--members",
        leaky.members,
        "--nonmembers",
        tmp_path / "n.npz",
        "--drop-overlap",
        "--json",
        *QUICK,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert content["split"]["dropped"]["nonmembers"] == 9
    assert content["split"]["counts"]["nonmembers"] + content["split"]["counts"]["population"] == 500
