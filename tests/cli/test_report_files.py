"""--report FORMAT=FILE and the job summary, as a pipeline meets them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

ROWS = 300
FAILS = ("--attacks", "loss", "--fail-if", "auc>0.6")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Answers of a model that knows its members."""
    rng = np.random.default_rng(6)
    member = rng.random(ROWS) < 0.5
    sure = np.clip(0.5 + 0.2 * member + 0.15 * rng.random(ROWS), 0, 1)
    path = tmp_path_factory.mktemp("table") / "p.npz"
    np.savez(
        path,
        probabilities=np.stack([sure, 1 - sure], axis=1),
        labels=np.zeros(ROWS, np.int64),
        member=member.astype(np.int64),
    )
    return path


def test_written_when_a_gate_fails(edgeprivacy: Callable[..., Any], table: Path, tmp_path: Path) -> None:
    wanted = ("--report", "sarif=ci/out.sarif", "--report", "junit=junit.xml", "--report", "markdown=x=1.md")
    summary = tmp_path / "summary.md"
    done = edgeprivacy(
        "attack", "--table", table, *FAILS, *wanted, cwd=tmp_path, GITHUB_STEP_SUMMARY=str(summary)
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert json.loads((tmp_path / "ci" / "out.sarif").read_text())["runs"][0]["results"]
    assert int(ElementTree.parse(tmp_path / "junit.xml").getroot().get("failures") or 0) == 1
    # A file name may hold an equals sign; the summary is the same text, once.
    markdown = (tmp_path / "x=1.md").read_text()
    assert markdown.startswith("## Fail.") and summary.read_text() == f"\n\n{markdown}"
    for name in ("ci/out.sarif", "junit.xml", "x=1.md"):
        assert f"\n{name}\n" in done.stdout


def test_standard_output_stays_json(in_process: Callable[..., Any], table: Path, tmp_path: Path) -> None:
    done = in_process(
        "attack", "--table", table, *FAILS, "--json", "--report", "sarif=out.sarif", cwd=tmp_path
    )
    assert done.returncode == 1 and json.loads(done.stdout)["verdict"] == "fail"
    assert (tmp_path / "out.sarif").exists()
    again = in_process("attack", "--table", table, *FAILS, "--quiet", "--report", "html=r.html", cwd=tmp_path)
    assert (again.returncode, again.stdout) == (1, "") and (tmp_path / "r.html").exists()


def test_a_summary_that_cannot_be_written_changes_nothing(
    in_process: Callable[..., Any], table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "no" / "summary.md"))
    done = in_process("attack", "--table", table, *FAILS, cwd=tmp_path)
    assert done.returncode == 1 and "FAIL" in done.stdout
    assert done.stderr.startswith("warning: the job summary") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("report", "told"),
    [
        ("sarif", "needs a format and a file"),
        ("sarif=", "needs a format and a file"),
        ("=out.sarif", "needs a format and a file"),
        ("sariff=out.sarif", "did you mean 'sarif'?"),
        ("sarif=folder", "which is a folder"),
        ("sarif=/dev/null", "which is no regular file"),
        ("sarif=file/out.sarif", "Not a directory"),
        ("sarif=/proc/out.sarif", "/proc: No such file"),
    ],
)
@pytest.mark.parametrize("command", ["audit", "attack", "compress"])
def test_refused_before_any_work(
    in_process: Callable[..., Any], tmp_path: Path, command: str, report: str, told: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    needed = {
        "audit": ("model.tflite", "--members", "m.npz", "--nonmembers", "n.npz"),
        "attack": ("--table", "table.csv"),
        "compress": (),
    }
    done = in_process(command, *needed[command], "--report", report, cwd=tmp_path)
    assert done.returncode == 2 and told in done.stderr and done.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_one_file_cannot_hold_two_reports(in_process: Callable[..., Any], tmp_path: Path) -> None:
    twice = ("--report", "sarif=out", "--report", "junit=./out")
    done = in_process("attack", "--table", "table.csv", *twice, cwd=tmp_path)
    assert done.returncode == 2 and "writes ./out twice; given: sarif and junit" in done.stderr


def test_a_report_that_fails_in_the_end_does_not_hide_the_others(
    edgeprivacy: Callable[..., Any], table: Path, tmp_path: Path, full_disk: Path
) -> None:
    wanted = ("--report", f"html={full_disk / 'report.html'}", "--report", "junit=junit.xml")
    (full_disk / "filler").write_bytes(b"x" * (60 * 1024))
    done = edgeprivacy("attack", "--table", table, *FAILS, *wanted, cwd=tmp_path)
    assert done.returncode == 4 and "cannot write" in done.stderr and "FAIL" in done.stdout
    assert (tmp_path / "junit.xml").exists() and not (full_disk / "report.html").exists()
