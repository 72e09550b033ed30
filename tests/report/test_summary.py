"""The job summary: appended once and whole, or not at all, and never in the way of the verdict."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from edgeprivacy.report import render
from edgeprivacy.report.summary import LIMIT_BYTES, VARIABLE, append_summary
from edgeprivacy.results import Audit


def append(audit: Audit, path: Path) -> str | None:
    return append_summary(audit, {VARIABLE: str(path)})


def test_appended_behind_what_stands_there(audit: Audit, tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    path.write_text("Another step, without a newline at its end")
    assert append(audit, path) is None
    markdown = render(audit, "markdown")
    assert path.read_text() == f"Another step, without a newline at its end\n\n{markdown}"
    assert append(audit, path) is None
    assert path.read_text().count(markdown) == 2


def test_a_new_file_is_made(audit: Audit, tmp_path: Path) -> None:
    assert append(audit, tmp_path / "new.md") is None
    assert (tmp_path / "new.md").read_text().strip().startswith("## Fail.")


@pytest.mark.parametrize("environment", [{}, {VARIABLE: ""}])
def test_nothing_is_done_where_no_summary_is_offered(
    audit: Audit, environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert append_summary(audit, environment) is None
    assert list(tmp_path.iterdir()) == []


def test_the_environment_of_the_process_counts(
    audit: Audit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "summary.md"))
    assert append_summary(audit) is None
    assert (tmp_path / "summary.md").exists()


def test_what_cannot_be_written_is_told(audit: Audit, tmp_path: Path) -> None:
    for path, reason in (
        (tmp_path, "Is a directory"),
        (tmp_path / "no" / "such" / "folder.md", "No such file or directory"),
        (Path("/dev/null"), "no regular file"),
    ):
        problem = append(audit, path)
        assert problem is not None and reason in problem and str(path) in problem


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_that_nobody_reads_does_not_hang(audit: Audit, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert append(audit, tmp_path / "pipe") is not None


def test_a_summary_that_would_be_dropped_for_its_size_is_not_begun(audit: Audit, tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    path.write_bytes(b"x" * (LIMIT_BYTES - 100))
    problem = append(audit, path)
    assert problem is not None and "larger than 1024 KiB" in problem
    assert path.stat().st_size == LIMIT_BYTES - 100


def test_a_full_disk_leaves_no_half(audit: Audit, full_disk: Path) -> None:
    path = full_disk / "summary.md"
    path.write_text("before")
    (full_disk / "filler").write_bytes(b"x" * (60 * 1024 - 4096))
    long = replace(audit, notes=tuple(f"note {number} " * 20 for number in range(200)))
    assert len(render(long, "markdown")) > 16 * 1024
    problem = append(long, path)
    assert problem is not None and path.read_text() == "before"


def test_hostile_text_stays_text(hostile: Audit, tmp_path: Path) -> None:
    assert append(hostile, tmp_path / "summary.md") is None
    text = (tmp_path / "summary.md").read_text()
    assert "<script" not in text and "\x1b" not in text and "\u202e" not in text
