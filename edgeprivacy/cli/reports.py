"""--report FORMAT=FILE: further reports, written as soon as the audit is done."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgeprivacy.errors import EdgePrivacyError, StorageError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeprivacy.results import Audit

F = TypeVar("F", bound="Callable[..., Any]")
_WANTED = "edgeprivacy.reports"


@dataclass(frozen=True)
class ReportFile:
    """One report that was asked for."""

    format: str
    path: Path


def report_option(command: F) -> F:
    """--report, checked while the command line is read; `wanted_reports` has what was asked for.

    It reaches the end of the command past the command's own arguments: no command does anything with it.
    """

    def remember(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> None:
        if value:
            ctx.meta[_WANTED] = parse_reports(value)

    return click.option(
        "--report",
        multiple=True,
        metavar="FORMAT=FILE",
        expose_value=False,
        callback=remember,
        help="Write a further report, also when a gate fails: sarif, junit, markdown, html, json, terminal "
        "or html-fragment. Repeatable.",
    )(command)


def parse_reports(values: Sequence[str]) -> tuple[ReportFile, ...]:
    """Read and check `FORMAT=FILE` options before any work is done.

    Raises:
        UsageError: No file name, an unknown format, a file that cannot be written, or one that is asked for
            twice.
    """
    from edgeprivacy.report import writers

    found: dict[Path, ReportFile] = {}
    for value in values:
        format_, equals, name = value.partition("=")
        if not equals or not name or not format_:
            raise UsageError("--report needs a format and a file", got=value, allowed="FORMAT=FILE")
        writers[format_]
        report = ReportFile(format_, Path(name))
        _check_writable(report.path)
        if (taken := found.setdefault(report.path.resolve(), report)) is not report:
            raise UsageError(f"--report writes {name} twice", got=f"{taken.format} and {format_}")
    return tuple(found.values())


def _check_writable(path: Path) -> None:
    # A report replaces its file: a folder, a pipe or a device must not be replaced.
    if path.is_dir() or (path.exists() and not path.is_file()):
        kind = "a folder" if path.is_dir() else "no regular file"
        raise UsageError(
            "--report cannot write its file", got=f"{path}, which is {kind}", allowed="FORMAT=FILE"
        )
    folder = path.resolve().parent
    while not folder.exists():
        folder = folder.parent
    try:
        # Root may write everywhere by its rights, and yet not on every file system: so it is tried.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        why = f"{folder}: {error.strerror or error}"
        raise UsageError(
            "--report cannot write its file", got=f"{path}; {why}", hint="choose another file"
        ) from None


def wanted_reports() -> tuple[ReportFile, ...]:
    """What --report asked of the command that is running."""
    context = click.get_current_context(silent=True)
    found = context.meta.get(_WANTED, ()) if context is not None else ()
    assert isinstance(found, tuple)
    return found


def write_reports(audit: Audit, reports: Sequence[ReportFile]) -> EdgePrivacyError | None:
    """Write them all; the first error, if one could not be written, for the end of the command."""
    from edgeprivacy.report import write

    failed: EdgePrivacyError | None = None
    for report in reports:
        try:
            write(audit, report.format, report.path)
        except EdgePrivacyError as error:
            failed = failed or error
        except OSError as error:  # the folder is another one than it was at the start
            failed = failed or StorageError(f"cannot write {report.path}", got=error.strerror or error)
    return failed
