"""audit.json: the audit object itself, the file every other report can be made from."""

from __future__ import annotations

import json

from edgeprivacy.report import writers
from edgeprivacy.results import Audit


@writers.register("json")
def render_json(audit: Audit) -> str:
    """The content of audit.json, byte for byte as `Audit.save` writes it."""
    return json.dumps(audit.to_dict(), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
