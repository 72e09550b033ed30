"""What compilers print on the way is kept off the terminal. Framework-free."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet(*loggers: str) -> Iterator[list[str]]:
    """Keep what Python and native code print in the block; the list holds it afterwards, for error messages.

    Native passes write to file descriptors 1 and 2 themselves, so replacing sys.stderr is not enough.

    Args:
        loggers: Names of loggers that may speak of errors only.
    """
    said: list[str] = []
    levels = [(logger, logger.level) for logger in map(logging.getLogger, loggers)]
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    python_side = io.StringIO()
    with tempfile.TemporaryFile() as sink:
        saved = os.dup(1), os.dup(2)
        try:
            os.dup2(sink.fileno(), 1)
            os.dup2(sink.fileno(), 2)
            for logger, _ in levels:
                logger.setLevel(logging.ERROR)
            with (
                contextlib.redirect_stdout(python_side),
                contextlib.redirect_stderr(python_side),
                warnings.catch_warnings(),
            ):
                warnings.simplefilter("ignore")
                try:
                    yield said
                finally:
                    sink.seek(0)
                    said += [sink.read().decode(errors="replace"), python_side.getvalue()]
        finally:
            for logger, level in levels:
                logger.setLevel(level)
            for number, original in zip((1, 2), saved, strict=True):
                os.dup2(original, number)
                os.close(original)
