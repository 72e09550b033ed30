"""Building the runner programs, and fetching libraries for another machine: what is missing is said."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edgeprivacy.device_runner import building
from edgeprivacy.device_runner.building import build_program, libc_libraries, missing_tools, runtime_libraries
from edgeprivacy.device_runner.bundle import this_machine
from edgeprivacy.device_runner.wheels import fetched_wheel
from edgeprivacy.errors import RunnerError, UsageError

needs_compiler = pytest.mark.skipif(bool(missing_tools(this_machine())), reason="no CMake or no compiler")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of the test's own, and no program remembered from another."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    build_program.cache_clear()
    yield tmp_path / "cache"
    build_program.cache_clear()


def litert() -> Path:
    """The folder of this machine's library, or the test is skipped."""
    pytest.importorskip("ai_edge_litert", reason="needs the extra litert")
    return runtime_libraries("litert", this_machine())[0].parent


@pytest.mark.parametrize(
    ("machine", "tools"),
    [
        (this_machine(), ["cmake", "make", "gcc", "g++"]),
        ("aarch64" if this_machine() == "x86_64" else "x86_64", ["gcc-", "g++-", "-linux-gnu"]),
    ],
)
def test_missing_compilers_are_named_with_their_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, tools: list[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    for call in (lambda: build_program("litert", machine, tmp_path), lambda: libc_libraries(machine)):
        with pytest.raises(RunnerError) as caught:
            call()
        assert all(tool in str(caught.value) for tool in tools) and "apt-get install" in str(caught.value)
        assert "x86_64-linux-gnu" not in (caught.value.hint or "")  # Debian writes x86-64


def test_a_cmake_of_pip_is_found_beside_the_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(scripts / "python"))
    assert "cmake" in missing_tools(this_machine())
    (scripts / "cmake").write_text("#!/bin/sh\n")
    (scripts / "cmake").chmod(0o755)
    assert "cmake" not in missing_tools(this_machine())


@needs_compiler
def test_a_program_is_built_once(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build_program("litert", this_machine(), litert())
    assert subprocess.run([first, "--version"], check=True, capture_output=True).stdout
    assert own_cache in first.parents
    build_program.cache_clear()
    monkeypatch.setattr(building, "_cmake", lambda *arguments: pytest.fail("built twice"))
    assert build_program("litert", this_machine(), litert()) == first


@needs_compiler
def test_builds_at_once_give_one_program(own_cache: Path) -> None:
    """Several processes, each with nothing in the cache when it starts."""
    code = (
        "from edgeprivacy.device_runner.building import *\n"
        "from edgeprivacy.device_runner.bundle import this_machine\n"
        "machine = this_machine()\n"
        "print(build_program('litert', machine, runtime_libraries('litert', machine)[0].parent))"
    )
    litert()
    with ThreadPoolExecutor(3) as pool:
        done = [
            pool.submit(subprocess.check_output, [sys.executable, "-c", code], text=True) for _ in range(3)
        ]
        (path,) = {Path(each.result().strip()) for each in done}
    assert subprocess.run([path, "--version"], check=True, capture_output=True).stdout
    assert [each.name for each in path.parents[1].iterdir()] == [
        path.parent.name
    ]  # nothing half-made is left


@needs_compiler
def test_flags_of_the_environment_do_not_reach_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would change its arithmetic under the same name."""
    for name in ("CFLAGS", "CXXFLAGS", "LDFLAGS"):
        monkeypatch.setenv(name, "--no-such-flag")
    for name in ("CC", "CXX"):
        monkeypatch.setenv(name, "/nowhere/compiler")
    assert build_program("litert", this_machine(), litert()).is_file()


@needs_compiler
def test_a_compiler_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.18)\nproject(x C)\nadd_executable(edgeprivacy-litert x.c)\n"
    )
    (sources / "x.c").write_text("int main(void) { return missing; }\n")
    monkeypatch.setattr(building, "SOURCES", sources)
    with pytest.raises(RunnerError, match=r"cannot be built for .*missing.* undeclared") as caught:
        build_program("litert", this_machine(), litert())
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache").rglob("edgeprivacy-litert"))


def test_the_c_library_of_this_machine_is_whole() -> None:
    if missing_tools(this_machine()):
        pytest.skip("no compiler")
    found = libc_libraries(this_machine())
    assert found[0].name.startswith("ld-linux") and {"libc.so.6", "libstdc++.so.6"} <= {p.name for p in found}
    assert all(path.is_file() for path in found)


def test_processors_without_a_runner_are_refused() -> None:
    with pytest.raises((UsageError, RunnerError)):
        libc_libraries("riscv64")


# --- wheels for another machine ---------------------------------------------------------------------------

PLATFORM = "manylinux_2_27_aarch64"


def wheel(folder: Path, content: bytes, recorded: bytes, extra: str = "") -> None:
    """A wheel of a package "edgeprivacy-probe" 1.0 with one library."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(recorded).digest()).rstrip(b"=").decode()
    info = "edgeprivacy_probe-1.0.dist-info"
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"edgeprivacy_probe-1.0-py3-none-{PLATFORM}.whl", "w") as archive:
        archive.writestr("edgeprivacy_probe/libprobe.so", content)
        if extra:
            archive.writestr(extra, b"outside")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: edgeprivacy-probe\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: py3-none-{PLATFORM}\n"
        )
        archive.writestr(f"{info}/RECORD", f"edgeprivacy_probe/libprobe.so,sha256={digest},{len(recorded)}\n")


def fetch(wanted: str = "edgeprivacy_probe/libprobe.so") -> Path:
    (path,) = fetched_wheel("edgeprivacy-probe", "1.0", ["manylinux_2_17_aarch64", PLATFORM], [wanted])
    return path


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No registry; wheels may lie in the folder."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    return tmp_path / "links"


def test_a_wheel_from_a_folder_is_fetched_once_and_kept(offline: Path) -> None:
    wheel(offline, b"library", b"library", extra="../../escaped")
    path = fetch()
    assert path.read_bytes() == b"library"
    assert not list(path.parents[4].rglob("escaped"))  # nothing but what was asked for is unpacked
    next(offline.glob("*.whl")).unlink()
    assert fetch() == path


def test_without_a_registry_the_error_says_what_to_do(offline: Path, own_cache: Path) -> None:
    with pytest.raises(
        RunnerError, match=r"edgeprivacy-probe 1\.0 for .*aarch64 cannot be fetched.*PIP_FIND_LINKS"
    ):
        fetch()
    assert not list(own_cache.rglob("*.so"))


def test_a_damaged_wheel_is_not_kept(offline: Path, own_cache: Path) -> None:
    wheel(offline, b"another", b"library")
    with pytest.raises(RunnerError, match="damaged"):
        fetch()
    wheel(offline, b"library", b"library")
    with pytest.raises(RunnerError, match="does not hold what it should"):
        fetch("edgeprivacy_probe/other.so")
    assert not list(own_cache.rglob("*.so"))
    assert fetch().read_bytes() == b"library"
