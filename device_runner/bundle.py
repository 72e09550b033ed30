"""What runs a model file without Python: a program, the runtime's libraries, and a file to try them on."""

from __future__ import annotations

import hashlib
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from edgeprivacy.cache import default_cache_folder
from edgeprivacy.device_runner.building import build_program, libc_libraries, runtime_libraries
from edgeprivacy.errors import ArtifactError
from edgeprivacy.files import sha256_file

PROGRAMS = {"tflite": "litert", "pte": "executorch"}
"""The runtime that a container's runner program drives."""


@dataclass(frozen=True)
class Bundle:
    """A runner program with all that it needs on one kind of machine.

    Attributes:
        runtime: "litert" or "executorch".
        machine: "x86_64" or "aarch64".
        libraries: Of the runtime, in the order in which they are hashed.
        libc: The loader and the C and C++ libraries; empty where the machine's own serve.
        check: A model of one softmax, which the program runs before any other.
        library_sha256: Of the one library; of several, the hash of their hex digests in order.
    """

    runtime: str
    machine: str
    program: Path
    libraries: tuple[Path, ...]
    libc: tuple[Path, ...]
    check: Path
    library_sha256: str

    @property
    def files(self) -> dict[str, Path]:
        """All of it by the names that it has on a device; its libraries lie in one folder."""
        named = {path.name: path for path in (*self.libraries, *self.libc)}
        return {**named, self.program.name: self.program, self.check.name: self.check}

    def arguments(self, folder: str) -> list[str]:
        """The program's arguments that name the bundle's files, when they lie in a folder."""
        listed = [part for path in self.libraries for part in ("--library", f"{folder}/{path.name}")]
        return [*listed, "--library-sha256", self.library_sha256, "--check", f"{folder}/{self.check.name}"]


def this_machine() -> str:
    """The name of this machine's processor as compilers write it."""
    return {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())


def program_of(container: str, file: Path) -> str:
    """The runtime whose runner program takes a container.

    Raises:
        ArtifactError: There is none: PyTorch Mobile's lite interpreter is run on the host alone.
    """
    if container not in PROGRAMS:
        raise ArtifactError(
            f"{file} cannot be run by a native runner",
            got=f"a .{container} file",
            allowed=" or ".join(f".{name}" for name in PROGRAMS),
            hint="--device host runs it",
        )
    return PROGRAMS[container]


@cache
def bundle_for(runtime: str, machine: str, static: bool = False) -> Bundle:
    """The bundle of a runtime for a machine: built and fetched on first use, then from the cache.

    Args:
        static: Bring the C and C++ libraries along (for a device that has others).

    Raises:
        MissingDependency: The extra of the runtime is not installed.
        RunnerError: No compiler, or the libraries for this machine cannot be had; says what to do.
    """
    libraries = tuple(runtime_libraries(runtime, machine))
    return Bundle(
        runtime,
        machine,
        build_program(runtime, machine, libraries[0].parent),
        libraries,
        tuple(libc_libraries(machine)) if static else (),
        _check_model(runtime),
        _digest(libraries),
    )


def _digest(libraries: Sequence[Path]) -> str:
    digests = [sha256_file(path) for path in libraries]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _check_model(runtime: str) -> Path:
    """The softmax model of a runtime, as a file in the cache."""
    from edgeprivacy.doctor_models import softmax_model

    container = next(name for name, program in PROGRAMS.items() if program == runtime)
    content = softmax_model(container)
    digest = hashlib.sha256(content).hexdigest()[:16]
    path = default_cache_folder() / "native" / f"softmax-{digest}.{container}"
    if not path.is_file() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as stream:
            stream.write(content)
        Path(stream.name).replace(path)
    return path
