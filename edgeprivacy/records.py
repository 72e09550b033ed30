"""A table of records: the only way in which what was found of single rows leaves the machine.

One line an artifact and scored row. Reports and audit.json hold none of it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.bounds_results import Records
from edgeprivacy.errors import StorageError, UsageError
from edgeprivacy.files import write_text

COLUMNS = ("artifact", "row", "class", "member", "attack", "score", "risk")
_DIGITS = 9


def check_records(path: Path | None) -> None:
    """Whether a table of records may be written there; to be asked before anything expensive.

    Raises:
        UsageError: Something else stands there, or its folder does not exist.
    """
    if path is None:
        return
    if path.is_dir() or not path.parent.is_dir():
        what = "is a folder" if path.is_dir() else "lies in a folder that does not exist"
        raise UsageError(f"--records {path} {what}", allowed="a file in an existing folder")
    if not path.exists():
        return
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            first = stream.readline(200).strip()
    except OSError as error:
        raise UsageError(f"--records {path} cannot be read", got=error.strerror) from None
    if first != ",".join(COLUMNS):
        raise UsageError(
            f"--records {path} exists and is no table of records", hint="choose another file, or remove it"
        )


def write_records(path: Path, tables: Sequence[tuple[str, NDArray[np.str_], Records]]) -> None:
    """Write the table as CSV, whole or not at all.

    Args:
        tables: Of each artifact its name, the ids of the signals' rows, and its records. Risks are empty
            where the attack gives none.

    Raises:
        StorageError: It cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name, ids, records in tables:
        for position, row in enumerate(records.rows):
            risk = "" if records.risks is None else round(float(records.risks[position]), _DIGITS)
            writer.writerow(
                (
                    _plain(name),
                    _plain(str(ids[row])),
                    int(records.labels[position]),
                    int(records.members[position]),
                    records.attack,
                    round(float(records.scores[position]), _DIGITS),
                    risk,
                )
            )
    try:
        write_text(path, text.getvalue())
    except OSError as error:
        raise StorageError(f"cannot write the records to {path}", got=error.strerror or error) from None


def _plain(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
