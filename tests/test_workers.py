"""Worker processes: order, errors, deaths, and no survivor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgeprivacy.errors import DataError, MissingDependency, RunnerError, StorageError
from edgeprivacy.workers import available_cores, parallel_map

# Functions for workers stand inside the tests: a test module cannot be imported by its name.


def test_results_keep_the_order_of_the_items_and_workers_have_one_thread() -> None:
    def slower_first(item: int) -> tuple[int, int, str | None]:
        time.sleep(0.4 if item == 0 else 0)
        return item, os.getpid(), os.environ.get("OMP_NUM_THREADS")

    results = parallel_map(slower_first, range(6), 2)
    assert [item for item, _, _ in results] == list(range(6))
    assert {threads for _, _, threads in results} == {"1"}
    workers = {process for _, process, _ in results}
    assert len(workers) == 2 and os.getpid() not in workers


def test_a_worker_that_grows_is_no_leak() -> None:
    """One that makes releases of a second backend imports a second framework."""
    pytest.importorskip("psutil", reason="without it nothing watches the workers' memory")

    def grow(item: int) -> int:
        if item == 1:
            sys.held = bytearray(b"x") * (350 << 20)  # type: ignore[attr-defined]
            time.sleep(1.2)
        return os.getpid()

    assert len(set(parallel_map(grow, range(4), 1))) == 1


def test_each_finished_item_is_told_of_once() -> None:
    told: list[int] = []
    assert parallel_map(abs, [-3, -2, -1], 2, told.append) == [3, 2, 1]
    assert sorted(told) == [0, 1, 2]


def test_nothing_to_do_and_one_core() -> None:
    assert parallel_map(abs, [], None) == []
    assert available_cores() >= 1


@pytest.mark.parametrize(
    ("item", "error", "code"),
    [("data", DataError, 2), ("disk", StorageError, 4), ("extra", MissingDependency, 2)],
)
def test_an_error_of_a_worker_comes_through_with_its_exit_code(item, error, code, capfd) -> None:
    def fail(item: str) -> str:
        print("said by a worker", file=sys.stderr)
        if item == "data":
            raise DataError("the rows are wrong", got="3 columns", allowed="2", hint="drop one")
        if item == "disk":
            raise StorageError("disk full")
        if item == "extra":
            raise MissingDependency("training", extra="tflite")
        return item

    with pytest.raises(error) as caught:
        parallel_map(fail, ["fine", item], 2)
    assert caught.value.exit_code == code
    with pytest.raises(error) as here:
        fail(item)
    assert str(caught.value) == str(here.value)
    assert vars(caught.value).keys() >= {"what", "got", "allowed", "hint"}
    assert capfd.readouterr().err.count("said by a worker") == 1  # ours; the workers' is kept away


def test_a_killed_worker_is_one_clear_error() -> None:
    def killed(item: int) -> int:
        if item == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.2)
        return item

    with pytest.raises(RunnerError, match="worker process died") as caught:
        parallel_map(killed, range(3), 2)
    assert caught.value.exit_code == 4 and "\n" not in str(caught.value)
    assert parallel_map(abs, [-5], 1) == [5]  # and the next call works


UNREADABLE = """
from edgeprivacy import workers
from edgeprivacy.errors import RunnerError

class Gone:
    def __call__(self, *arguments): pass
    def __reduce__(self): return exec, ("raise FileNotFoundError('what it was to read')",)

workers._prepare = Gone()
print("before")
try:
    workers.parallel_map(abs, [1], 1)
except RunnerError as error:
    print(error)
"""


def test_a_worker_that_cannot_begin_prints_nothing_among_the_results() -> None:
    done = subprocess.run([sys.executable, "-c", UNREADABLE], capture_output=True, text=True, check=True)
    first, told = done.stdout.splitlines()
    assert first == "before" and told.startswith("a worker process died")
    assert "given: FileNotFoundError: what it was to read;" in told and done.stderr == ""


def _alive(process: int) -> bool:
    try:
        status = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return status != "Z"


PROGRAM = """
import os, sys, time
from edgeprivacy.workers import parallel_map

def work(folder):
    open(f"{folder}/{os.getpid()}", "w").close()
    time.sleep(60)

if __name__ == "__main__":
    parallel_map(work, [sys.argv[1]] * 2, 2)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_parent(tmp_path: Path, number: signal.Signals) -> None:
    folder, program = tmp_path / "pids", tmp_path / "program.py"
    folder.mkdir()
    program.write_text(PROGRAM)
    with subprocess.Popen(
        [sys.executable, str(program), str(folder)], stderr=subprocess.DEVNULL, start_new_session=True
    ) as parent:
        _wait(lambda: len(list(folder.iterdir())) == 2, 30)
        workers = [int(path.name) for path in folder.iterdir()]
        assert all(map(_alive, workers))
        parent.send_signal(number)  # to the parent alone
        parent.wait(60)
    _wait(lambda: not any(map(_alive, workers)), 60)


def _wait(condition, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
