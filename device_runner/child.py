"""The interpreter's process as the parent sees it: start, feed, listen, and what its end means."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgeprivacy.errors import ArtifactError, DataError, RunnerError, StorageError

_LOOP = Path(__file__).with_name("child_loop.py")
_ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}


class Child:
    """One interpreter process; it runs job after job until it is stopped or fails.

    Args:
        program: The file that knows the interpreter; see child_loop.py.
        stall_seconds: Without a sign of life for so long, the process is taken for hung and killed.
    """

    def __init__(self, program: Path, stall_seconds: float) -> None:
        self.stall_seconds = stall_seconds
        self.owner = os.getpid()
        self._stderr = tempfile.TemporaryFile()
        # "Die with the parent" means with the thread that started the process: ask only from the main thread.
        main = threading.current_thread() is threading.main_thread()
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(_LOOP), str(program), *([str(os.getpid())] if main else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env={**os.environ, **_ONE_THREAD},
            start_new_session=True,  # Ctrl-C is for the parent, which stops the child itself
        )
        self._selector = selectors.DefaultSelector()
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self._selector.register(self.process.stdout, selectors.EVENT_READ)
        self._unread = b""
        self._files: Sequence[Path] = ()
        self._current = 0
        self._free = -1
        self._reports: list[dict[str, Any]] | None = None

    @property
    def alive(self) -> bool:
        """Whether it can take a job."""
        return self.owner == os.getpid() and self.process.poll() is None

    def start_job(self, job: dict[str, Any], files: Sequence[Path]) -> None:
        """Send a job; `files` name its models in messages."""
        self._files, self._current, self._free, self._reports = files, 0, -1, None
        self._send({"job": job})

    def ready(self, chunk: int) -> None:
        """Say that a chunk of rows lies in its slot."""
        self._send({"ready": chunk})

    def wait_free(self, chunk: int) -> None:
        """Listen until a chunk has been run; errors as `finish`. Chunks become free in order."""
        self._listen(lambda: self._free >= chunk)

    def finish(self) -> list[dict[str, Any]]:
        """Listen until the job is done; one report a model.

        Raises:
            ArtifactError: The interpreter refuses a file, or it was made for another version of it.
            DataError: A file does not take such rows.
            RunnerError: It failed, crashed, was killed or hung.
            StorageError: It could not write its output.
        """
        self._listen(lambda: self._reports is not None)
        assert self._reports is not None
        return self._reports

    def _send(self, message: dict[str, Any]) -> None:
        """Send one line; if the child is gone, raise what it died of."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            self._listen(lambda: False)

    def _listen(self, enough: Callable[[], bool]) -> None:
        last = time.monotonic()
        while not enough():
            self._selector.select(timeout=max(0.0, last + self.stall_seconds - time.monotonic()))
            assert self.process.stdout is not None
            try:
                received = os.read(self.process.stdout.fileno(), 1 << 16)
            except BlockingIOError:
                if time.monotonic() - last < self.stall_seconds:
                    continue
                self.stop()
                raise RunnerError(
                    f"the interpreter gave no sign of life while running {self.file}",
                    got=f"silence of {self.stall_seconds:g} s",
                ) from None
            if not received:
                raise self._ended()
            last = time.monotonic()
            *lines, self._unread = (self._unread + received).split(b"\n")
            for line in lines:
                self._hear(json.loads(line))

    @property
    def file(self) -> Path | str:
        """The file being run."""
        return self._files[self._current] if self._current < len(self._files) else "a file"

    def _hear(self, message: dict[str, Any]) -> None:
        if "run" in message:
            self._current = message["run"]
        elif "free" in message:
            self._free = max(self._free, message["free"])
        elif "done" in message:
            self._reports = message["done"]
        elif "error" in message:
            error = message["error"]
            self.stop()
            text = " ".join(str(error["message"]).split())[:300]
            if error["kind"] == "model":
                raise ArtifactError(f"the interpreter refuses {self.file}", got=text)
            if error["kind"] == "version":
                raise ArtifactError(
                    f"{self.file} was made for another version of the interpreter",
                    got=text,
                    hint="convert the model again with the installed version, or install the file's",
                )
            if error["kind"] == "rows":
                raise DataError(f"the rows do not fit {self.file}", got=text)
            if error["kind"] == "storage":
                raise StorageError("cannot write the interpreter's output", got=text, hint="free some space")
            raise RunnerError(f"the interpreter failed while running {self.file}", got=text)

    def _ended(self) -> RunnerError:
        code = self.process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").splitlines()
        said = [line for line in lines if line.strip() and not line.startswith(("INFO:", "WARNING:"))]
        self.stop()
        if code < 0:
            with suppress(ValueError):
                name = signal.Signals(-code).name
                return RunnerError(
                    f"the interpreter crashed while running {self.file}",
                    got=f"signal {name}" + (f": {said[-1][:200]}" if said else ""),
                    hint="the file may be damaged",
                )
        return RunnerError(
            f"the interpreter's process ended while running {self.file}",
            got=f"exit code {code}" + (f": {said[-1][:200]}" if said else ""),
        )

    def stop(self) -> None:
        """End the process, now. Harmless when it has ended, or is another process's child."""
        if self.owner == os.getpid():
            with suppress(OSError):
                self.process.kill()
            with suppress(Exception):
                self.process.wait(timeout=10)
        self._selector.close()
        for stream in (self.process.stdin, self.process.stdout, self._stderr):
            with suppress(OSError, ValueError):
                if stream is not None:
                    stream.close()
