"""Ctrl-C and `kill -9` at any time, and a second process in the same folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc"),
]
SCRIPT = Path(__file__).parents[1] / "benchmarks" / "kill_resume.py"
PATIENCE = 120.0


@pytest.fixture(scope="module")
def kill_resume() -> ModuleType:
    """The script that kills and resumes; it can be run by hand for more kills."""
    spec = spec_from_file_location("kill_resume", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["kill_resume"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_killed_runs_resume_to_the_same_audit(finished: Any, kill_resume: ModuleType, tmp_path: Path) -> None:
    kills = int(os.environ.get("EDGEPRIVACY_KILLS", "2"))
    seconds = json.loads((finished.out / "audit.json").read_text())["environment"]["seconds"]
    trial = kill_resume.Trial(tmp_path, finished.recipe, finished.out, seconds)
    found = trial.run(kills, seed=1)
    assert found.faults == [] and len(found.kills) == kills, found


def _wait_for(ready: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    began = time.monotonic()
    while not ready():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - began < PATIENCE
        time.sleep(0.05)


@pytest.mark.parametrize("moment", ["loading", "starting", "training", "measuring"])
def test_ctrl_c_is_one_line_and_130_and_leaves_no_process(
    moment: str,
    finished: Any,
    compress: Callable[..., Any],
    kill_resume: ModuleType,
    tmp_path: Path,
    in_process: Callable[..., Any],
) -> None:
    mark, out = f"EDGEPRIVACY_TEST={moment}-{os.getpid()}", tmp_path / "out"
    measuring = moment == "measuring"  # from a full cache
    cache = finished.cache if measuring else tmp_path / "cache"
    name, _, value = mark.partition("=")
    process = compress(
        finished.recipe, "--out", out, cwd=tmp_path, cache=cache, background=True, **{name: value}
    )
    workers: Callable[[], bool] = lambda: len(kill_resume.processes(mark)) >= 4  # noqa: E731
    ready = {
        "loading": lambda: (time.sleep(0.4), True)[1],
        "starting": workers,
        "training": lambda: bool(list((tmp_path / "cache").glob("edgeprivacy/original/*/[!.]*/*"))),
        "measuring": lambda: (out / "confidences").exists(),
    }
    _wait_for(ready[moment], process)
    if moment == "training":
        other = in_process("compress", finished.recipe, "--out", out, cwd=tmp_path)
        assert (other.returncode, len(other.stderr.splitlines())) == (2, 1)
        assert f"error: another process works in {out}; given: process {process.pid}" in other.stderr
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to everybody
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, stderr
    assert stdout == "" and stderr.splitlines()[-1].startswith("interrupted;"), stderr
    assert "Traceback" not in stderr and "Error" not in stderr, stderr
    assert kill_resume.gone(mark) is not None, "a process stayed behind"
    assert not (out / "audit.json").exists() and not list(out.rglob("*.part"))


def test_the_parent_alone_may_be_interrupted(
    finished: Any, compress: Callable[..., Any], kill_resume: ModuleType, tmp_path: Path
) -> None:
    mark, out = f"EDGEPRIVACY_TEST=alone-{os.getpid()}", tmp_path / "out"
    name, _, value = mark.partition("=")
    process = compress(
        finished.recipe,
        *("--out", out, "--quiet"),
        cwd=tmp_path,
        cache=tmp_path / "cache",
        background=True,
        TMPDIR=str(tmp_path),
        **{name: value},
    )
    _wait_for(lambda: bool(list(tmp_path.glob("cache/edgeprivacy/*/*/.*"))), process)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert (process.returncode, stdout) == (130, ""), stderr
    assert stderr.strip() == "interrupted; finished work is kept and the same command resumes"
    assert kill_resume.gone(mark) is not None
    assert not list(tmp_path.glob("edgeprivacy-*")), "rows of the data stayed behind"


@pytest.mark.parametrize("ended", ["by ctrl-c", "by an error"])
def test_more_work_than_workers_ends_quietly(ended: str, kill_resume: ModuleType) -> None:
    """Items that still wait must neither keep the program alive nor make it print a traceback."""
    seconds = "['', *[60] * 12]" if ended == "by an error" else "[60] * 12"
    program = (
        "import time\n"
        "from edgeprivacy.workers import parallel_map\n"
        f"try: parallel_map(time.sleep, {seconds}, 2)\n"
        "except (KeyboardInterrupt, TypeError) as error: print(type(error).__name__)\n"
    )
    mark = f"work-{os.getpid()}-{ended}"
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "EDGEPRIVACY_TEST": mark},
    )
    if ended == "by ctrl-c":
        _wait_for(lambda: len(kill_resume.processes(f"EDGEPRIVACY_TEST={mark}")) >= 4, process)
        time.sleep(0.3)
        os.killpg(process.pid, signal.SIGINT)
    try:
        stdout, stderr = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert (stdout.strip(), stderr) == ("TypeError" if ended == "by an error" else "KeyboardInterrupt", "")
    assert kill_resume.gone(f"EDGEPRIVACY_TEST={mark}") is not None
