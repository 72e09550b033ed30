"""Options that several commands share, and what they have in common at run time."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from edgeprivacy.cli.reports import report_option

F = TypeVar("F", bound=Callable[..., Any])


def gate_options(command: F) -> F:
    """--fail-if and --gate-on."""
    command = click.option(
        "--gate-on",
        type=click.Choice(["point", "ci"]),
        default=None,
        help="Decide gates by the estimate or by its interval.  [default: point]",
    )(command)
    return click.option(
        "--fail-if",
        multiple=True,
        metavar="EXPR",
        help='Fail (exit 1) if the expression holds, e.g. "tpr@1%fpr>0.05". Repeatable.',
    )(command)


def rows_options(command: F) -> F:
    """--label and --no-header, for CSV files."""
    command = click.option("--no-header", is_flag=True, help="CSV files have no line of column names.")(
        command
    )
    return click.option("--label", help="Label column of CSV files: a name or an index; several: A,B,C.")(
        command
    )


def records_option(command: F) -> F:
    """--records."""
    return click.option(
        "--records",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="Also write what was found of every single row, as CSV. Nothing else holds single rows.",
    )(command)


def output_options(command: F) -> F:
    """--json, --quiet and --report."""
    command = report_option(command)
    command = click.option("--quiet", "-q", is_flag=True, help="No progress, no table.")(command)
    return click.option("--json", "as_json", is_flag=True, help="Print the audit as JSON on stdout.")(command)


def split_list(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Callback: "a,b" to ("a", "b"); None stays None."""
    if value is None:
        return None
    return tuple(part.strip() for part in value.split(",") if part.strip())


@contextmanager
def progress_bar(quiet: bool, title: str) -> Iterator[Callable[[int, int, str], None]]:
    """A progress function for `compress` and friends: a bar with time left on a terminal, else a line now and
    then, always on stderr. A step's text of the form "attacks | lira.online" begins or goes on with a part of
    the work that is called "attacks" and has a time of its own."""
    if quiet:
        yield lambda done, total, text: None
        return
    if not sys.stderr.isatty():
        yield _LinePrinter(title)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[last]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None, last="starting")

        current = title

        def advance(done: int, total: int, text: str) -> None:
            nonlocal current, task
            part, step = _part_of(text, current)
            if part != current:
                bar.remove_task(task)
                current, task = part, bar.add_task(part, total=total, last="starting")
            bar.update(task, completed=done, total=total, last=step or "starting workers")

        yield advance


def _part_of(text: str, current: str) -> tuple[str, str]:
    """The part of the work that a step belongs to, and the step."""
    part, bar, step = text.partition(" | ")
    return (part, step) if bar else (current, text)


class _LinePrinter:
    """One line every ten seconds or so, for logs."""

    def __init__(self, title: str, every: float = 10.0) -> None:
        self._title, self._every = title, every
        self._started = self._last = time.monotonic()
        self._said: tuple[int, int] | None = None

    def __call__(self, done: int, total: int, text: str) -> None:
        now = time.monotonic()
        part, step = _part_of(text, self._title)
        if part != self._title:
            self._title, self._started, self._said = part, now, None
        # The first and the last step are said at once, but once.
        begins_or_ends = done in (0, total) and self._said != (done, total)
        if not begins_or_ends and now - self._last < self._every:
            return
        self._last, self._said = now, (done, total)
        spent = now - self._started
        left = f", about {spent / done * (total - done):.0f} s left" if 0 < done < total else ""
        at_work = f" ({step})" if step and done < total else ""
        line = f"{self._title}: {done}/{total} steps, {spent:.0f} s{left}{at_work}"
        print(line, file=sys.stderr, flush=True)
