"""Which interpreter runs which container: one file and one line a runtime."""

from __future__ import annotations

import platform
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from edgeprivacy.confidences import OutputGrid
from edgeprivacy.converters import TensorFacts, container_of

_RUNTIMES = {
    "tflite": "edgeprivacy.device_runner.litert:LitertRuntime",
    "pte": "edgeprivacy.device_runner.executorch:ExecutorchRuntime",
    "ptl": "edgeprivacy.device_runner.lite_interpreter:LiteInterpreterRuntime",
}
"""By container; each is imported when a file of it is met."""


@dataclass(frozen=True)
class ModelFile:
    """A file as far as a runner has to know it, read from its bytes.

    Attributes:
        input: What it takes; None where the format does not say.
        fixed_batch: Rows of every call; 0 where the interpreter finds the batch.
        scale, zero_point: Of an integer output tensor; None for a float one.
        grid: The grid that the output's values lie on, or None.
        own_grid: Whether that is the grid of the output tensor itself, not of the logits before a softmax.
        ends_in: Name of the last computing operator, if known.
    """

    path: Path
    input: TensorFacts | None
    fixed_batch: int = 0
    scale: float | None = None
    zero_point: int | None = None
    grid: OutputGrid | None = None
    own_grid: bool = False
    ends_in: str | None = None


class Runtime(ABC):
    """An interpreter that runs the files of one container in a child process.

    Attributes:
        name: In identities and messages.
        program: The file that child_loop.py loads.
    """

    name: ClassVar[str]
    program: ClassVar[Path]

    @abstractmethod
    def version(self) -> dict[str, Any]:
        """ "version" and "library_sha256" (of the native code), found without importing it.

        Raises:
            MissingDependency: It is not installed.
        """

    @abstractmethod
    def kernels(self, file: Path | None, asked: str) -> str:
        """Name of the kernels that compute, for a file (None: in general) and what the runner was asked."""

    @abstractmethod
    def open(self, path: Path) -> ModelFile:
        """Read what a runner has to know of a file.

        Raises:
            ArtifactError: Damaged, or not one input and one output.
            MissingDependency: A package that reads it is not installed.
        """


def runtime_of(path: Path) -> Runtime:
    """The runtime of a model file, by its bytes. ArtifactError for a file of no known container."""
    return runtime_for(container_of(path))


@cache
def runtime_for(container: str) -> Runtime:
    """The runtime of a container: "tflite", "pte" or "ptl"."""
    module, name = _RUNTIMES[container].split(":")
    made: Runtime = getattr(import_module(module), name)()
    return made


@cache
def machine() -> dict[str, str]:
    """What decides answers beside the runtime: platform, machine and processor."""
    return {"platform": platform.platform(), "machine": platform.machine(), "cpu": _cpu()}


def _cpu() -> str:
    """The processor's name: XNNPACK picks its kernels by it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()
