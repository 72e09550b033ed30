"""Markdown for pull requests and job summaries."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from edgeprivacy.report import words, writers
from edgeprivacy.report.advice import advice
from edgeprivacy.report.bounds_words import BOUNDS_MEAN, bounds_rows
from edgeprivacy.report.canary_words import CANARIES_MEAN, canary_rows, canary_tpr_title
from edgeprivacy.report.device_words import device_rows
from edgeprivacy.report.version_words import tpr_title, version_rows
from edgeprivacy.results import Audit


@writers.register("markdown")
def render_markdown(audit: Audit) -> str:
    """Verdict, failed null tests, files, gates, attacks and null tests as GitHub-flavoured Markdown."""
    limit = words.common_limit(audit)
    parts = [f"## {words.VERDICT_WORDS[audit.verdict]}. {_text(words.headline(audit))}"]
    for test in words.failed_null_tests(audit):
        told = f"**Null test failed: {_text(words.null_title(test))}.** {_text(test.detail)}"
        parts.append(f"> {told} {words.null_meaning(test)}")
    titles = ["file", "role", "size (gzip)", "test accuracy", "worst attack"]
    titles += [f"TPR at {words.limit_percent(limit.fpr)} FPR"] if limit is not None else []
    lines = []
    for row in words.rows(audit):
        artifact = row.artifact
        cells = [
            artifact.name,
            artifact.role,
            f"{words.size(artifact.size_bytes)} ({words.size(artifact.gzip_bytes)})",
            words.share(artifact.utility.test_accuracy),
            row.worst.name if row.worst is not None else "all skipped",
        ]
        cells += [words.share(row.entry)] if limit is not None else []
        lines.append([*cells, words.auc(row.worst.auc if row.worst is not None else None)])
    parts.append(_table([*titles, "AUC"], lines))
    if canaries := canary_rows(audit):
        tpr = canary_tpr_title(audit) or "TPR"
        parts += ["### Canaries", _text(CANARIES_MEAN)]
        titles = ["file", "attack", f"{tpr}, canaries", "all other rows", "AUC, canaries", "all other rows"]
        lines = [
            [e.artifact.name, e.attack, f"skipped: {e.skipped}", "", "", ""]
            if e.skipped
            else [
                e.artifact.name,
                e.attack,
                e.canary_tpr,
                e.population_tpr,
                e.canary_auc,
                e.population_auc,
            ]
            for e in canaries
        ]
        parts.append(_table(titles, lines))
    if devices := device_rows(audit):
        parts.append("### On the device")
        titles = [
            "file",
            "device",
            "against other runners",
            "worst attack",
            "one row",
            "memory",
            "shadows run on",
        ]
        lines = [
            [e.artifact.name, e.device, "; ".join(e.drift), e.attack, e.latency, e.memory, e.shadows]
            for e in devices
        ]
        parts.append(_table(titles, lines))
    if versions := version_rows(audit):
        parts.append("### Several files together")
        titles = ["files", "attack", tpr_title(audit) or "TPR", "AUC", "beyond one file"]
        parts.append(
            _table(titles, [[e.versions.name, e.attack.name, e.tpr, e.auc, e.beyond] for e in versions])
        )
    if bounds := bounds_rows(audit):
        parts += ["### Bounds and records at risk", _text(BOUNDS_MEAN)]
        titles = [
            "file",
            "attack",
            "lower bound, one run",
            "known with 99% certainty",
            "leakage in the most vulnerable tenth",
        ]
        lines = [[e.row.artifact.name, e.bounds.attack, e.epsilon, e.certain, e.vulnerable] for e in bounds]
        parts.append(_table(titles, lines))
    if audit.gates:
        parts.append("### Gates")
        gates = [(gate.canonical, gate.verdict, words.gate_value(gate), gate.detail) for gate in audit.gates]
        parts.append(_table(["fails when", "verdict", "observed", "where"], gates))
    parts.append("### Null tests")
    tests = [
        (
            words.null_title(t),
            words.null_status(t),
            "–" if t.p_value is None else f"{t.p_value:.3g}",
            t.detail,
        )
        for t in audit.null_tests
    ]
    vouched = "None was run: nothing vouches for the measurement."
    parts.append(
        _table(["test", "result", "p", "what it saw, or what stays unseen"], tests) if tests else vouched
    )
    parts += ["<details><summary>All attacks</summary>", _attacks(audit), "</details>"]
    parts += [_text(sentence) for sentence in advice(audit)]
    parts += [f"_{_text(note)}_" for note in audit.notes]
    return "\n\n".join(parts) + "\n"


def _attacks(audit: Audit) -> str:
    limits = sorted({e.fpr for a in audit.artifacts for t in a.attacks for e in t.tpr_at_fpr}, reverse=True)
    lines = []
    for artifact in audit.artifacts:
        for attack in artifact.attacks:
            if attack.skipped is not None:
                lines.append(
                    [artifact.name, attack.name, f"skipped: {attack.skipped}", *[""] * (len(limits) + 1)]
                )
                continue
            tprs = []
            for fpr in limits:
                entry = attack.tpr(fpr)
                weak = (
                    {"low": " (low support)", "none": " (unsupported)"}.get(entry.support, "")
                    if entry
                    else ""
                )
                tprs.append(words.share(entry) + weak)
            balanced = words.share(attack.balanced_accuracy)
            lines.append([artifact.name, attack.name, words.auc(attack.auc), balanced, *tprs])
    titles = ["file", "attack", "AUC", "balanced accuracy"]
    return _table([*titles, *(f"TPR at {words.limit_percent(fpr)} FPR" for fpr in limits)], lines)


def _text(text: str) -> str:
    """A stranger's text as plain text: no markup, no link, no table cell of its own."""
    text = words.clean(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~$])", r"\\\1", text)


def _table(titles: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    head = f"| {' | '.join(titles)} |\n|{' --- |' * len(titles)}"
    return "\n".join([head, *(f"| {' | '.join(_text(cell) for cell in line)} |" for line in lines)])
