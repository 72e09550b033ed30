"""How a command ends: the audit on stdout, where its files are, and what a pipeline asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeprivacy.cli.reports import wanted_reports, write_reports

if TYPE_CHECKING:
    from edgeprivacy.results import Audit


def finish(audit: Audit, folder: Path, as_json: bool, quiet: bool) -> int:
    """Print the audit as JSON, or as a table with the paths of its files, or nothing; its exit code.

    The reports of --report are written whatever the verdict is, and the job summary is appended where the
    pipeline offers one. A summary that cannot be written is a warning.

    Raises:
        StorageError: A report of --report cannot be written; all others are, and the audit is told.
    """
    reports = wanted_reports()
    failed = write_reports(audit, reports)
    if as_json:
        click.echo(json.dumps(audit.to_dict(), indent=2, ensure_ascii=False))
    elif not quiet:
        from edgeprivacy.report.terminal import show

        show(audit)
        click.echo(f"\n{folder / 'audit.json'}\n{folder / 'report.html'}")
        if failed is None:
            for report in reports:
                click.echo(report.path)
    from edgeprivacy.report.summary import append_summary

    if problem := append_summary(audit):
        click.echo(f"warning: {problem}", err=True)
    if failed is not None:
        raise failed
    return audit.exit_code
