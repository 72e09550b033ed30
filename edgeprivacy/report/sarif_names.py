"""By what SARIF knows things again: rules, findings, files and whole audits, from one build to the next."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from edgeprivacy.report import words
from edgeprivacy.results import Audit

_SPELLINGS = {
    " >= ": "-ge-",
    " <= ": "-le-",
    " > ": "-gt-",
    " < ": "-lt-",
    "@": "-at-",
    "%fpr": "pct-fpr",
    " at ci": "-at-ci",
    " at point": "-at-point",
}


def rule_id(kind: str, name: str) -> str:
    """`gate-tpr-at-1pct-fpr-gt-0.05`: of what the rule asks alone.

    A name that cannot be spelt so without loss (one with an attack's or a file's name) carries a hash.
    """
    plain = name
    for spelling, word in _SPELLINGS.items():
        plain = plain.replace(spelling, word)
    slug = _slug(plain)
    if slug != plain:
        slug = f"{slug}-{hashlib.sha256(words.clean(name).encode()).hexdigest()[:8]}"
    return f"{kind}-{slug}"


def fingerprint(rule: str, artifact: str | None) -> str:
    """The identity of a finding: its rule and its file's name (None for all), no bytes and no numbers."""
    return hashlib.sha256(json.dumps([rule, artifact]).encode()).hexdigest()[:32]


def message(*paragraphs: str) -> str:
    """Text for a message: no link and no placeholder of its own (SARIF 3.11.5 and 3.11.6)."""
    told = "\n\n".join(map(words.clean, paragraphs))
    return told.replace("](", "] (").replace("{", "{{").replace("}", "}}")


def file_uri(file: str) -> str:
    """A path as a relative reference; of one that leads out of the audit's folder only the name is told."""
    path = PurePosixPath(words.clean(file))
    if path.is_absolute() or ".." in path.parts:
        path = PurePosixPath(path.name)
    return quote(str(path))


def automation_id(audit: Audit) -> str:
    """`edgeprivacy/WHAT/RECIPE`.

    Code scanning takes all before the last slash as the category and keeps the alerts of each category
    apart. With the recipe in it, each change of the recipe would leave the alerts of the last one open.
    """
    if audit.recipe_id is None:
        names = [artifact.names[-1] for artifact in audit.artifacts if artifact.role == "candidate"]
        return f"edgeprivacy/{_slug('+'.join(dict.fromkeys(names)))}/"
    recipe = audit.recipe
    data = _entry(recipe, "data", "train") or _entry(recipe, "data", "source")
    stem = PurePosixPath(str(data)).stem if isinstance(data, str) else "data"
    backend = recipe.get("backend")
    backends = [backend] if isinstance(backend, str) else backend if isinstance(backend, list | tuple) else []
    what = "-".join([stem, *(str(name) for name in backends)])
    return f"edgeprivacy/{_slug(what)}/{_slug(audit.recipe_id)}"


def _entry(recipe: dict[str, Any], section: str, key: str) -> Any:
    content = recipe.get(section)
    return content.get(key) if isinstance(content, dict) else None


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", text)[:100].strip("-") or "audit"
