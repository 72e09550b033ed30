"""One output folder, one recipe, one process at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgeprivacy.errors import EXIT_RUNTIME, EXIT_USAGE, StorageError, UsageError
from edgeprivacy.folders import output_folder


@contextmanager
def held_by_another(path: Path, identity: str = "one") -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the folder until it is ended."""
    program = (
        "import sys, time; from pathlib import Path; from edgeprivacy.folders import output_folder\n"
        "with output_folder(Path(sys.argv[1]), sys.argv[2]):\n"
        "    print('held', flush=True); time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, str(path), identity]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None and child.stdout.readline() == "held\n"
            yield child
        finally:
            child.kill()


def test_a_new_folder_is_made_and_the_same_recipe_comes_back(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b"
    for _ in range(2):
        with output_folder(out, "one") as folder:
            assert folder == out
            (folder / "result").write_text("x")
    assert (out / "result").read_text() == "x"


def test_a_second_process_is_refused_with_the_number_of_the_first(tmp_path: Path) -> None:
    with held_by_another(tmp_path / "out") as child:
        with pytest.raises(UsageError, match="another process works") as caught:
            with output_folder(tmp_path / "out", "one"):
                pytest.fail("both are in")
        assert caught.value.got == f"process {child.pid}"
        assert caught.value.exit_code == EXIT_USAGE


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    with held_by_another(tmp_path / "out") as child:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert (tmp_path / "out" / ".lock").read_text() == f"{child.pid}\n"
    with output_folder(tmp_path / "out", "one") as folder:
        assert (folder / ".lock").read_text() == f"{os.getpid()}\n"


def test_killed_before_the_folder_was_marked_it_is_taken_over(tmp_path: Path) -> None:
    """Between creating and filling the marker there is a moment, too."""
    for content in ([], [".lock"], [".lock", ".edgeprivacy"]):
        out = tmp_path / str(len(content))
        out.mkdir()
        for name in content:
            (out / name).touch()
        with output_folder(out, "one"):
            pass
        with pytest.raises(UsageError, match="another recipe"), output_folder(out, "two"):
            pass


def test_the_folder_of_another_recipe_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with output_folder(out, "one"):
        (out / "result").write_text("x")
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.name != ".lock"}
    with pytest.raises(UsageError, match="another recipe") as caught, output_folder(out, "two"):
        pytest.fail("let in")
    assert (caught.value.got, caught.value.allowed) == ("one", "two")
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.name != ".lock"} == before
    with output_folder(out, "one"):
        pass


@pytest.mark.parametrize("name", ["thesis.tex", ".hidden"])
def test_a_folder_with_other_files_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError, match="holds other files"), output_folder(tmp_path, "one"):
        pytest.fail("let in")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")
    with pytest.raises(UsageError, match="no folder"), output_folder(tmp_path / "out", "one"):
        pytest.fail("let in")


def test_a_place_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (Path("/proc/edgeprivacy-out"), tmp_path / "file" / "out"):
        with pytest.raises(StorageError) as caught, output_folder(path, "one"):
            pytest.fail("let in")
        assert caught.value.exit_code == EXIT_RUNTIME and "\n" not in str(caught.value)


def test_a_full_disk_is_a_storage_error(full_disk: Path) -> None:
    with (full_disk / "ballast").open("wb") as stream, pytest.raises(OSError):
        stream.write(bytes(100_000))
        stream.flush()
    out = full_disk / "out"
    with pytest.raises(StorageError), output_folder(out, "one"):
        pytest.fail("let in")


def test_after_an_error_inside_the_folder_is_free_again(tmp_path: Path) -> None:
    with pytest.raises(ValueError), output_folder(tmp_path / "out", "one"):
        raise ValueError("inside")
    with output_folder(tmp_path / "out", "one"):
        pass
