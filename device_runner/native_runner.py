"""The native runner: a model file in its runtime's C or C++ library on this machine, without Python."""

from __future__ import annotations

from typing import ClassVar

from edgeprivacy.device_runner.place import LocalPlace
from edgeprivacy.device_runner.program_runner import ProgramRunner


class NativeRunner(ProgramRunner):
    """Runs .tflite and .pte files by the runner programs that also run on devices.

    Args:
        kernels, threads: See `ProgramRunner`.
    """

    name: ClassVar[str] = "native"

    def __init__(self, kernels: str = "XNNPACK", threads: int = 1) -> None:
        # Nothing is sent: one chunk, unless there are very many rows.
        super().__init__(LocalPlace, None, kernels, threads, 1 << 30)
