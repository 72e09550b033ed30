"""The interface that host, native and adb runners share: files and one input set in, confidences out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.confidences import Confidences, Performance


@dataclass(frozen=True)
class Queries:
    """Rows to run: one input set for all artifacts of a call, so that it is prepared and sent once.

    Attributes:
        x: [rows, ...] in the units of the original model's input; a runner quantizes it with each file's own
            input scale where the file takes integers.
        row_ids: str [rows].
        labels: int64 [rows]; -1 where unknown.
        sha256: For runners: of the rows' bytes in each input format that they were prepared in. The same rows
            are run by release after release; they are hashed once.
    """

    x: NDArray[Any]
    row_ids: NDArray[np.str_]
    labels: NDArray[np.int64]
    sha256: dict[Hashable, str] = field(default_factory=dict, init=False, repr=False, compare=False)


class Runner(ABC):
    """Executes artifacts and returns what they answered.

    Attributes:
        name: Of the kind: "host", "native", "adb".
        shared: Whether all callers would share one device: such a runner is used from one process, for all
            files of a run together. Others work in every worker process.
    """

    name: ClassVar[str]
    shared: ClassVar[bool] = False

    @property
    def label(self) -> str:
        """As a user names it: "host", "native", "adb:SERIAL"."""
        return self.name

    @property
    def moved(self) -> dict[str, int]:
        """Bytes "sent" to and "fetched" from where files run, so far; empty where nothing moves."""
        return {}

    @abstractmethod
    def collect(
        self, artifacts: Sequence[Path], queries: Queries, *, logits: bool = False
    ) -> list[Confidences]:
        """Run every artifact on the same rows; results in the order of the artifacts.

        Args:
            artifacts: Model files.
            queries: The input set.
            logits: The files answer logits; apply the softmax (float64) after dequantization.

        Raises:
            ArtifactError: A file is no model of a known format, or does not take these inputs.
            DataError: Inputs of the wrong shape, NaN, or outputs that are no distribution.
            MissingDependency: The extra that runs a file is not installed.
            RunnerError: The interpreter failed or crashed.
        """

    @abstractmethod
    def identity(self, artifact: Path | None = None) -> dict[str, Any]:
        """What decides the answers of a file: runtime name, version, library hash, kernels, threads. Part of
        every cache key and report.

        Args:
            artifact: The model file; None for the runtime of .tflite files.
        """

    def ready(self, containers: Sequence[str]) -> None:  # noqa: B027 - nothing to try is the ordinary case
        """Try what files of these containers will need, so that it fails now and not after an hour's work.

        Args:
            containers: "tflite", "pte" or "ptl".

        Raises:
            ArtifactError: This runner takes no such files.
            MissingDependency, RunnerError: As `collect`.
        """

    def measure(self, artifacts: Sequence[Path], queries: Queries) -> list[Performance | None]:
        """How fast every artifact answers single rows, and the memory that takes; None where this runner
        cannot tell. Errors as `collect`."""
        return [None] * len(artifacts)

    def close(self) -> None:  # noqa: B027 - nothing to stop is the ordinary case
        """Stop what the runner holds. The next call starts it again."""
