"""A short HTML table for notebooks."""

from __future__ import annotations

from edgeprivacy.report import words, writers
from edgeprivacy.report.html import template_environment
from edgeprivacy.results import Audit


@writers.register("html-fragment")
def render_fragment(audit: Audit) -> str:
    """Verdict and one line an artifact, without head, style sheet or plots."""
    template = template_environment().get_template("fragment.html.j2")
    return template.render(
        audit=audit,
        rows=words.rows(audit),
        limit=words.common_limit(audit),
        headline=words.headline(audit),
        word=words.VERDICT_WORDS[audit.verdict],
    )
