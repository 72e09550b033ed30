"""The job summary: where a pipeline offers a file for it, the Markdown report is appended to that file.

GitHub Actions, and servers that run its workflows, name the file in GITHUB_STEP_SUMMARY. GitLab offers none:
there, `--report markdown=FILE` writes the same text for an artifact or a comment on a merge request.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from edgeprivacy.report import render
from edgeprivacy.results import Audit

VARIABLE = "GITHUB_STEP_SUMMARY"
LIMIT_BYTES = 1024 * 1024
"""GitHub drops the whole summary of a step that is larger."""


def append_summary(audit: Audit, environment: Mapping[str, str] | None = None) -> str | None:
    """Append the Markdown report to the pipeline's summary, whole or not at all.

    Args:
        audit: What to report.
        environment: Where GITHUB_STEP_SUMMARY is looked up; None for that of this process.

    Returns:
        Why it could not be appended, in a sentence; None if it was, or if no summary is offered. A summary
        never decides how a release ends, so nothing is raised.
    """
    name = (os.environ if environment is None else environment).get(VARIABLE, "")
    if not name:
        return None
    try:
        # What stood there may not end in a newline, and a heading needs an empty line before it.
        _append(Path(name), f"\n\n{render(audit, 'markdown')}".encode())
    except OSError as error:
        return f"the job summary {name} was not written: {error.strerror or error}"
    return None


def _append(path: Path, content: bytes) -> None:
    # Without O_NONBLOCK, opening a pipe that nobody reads would wait for ever.
    flags = (
        os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    )
    handle = os.open(path, flags, 0o644)
    try:
        before = os.fstat(handle)
        if not stat.S_ISREG(before.st_mode):
            raise OSError(f"{path} is no regular file")
        if before.st_size + len(content) > LIMIT_BYTES:
            raise OSError(f"it would be larger than {LIMIT_BYTES // 1024} KiB")
        try:
            # One write: steps that run side by side append to the same file.
            if os.write(handle, content) != len(content):
                raise OSError("the disk is full")
        except OSError:
            with suppress(OSError):
                os.ftruncate(handle, before.st_size)
            raise
    finally:
        os.close(handle)
