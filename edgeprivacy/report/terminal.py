"""The table that ends a run in a terminal."""

from __future__ import annotations

import io
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgeprivacy.report import words, writers
from edgeprivacy.report.advice import advice
from edgeprivacy.report.bounds_words import bounds_rows, bounds_sentence
from edgeprivacy.report.canary_words import canary_rows, canary_sentence, canary_tpr_title
from edgeprivacy.report.device_words import device_rows
from edgeprivacy.report.version_words import strongest_rows
from edgeprivacy.results import Audit

_STYLE = {"pass": "bold green", "fail": "bold red", "inconclusive": "bold yellow", "none": "bold"}
_WIDTH = 140


@writers.register("terminal")
def render_terminal(audit: Audit) -> str:
    """The table as plain text without colours, at most 140 columns wide."""
    stream = io.StringIO()
    console = Console(file=stream, width=_WIDTH, color_system=None, force_terminal=False)
    console.print(summary(audit, _WIDTH))
    return stream.getvalue()


def show(audit: Audit, file: TextIO | None = None) -> None:
    """Print the table to a stream (standard output by default), in colour where it is a terminal."""
    console = Console(file=file)
    if not console.is_terminal:
        # Piped output has no width of its own; a narrow default would break every line in two.
        console = Console(file=file, width=_WIDTH)
    console.print(summary(audit, console.width))


def summary(audit: Audit, width: int) -> RenderableType:
    """Failed null tests first, then the table, gates, verdict and notes, for a terminal of this width.

    Every string is taken literally: no markup, no control characters.
    """
    parts: list[RenderableType] = []
    failed = words.failed_null_tests(audit)
    for test in failed:
        told = f"Null test failed: {words.null_title(test)}. {words.clean(test.detail)}"
        parts.append(Text.assemble((told, "bold red"), f"\n  {words.null_meaning(test)}"))
    table = _table(audit, narrow=False)
    fits = Console(width=1000).measure(table).maximum <= width
    parts.append(table if fits else _table(audit, narrow=True))
    for entry in device_rows(audit):
        if entry.artifact.role == "candidate":
            seen = [*entry.drift, *([entry.attack] if entry.attack != "–" else []), entry.latency]
            name = words.clean(entry.artifact.names[-1])
            parts.append(Text.assemble((name, "bold"), f" on {entry.device}: {'; '.join(seen)}"))
    for row in canary_rows(audit):
        if row.artifact.role == "candidate" and row.strongest:
            told = words.clean(canary_sentence(row, canary_tpr_title(audit)))
            parts.append(Text.assemble((words.clean(row.artifact.name), "bold"), told))
    worst = words.worst_candidate(audit)
    for bounded in bounds_rows(audit):
        if worst is not None and bounded.row.artifact is worst.artifact:
            said = words.clean(bounds_sentence(bounded))
            parts.append(Text.assemble((words.clean(bounded.row.artifact.name), "bold"), said))
    for together in strongest_rows(audit):
        told = f" together: {together.attack.name} AUC {together.auc}, {together.beyond}"
        parts.append(Text.assemble((words.clean(together.versions.name), "bold"), told))
    for gate in audit.gates:
        found = f"observed {words.gate_value(gate)}" if gate.observed is not None else "nothing observed"
        line = f"{words.clean(gate.canonical)}  {found}  {words.clean(gate.detail)}  "
        parts.append(Text.assemble("fails when ", line, (gate.verdict.upper(), _STYLE[gate.verdict])))
    for test in audit.null_tests:
        if test.passed is None:
            parts.append(
                Text(f"Null test not run: {words.null_title(test)}. {words.clean(test.detail)}", "dim")
            )
    word = words.VERDICT_WORDS[audit.verdict]
    # The failed tests already stand on the first lines: the verdict need not repeat them.
    said = "The leakage measured here may not come from the model." if failed else words.headline(audit)
    parts.append(Text.assemble((f"{word}. ", _STYLE[audit.verdict]), said))
    parts += [Text(sentence) for sentence in advice(audit)]
    parts += [Text(f"Note: {words.clean(note)}", "dim") for note in audit.notes]
    return Group(*parts)


def _table(audit: Audit, narrow: bool) -> Table:
    """`narrow` puts intervals under their values and the size under the name."""
    gap = "\n" if narrow else " "
    limit = words.common_limit(audit)
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim", expand=False)
    table.add_column("artifact\nsize (gzip)" if narrow else "artifact", overflow="fold")
    if not narrow:
        table.add_column("size (gzip)", justify="right")
    table.add_column("accuracy", justify="right")
    table.add_column(f"worst{gap}attack")
    if limit is not None:
        low = " (low support)" if limit.support == "low" else ""
        table.add_column(f"TPR at{gap}{words.limit_percent(limit.fpr)} FPR{low}", justify="right")
    table.add_column("AUC", justify="right")
    for row in words.rows(audit):
        artifact = row.artifact
        role = "" if artifact.role == "candidate" else f"{gap}({artifact.role})"
        size = f"{words.size(artifact.size_bytes)} ({words.size(artifact.gzip_bytes)})"
        name = Text(words.clean(artifact.name), "bold" if artifact.role == "candidate" else "")
        first = [Text.assemble(name, f"\n{size}", role)] if narrow else [name.append(role), Text(size)]
        table.add_row(
            *first,
            Text(words.share(artifact.utility.test_accuracy, gap)),
            Text("all skipped" if row.worst is None else words.clean(row.worst.name)),
            *([Text(words.share(row.entry, gap))] if limit is not None else []),
            Text(words.auc(row.worst.auc if row.worst is not None else None, gap)),
        )
    return table
