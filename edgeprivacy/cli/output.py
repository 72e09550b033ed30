"""How a command ends: the audit on stdout, and where its files are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edgeprivacy.results import Audit


def finish(audit: Audit, folder: Path, as_json: bool, quiet: bool) -> int:
    """Print the audit as JSON, or as a table with the paths of its files, or nothing; its exit code."""
    if as_json:
        click.echo(json.dumps(audit.to_dict(), indent=2, ensure_ascii=False))
    elif not quiet:
        from edgeprivacy.report.terminal import show

        show(audit)
        click.echo(f"\n{folder / 'audit.json'}\n{folder / 'report.html'}")
    return audit.exit_code
