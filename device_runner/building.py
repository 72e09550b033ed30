"""Builds the runner programs from their sources, and finds the libraries that they run with.

Built once for each set of sources, compiler and runtime: the cache's folder is named by their hash.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from edgeprivacy.cache import Cache, default_cache_folder
from edgeprivacy.device_runner.wheels import fetched_wheel
from edgeprivacy.errors import MissingDependency, RunnerError, UsageError
from edgeprivacy.files import sha256_file

SOURCES = Path(__file__).with_name("native")
RUNTIMES = {
    "litert": ("ai-edge-litert", "ai_edge_litert", "litert"),
    "executorch": ("executorch", "executorch", "executorch"),
}
"""Runtime to its package, the package's folder, and the extra that brings it."""
LIBRARIES = {
    "litert": ("libLiteRt.so",),
    "executorch": (
        "lib/libexecutorch.so",
        "lib/libexecutorch_threadpool.so",
        "lib/libexecutorch_kernels_optimized.so",
        "lib/libexecutorch_kernels_quantized.so",
        "lib/libexecutorch_backend_xnnpack.so",
    ),
}
"""What a runner loads, below the package's folder."""
_PLATFORMS = {"litert": ("manylinux_2_27", "manylinux_2_34"), "executorch": ("manylinux_2_28",)}
_LOADERS = {"aarch64": "ld-linux-aarch64.so.1", "x86_64": "ld-linux-x86-64.so.2"}
_LIBC = ("libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "libgcc_s.so.1", "libstdc++.so.6")
_BUILD_SECONDS = 600
_THIS_MACHINE = {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())


def _tool(name: str) -> str | None:
    """Where a program is; pip puts its own beside the interpreter, which need not be on the path."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


def _compilers(machine: str) -> dict[str, str]:
    """C and C++ compilers for a machine, each with the package that brings it (Debian's name)."""
    if machine == _THIS_MACHINE:
        return {"cc": "gcc", "c++": "g++"}
    tools = f"{machine}-linux-gnu"
    packages = tools.replace("_", "-")
    return {f"{tools}-gcc": f"gcc-{packages}", f"{tools}-g++": f"g++-{packages}"}


def missing_tools(machine: str) -> dict[str, str]:
    """Programs that a build for a machine needs and that are not here, each with the package that brings it
    (Debian's name)."""
    wanted = {"cmake": "cmake", "make": "make", **_compilers(machine)}
    return {tool: package for tool, package in wanted.items() if _tool(tool) is None}


def _how_to_get(missing: dict[str, str]) -> str:
    hint = f"on Debian and Ubuntu: apt-get install {' '.join(missing.values())}"
    return f"{hint} (or: pip install cmake)" if set(missing) == {"cmake"} else hint


@cache
def build_program(runtime: str, machine: str, libraries: Path) -> Path:
    """A runner program, built now or earlier.

    Args:
        runtime: "litert" or "executorch".
        machine: "x86_64" or "aarch64".
        libraries: Folder of the runtime's libraries for that machine.

    Raises:
        RunnerError: A compiler is missing, or fails; says what to install.
        MissingDependency: The runtime is not installed.
    """
    missing = missing_tools(machine)
    if missing:
        raise RunnerError(
            f"a runner program for {machine} cannot be built",
            got=f"not found: {', '.join(missing)}",
            hint=_how_to_get(missing),
        )
    built = Cache(default_cache_folder())
    key = built.key(
        "native",
        {
            "sources": {
                str(path.relative_to(SOURCES)): sha256_file(path)
                for path in sorted(SOURCES.rglob("*"))
                if path.is_file() and path.suffix != ".md"
            },
            "runtime": [runtime, _version(runtime)],
            "machine": machine,
            "compiler": _compiler(machine),
            "libraries": [sha256_file(libraries / Path(name).name) for name in LIBRARIES[runtime]],
        },
    )
    name = f"edgeprivacy-{runtime}"

    def make(folder: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="edgeprivacy-build-") as work:
            _cmake(runtime, machine, libraries, Path(work))
            shutil.copy2(Path(work) / name, folder / name)

    return built.entry("native", key, make)[0] / name


def _cmake(runtime: str, machine: str, libraries: Path, work: Path) -> None:
    options = [f"-DEDGEPRIVACY_{name.upper()}={'ON' if name == runtime else 'OFF'}" for name in RUNTIMES]
    if runtime == "executorch":
        options += [f"-DEXECUTORCH_ROOT={_folder(runtime)}", f"-DEXECUTORCH_LIBRARIES_FOLDER={libraries}"]
    if machine != _THIS_MACHINE:
        toolchain = SOURCES / "toolchains" / f"{machine}-linux-gnu.cmake"
        if not toolchain.is_file():
            raise RunnerError(f"there is no tool chain for {machine} here", allowed=_THIS_MACHINE)
        options.append(f"-DCMAKE_TOOLCHAIN_FILE={toolchain}")
    # Flags and compilers of the environment would make another program than the cache's key says.
    foreign = ("CC", "CXX", "CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "CMAKE_TOOLCHAIN_FILE")
    environment = {name: value for name, value in os.environ.items() if name not in foreign}
    cmake = _tool("cmake") or "cmake"
    for command in (
        [cmake, "-G", "Unix Makefiles", "-S", str(SOURCES), "-B", str(work), *options],
        [cmake, "--build", str(work), "--target", f"edgeprivacy-{runtime}"],
    ):
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=_BUILD_SECONDS,
                check=False,
                env=environment,
            )
        except subprocess.TimeoutExpired:
            raise RunnerError(f"building edgeprivacy-{runtime} took too long", got=_BUILD_SECONDS) from None
        if done.returncode:
            wrong = [line for line in done.stdout.splitlines() if "rror" in line] or done.stdout.splitlines()
            raise RunnerError(
                f"edgeprivacy-{runtime} cannot be built for {machine}",
                got="; ".join(line.strip() for line in wrong[:4])[:600],
            )


def _compiler(machine: str) -> str:
    _, program = _compilers(machine)
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return f"{program} {done.stdout.splitlines()[0] if done.stdout else done.stderr}"


def _version(runtime: str) -> str:
    package, _, extra = RUNTIMES[runtime]
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        raise MissingDependency(f"running files by {package}", extra=extra) from None


def _folder(runtime: str) -> Path:
    _, module, extra = RUNTIMES[runtime]
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependency(f"running files by {module}", extra=extra)
    return Path(next(iter(spec.submodule_search_locations)))


def runtime_libraries(runtime: str, machine: str) -> tuple[Path, ...]:
    """The libraries of a runtime for a machine, of the version that is installed here.

    For another machine than this one they come from the same version's wheel for it, fetched by pip once.

    Raises:
        MissingDependency: The runtime is not installed.
        RunnerError: The wheel cannot be had.
    """
    version = _version(runtime)
    package, module, _ = RUNTIMES[runtime]
    if machine == _THIS_MACHINE:
        found = tuple(_folder(runtime) / name for name in LIBRARIES[runtime])
        if lost := [path for path in found if not path.is_file()]:
            raise RunnerError(f"the installed {package} {version} has no {lost[0].name}")
        return found
    tags = [f"{tag}_{machine}" for tag in _PLATFORMS[runtime]]
    wanted = [f"{module}/{name}" for name in LIBRARIES[runtime]]
    return fetched_wheel(package, version, tags, wanted)


def libc_libraries(machine: str) -> tuple[Path, ...]:
    """The loader and the C and C++ libraries that the compiler for a machine links with.

    Raises:
        RunnerError: The compiler is not there, or does not know them.
    """
    missing = missing_tools(machine)
    if missing:
        raise RunnerError(
            f"the C library for {machine} is not here",
            hint=_how_to_get(missing),
        )
    if machine not in _LOADERS:
        raise UsageError("no runner for this processor", got=machine, allowed=", ".join(_LOADERS))
    _, program = _compilers(machine)
    return tuple(_asked(program, name) for name in (_LOADERS[machine], *_LIBC))


def _asked(program: str, name: str) -> Path:
    command: Sequence[str] = [program, f"-print-file-name={name}"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"}
    )
    path = Path(done.stdout.strip())
    if not path.is_absolute() or not path.is_file():
        raise RunnerError(f"{program} does not know {name}", got=done.stdout.strip() or done.stderr.strip())
    return path
