"""What a runner brings back from a model file: one confidence vector a row, and the facts of the run."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.errors import DataError
from edgeprivacy.files import read_npz, write_npz

FLOAT_LOG_FLOOR = 1e-30
"""Smallest probability whose logarithm is taken for float outputs (attacks.md 4.3; float32 keeps more)."""


@dataclass(frozen=True)
class OutputGrid:
    """The grid that a quantized output can take values on.

    Attributes:
        scale: Step of the grid.
        zero_point: Integer that stands for zero.
        on: Whether the grid lies on the probabilities (an int8 .tflite) or on the logits (an int8 .pte).
    """

    scale: float
    zero_point: int
    on: Literal["probabilities", "logits"] = "probabilities"


@dataclass(frozen=True)
class Performance:
    """How fast a file answers one row at a time, as an app asks, and the memory that takes.

    Attributes:
        rows: Rows that were timed, one by one; times are in microseconds.
        warm_up: Rows before them that were not.
        first_us: The very first row.
        median_us, p95_us: Of the timed rows.
        peak_memory_bytes: Of the process, runtime included.
        memory_before_bytes: What it held before the file was loaded.
    """

    rows: int
    warm_up: int
    first_us: float
    median_us: float
    p95_us: float
    peak_memory_bytes: int
    memory_before_bytes: int


@dataclass(frozen=True)
class LabelSets:
    """What a model of several independent labels answered, label by label.

    Attributes:
        answers: float32 [rows, labels], the probability of each, for itself.
        truth: uint8 [rows, labels], 1 where the label holds.
    """

    answers: NDArray[np.float32]
    truth: NDArray[np.uint8]

    @property
    def right(self) -> NDArray[np.bool_]:
        """Which labels are answered rightly at one half, [rows, labels]."""
        return np.asarray((self.answers > 0.5) == (self.truth == 1))

    def take(self, rows: NDArray[Any]) -> LabelSets:
        """These rows."""
        return LabelSets(self.answers[rows], self.truth[rows])


@dataclass(frozen=True)
class Confidences:
    """The outputs that a runner collected for given rows.

    Attributes:
        probabilities: float32 [rows, classes]; each row sums to one up to quantization. A model with one
            sigmoid output is stored as two columns, 1-p and p.
        row_ids: str [rows], the identity of each row.
        labels: int64 [rows], the true classes; -1 where unknown.
        raw: The output tensor as the file gave it (integers for an int8 file), or None for float files.
        grid: Quantization grid of the output, or None for a float output.
        facts: What ran: runtime and version, kernels, threads, hashes, rows per second. JSON values only.
        sets: Of a model of several labels a row: these, and what was answered to each. Its probabilities are
            those of `multi_label.as_two_classes`, its labels 1. Else None.
    """

    probabilities: NDArray[np.float32]
    row_ids: NDArray[np.str_]
    labels: NDArray[np.int64]
    raw: NDArray[Any] | None = None
    grid: OutputGrid | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    sets: LabelSets | None = None

    def __post_init__(self) -> None:
        rows = len(self.probabilities)
        if self.probabilities.ndim != 2 or len(self.row_ids) != rows or len(self.labels) != rows:
            raise DataError(
                "confidences, row ids and labels must have one entry a row",
                got=f"{self.probabilities.shape}, {self.row_ids.shape}, {self.labels.shape}",
            )

    @property
    def log_floor(self) -> float:
        """Probability below which (and one minus it, above which) the output carries no information.

        Half a step of the grid for outputs quantized as probabilities (design.md 6.5), a float's floor else.
        """
        if self.grid is not None and self.grid.on == "probabilities":
            return self.grid.scale / 2
        return FLOAT_LOG_FLOOR

    def take(self, rows: NDArray[Any]) -> Confidences:
        """These rows (positions or a mask) with the same facts of the run."""
        return replace(
            self,
            probabilities=self.probabilities[rows],
            row_ids=self.row_ids[rows],
            labels=self.labels[rows],
            raw=None if self.raw is None else self.raw[rows],
            sets=None if self.sets is None else self.sets.take(rows),
        )

    def save(self, path: Path) -> None:
        """Write `path` (.npz): arrays, and the facts as JSON text inside."""
        grid = (
            None
            if self.grid is None
            else {"scale": self.grid.scale, "zero_point": self.grid.zero_point, "on": self.grid.on}
        )
        arrays: dict[str, NDArray[Any]] = {
            "probabilities": self.probabilities,
            "row_ids": self.row_ids,
            "labels": self.labels,
            "facts": np.array(json.dumps({"grid": grid, **self.facts}, sort_keys=True)),
        }
        if self.raw is not None:
            arrays["raw"] = self.raw
        if self.sets is not None:
            arrays |= {"label_answers": self.sets.answers, "label_truth": self.sets.truth}
        write_npz(path, **arrays)

    @classmethod
    def load(cls, path: Path) -> Confidences:
        """Read what `save` wrote.

        Raises:
            DataError: The file is missing, damaged or not a confidences file.
        """
        arrays = read_npz(path)
        missing = {"probabilities", "row_ids", "labels", "facts"} - arrays.keys()
        if missing:
            raise DataError(f"{path} holds no confidences", got=f"without {', '.join(sorted(missing))}")
        try:
            facts = json.loads(str(arrays["facts"]))
            grid = facts.pop("grid", None)
            return cls(
                probabilities=arrays["probabilities"].astype(np.float32),
                row_ids=arrays["row_ids"].astype(np.str_),
                labels=arrays["labels"].astype(np.int64),
                raw=arrays.get("raw"),
                grid=None if grid is None else OutputGrid(**grid),
                facts=facts,
                sets=LabelSets(arrays["label_answers"], arrays["label_truth"])
                if "label_answers" in arrays
                else None,
            )
        except (ValueError, TypeError, AttributeError) as error:
            raise DataError(f"{path} holds damaged confidences", got=error) from None
