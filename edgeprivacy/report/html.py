"""report.html: one self-contained file, readable on a phone, on a desk and in print."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from edgeprivacy.report import plots, words, writers
from edgeprivacy.report.advice import advice
from edgeprivacy.report.bounds_words import BOUNDS_MEAN, bounds_rows, slice_p, slice_tpr
from edgeprivacy.report.canary_words import CANARIES_MEAN, canary_rows, canary_tpr_title
from edgeprivacy.report.device_words import device_rows, latency_text
from edgeprivacy.report.version_words import tpr_title, version_rows
from edgeprivacy.results import ArtifactResult, Audit

_GREY_CURVES = 8
"""More curves of other artifacts than this make a panel's background a thicket."""


@writers.register("html")
def render_html(audit: Audit) -> str:
    """The whole report. Every string of the audit is escaped; nothing is loaded from elsewhere."""
    rows = words.rows(audit)
    tprs = [e for artifact in audit.artifacts for attack in artifact.attacks for e in attack.tpr_at_fpr]
    page = template_environment().get_template("report.html.j2")
    return page.render(
        audit=audit,
        rows=rows,
        candidates=[row for row in rows if row.artifact.role == "candidate"],
        limit=words.common_limit(audit),
        limits=sorted({entry.fpr for entry in tprs}, reverse=True),
        failed=words.failed_null_tests(audit),
        headline=words.headline(audit),
        reading=[*words.reading(audit), *advice(audit)],
        word=words.VERDICT_WORDS[audit.verdict],
        scatter=_markup(plots.privacy_utility(rows)),
        panels=_panels(rows),
        facts={row.number: _facts(row.artifact) for row in rows},
        devices=device_rows(audit),
        versions=version_rows(audit),
        tpr_title=tpr_title(audit),
        bounds=bounds_rows(audit),
        bounds_mean=BOUNDS_MEAN,
        canaries=canary_rows(audit),
        canaries_mean=CANARIES_MEAN,
        canary_tpr=canary_tpr_title(audit),
    )


@cache
def template_environment() -> Environment:
    """Templates beside this file, with autoescape on and the shared number formats as filters."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    for function in (
        words.percent,
        words.percent_interval,
        words.decimal,
        words.decimal_interval,
        words.limit_percent,
        words.size,
        words.gate_value,
        words.null_status,
        words.null_title,
        words.null_meaning,
        words.flatten,
        latency_text,
        gauge,
        slice_p,
        slice_tpr,
        _reliability,
    ):
        environment.filters[function.__name__] = function
    return environment


def _shown(value: Any) -> Any:
    """Unprintable characters of any printed string made visible; trusted markup stays."""
    return words.clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def gauge(share: float) -> str:
    """Where a share stands on a scale from 0.01 % to 100 % in equal decades, as a CSS length."""
    return f"{(math.log10(min(1.0, max(share, 1e-4))) + 4) * 25:.2f}%"


def _reliability(bins: Any, salt: str) -> Markup | None:
    return _markup(plots.reliability(bins, salt))


def _markup(svg: str | None) -> Markup | None:
    return None if svg is None else Markup(svg)  # drawn here, from numbers alone


def _panels(rows: list[words.Row]) -> list[dict[str, Any]]:
    """ROC and histogram of each artifact's worst attack, with other artifacts' curves behind the ROC."""
    attacked = [(row, row.worst) for row in rows if row.worst is not None]
    found = []
    for row, worst in attacked:
        others = [other.roc for peer, other in attacked if peer is not row and other.roc is not None]
        bins = worst.histogram
        found.append(
            {
                "row": row,
                "roc": _markup(plots.roc(worst, others[:_GREY_CURVES], f"roc-{row.number}")),
                "histogram": _markup(plots.histogram(bins, f"histogram-{row.number}") if bins else None),
            }
        )
    return found


def _facts(artifact: ArtifactResult) -> dict[str, Any]:
    """The converter's manifest, taken apart for display; content of another shape goes into a list."""
    facts = dict(artifact.facts)
    tables: dict[str, list[dict[str, Any]]] = {}
    for key in ("inputs", "outputs", "weights"):
        entries = facts.get(key)
        tables[key] = []
        if isinstance(entries, list | tuple) and all(isinstance(entry, dict) for entry in entries):
            tables[key] = [dict(entry) for entry in entries]
            facts.pop(key)
    for known in ("sha256", "size_bytes", "gzip_bytes"):
        facts.pop(known, None)
    return {**tables, "rest": list(words.flatten(facts)) if facts else []}
