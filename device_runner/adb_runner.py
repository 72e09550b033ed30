"""The adb runner: a model file in its runtime on an Android device."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import ClassVar

from edgeprivacy.cache import default_cache_folder
from edgeprivacy.device_runner.adb.client import Adb
from edgeprivacy.device_runner.adb.place import AdbPlace
from edgeprivacy.device_runner.program_runner import CHUNK_BYTES, ProgramRunner


class AdbRunner(ProgramRunner):
    """Runs .tflite and .pte files by runner programs on a device; what a cut run had finished is kept.

    Args:
        serial: Of a ready device, as adb names it.
        adb: The client; found if None.
        parts: See `ProgramRunner`; the default cache's if None.
        kernels, threads, chunk_bytes: See `ProgramRunner`.
    """

    name: ClassVar[str] = "adb"

    def __init__(
        self,
        serial: str,
        adb: Adb | None = None,
        parts: Path | None = None,
        kernels: str = "XNNPACK",
        threads: int = 1,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        self.serial = serial
        client = (adb or Adb()).of(serial)
        super().__init__(
            partial(AdbPlace, client), parts or default_cache_folder(), kernels, threads, chunk_bytes
        )

    @property
    def label(self) -> str:
        """See `Runner.label`."""
        return f"adb:{self.serial}"
