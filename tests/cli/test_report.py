"""`edgeprivacy report` as its user meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgeprivacy.cli import cli, main
from edgeprivacy.results import ArtifactResult, AttackResult, Audit, Metric, Utility


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    attack = AttackResult("confidence", "1", "paper", 100, 100, auc=Metric(0.6, (0.5, 0.7)))
    accuracy = Utility(Metric(0.8, (0.7, 0.9)))
    artifact = ArtifactResult(
        "m", "candidate", "tflite", "int8", "none", "m.tflite", "00", 2048, 1024, accuracy, None, (attack,)
    )
    Audit("none", 0, None, {}, (), (artifact,)).save(tmp_path / "audit.json")
    return tmp_path


def call(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["report", *map(str, arguments)], catch_exceptions=False)
    return result.exit_code, result.output


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"audit.json"}


def test_default_writes_html_beside_the_audit_and_prints_the_table(folder: Path) -> None:
    code, output = call(folder / "audit.json")
    assert code == 0 and files(folder) == {"report.html"}
    assert "confidence" in output and f"wrote {folder / 'report.html'}" in output
    assert call(folder)[0] == 0  # the folder will do
    assert call(folder, "--output", folder / "other.html")[0] == 0
    assert (folder / "other.html").read_text() == (folder / "report.html").read_text()


def test_formats_and_outputs(folder: Path) -> None:
    code, output = call(folder, "--format", "markdown", "--output", "-")
    assert code == 0 and output.startswith("## No gate.") and files(folder) == set()
    assert json.loads(call(folder, "--format", "json")[1])["verdict"] == "none"
    assert call(folder, "--format", "junit", "--output", folder / "x.xml")[0] == 0
    assert files(folder) == {"x.xml"}
    arguments = (
        "--format",
        "junit",
        "--format",
        "markdown",
        "--format",
        "terminal",
        "--output",
        folder / "ci",
    )
    assert call(folder, *arguments)[0] == 0
    assert {path.name for path in (folder / "ci").iterdir()} == {"junit.xml", "report.md", "report.terminal"}


@pytest.mark.parametrize(
    ("content", "arguments", "words"),
    [
        (None, (), "does not exist"),
        ("{", (), "not readable JSON"),
        ('{"schema": "other"}', (), "not an audit.json"),
        ('{"schema": "edgeprivacy.audit/1"}', (), "damaged"),
        ("{}", ("--format", "htlm"), "did you mean 'html'"),
        ("{}", ("--format", "html", "--format", "junit", "--output", "-"), "need a folder"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    content: str | None,
    arguments: tuple[str, ...],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "audit.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SystemExit) as stop:
        main(["report", str(path), *arguments])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and error.startswith("error: ")
    assert files(tmp_path) == set()


def test_help_has_examples_and_imports_no_plots() -> None:
    code, output = call("--help")
    assert code == 0 and "edgeprivacy report out/audit.json" in output
    program = (
        "import sys; from edgeprivacy.cli import main\n"
        "try: main(['report', '--help'])\nexcept SystemExit: pass\n"
        "sys.exit(any(name in sys.modules for name in ('matplotlib', 'jinja2', 'tensorflow')))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0
