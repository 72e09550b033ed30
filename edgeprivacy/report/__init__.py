"""Reports: one writer a file, all from the same audit object.

html = render(audit, "html")
write(audit, "junit", Path("junit.xml"))
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgeprivacy.files import write_text
from edgeprivacy.registry import Registry
from edgeprivacy.results import Audit

Writer = Callable[[Audit], str]

writers: Registry[Writer] = Registry(
    "report format",
    modules=tuple(
        f"edgeprivacy.report.{module}"
        for module in ("json", "html", "fragment", "markdown", "terminal", "junit", "sarif")
    ),
)
"""All report formats by name; built-in ones are imported on the first look-up."""


def render(audit: Audit, format: str) -> str:
    """The audit as text in one of the registered formats.

    Args:
        audit: What to report.
        format: "json", "html", "html-fragment", "markdown", "terminal", "junit" or "sarif".

    Raises:
        UsageError: No such format.
    """
    return writers[format](audit)


def write(audit: Audit, format: str, path: Path) -> None:
    """Write the audit to a file, whole or not at all.

    Raises:
        UsageError: No such format.
        StorageError: The disk is full or the folder is not writable.
    """
    write_text(path, render(audit, format))
