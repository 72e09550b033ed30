"""`edgeprivacy report`: render an audit.json again."""

from __future__ import annotations

from pathlib import Path

import click

from edgeprivacy.errors import UsageError

_FILES = {
    "html": "report.html",
    "html-fragment": "fragment.html",
    "markdown": "report.md",
    "junit": "junit.xml",
    "sarif": "edgeprivacy.sarif",
}
_STDOUT = ("terminal", "json")


@click.command(name="report")
@click.argument("audit_json", type=click.Path(path_type=Path), metavar="AUDIT_JSON")
@click.option(
    "--format",
    "formats",
    multiple=True,
    metavar="FORMAT",
    help="html, markdown, junit, sarif, terminal, json or html-fragment; may be given several times. "
    "Without it: report.html, and the table on the terminal.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="File for one format ('-' for standard output), folder for several. Default: beside the audit, "
    "and standard output for terminal and json.",
)
def command(audit_json: Path, formats: tuple[str, ...], output: Path | None) -> None:
    """Render the audit in AUDIT_JSON (a file, or the folder that holds audit.json) again.

    The exit code tells whether the reports were written; the audit's verdict is not judged again.

    `compress`, `audit` and `attack` write further reports themselves (--report FORMAT=FILE), and append the
    Markdown report to the job summary where the pipeline offers one (GITHUB_STEP_SUMMARY).

    \b
    Examples:
      edgeprivacy report out/audit.json
      edgeprivacy report out --format junit --format markdown --output ci-reports
      edgeprivacy report out/audit.json --format sarif --output edgeprivacy.sarif
      edgeprivacy report out/audit.json --format markdown --output - > comment.md
    """
    from edgeprivacy.report import render, write, writers
    from edgeprivacy.report.terminal import show
    from edgeprivacy.results import Audit

    for name in formats:
        writers[name]  # an unknown format is refused before anything is written
    wanted = formats or ("html", "terminal")
    path = audit_json / "audit.json" if audit_json.is_dir() else audit_json
    several = len(formats) > 1
    if several and output is not None and (output.is_file() or str(output) == "-"):
        raise UsageError("several formats need a folder as --output", got=output)
    if not several and output is not None and output.is_dir():
        output = output / _FILES.get(wanted[0], "audit.json" if wanted[0] == "json" else "report.txt")
    audit = Audit.load(path)
    for name in wanted:
        to_stdout = str(output) == "-" or (name in _STDOUT and (output is None or not formats))
        if not several and output is not None and not to_stdout:
            target = output
        elif to_stdout:
            show(audit) if name == "terminal" else click.echo(render(audit, name), nl=False)
            continue
        else:
            target = (output or path.parent) / _FILES.get(name, f"report.{name}")
        write(audit, name, target)
        click.echo(f"wrote {target}")
