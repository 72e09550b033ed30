"""The installed command, as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Done = subprocess.CompletedProcess[str]
FRAMEWORKS = ("tensorflow", "tf_keras", "torch", "keras")


@pytest.fixture(scope="session")
def program() -> str:
    """The console script beside the interpreter that runs the tests."""
    path = Path(sys.executable).with_name("edgeprivacy")
    if not path.exists():
        pytest.skip("the package is not installed beside this interpreter")
    return str(path)


@pytest.fixture(scope="session")
def edgeprivacy(program: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Done]:
    """Run the command with arguments; `cwd` and environment variables by keyword."""
    home = tmp_path_factory.mktemp("work")

    def call(*arguments: object, cwd: Path = home, **environment: str) -> Done:
        return subprocess.run(
            [program, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            cwd=cwd,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            timeout=120,
        )

    return call


@pytest.fixture
def in_process(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """The same command without a process of its own, for the many cases that differ in words only."""
    from edgeprivacy.cli import main

    def call(*arguments: object, cwd: Path | None = None) -> Done:
        if cwd is not None:
            monkeypatch.chdir(cwd)
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Done([], int(str(stop.value.code)), printed.out, printed.err)

    return call


@pytest.fixture(scope="module")
def no_frameworks(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A PYTHONPATH on which every framework refuses to be imported, and the file where attempts are noted.

    Unlike a patched `sys.modules` it also reaches the processes that the command starts. One a test file:
    what one file's commands tried says nothing of another's, whatever their order.
    """
    folder = tmp_path_factory.mktemp("poison")
    attempts = folder / "attempts"
    for name in FRAMEWORKS:
        (folder / f"{name}.py").write_text(
            f"open({str(attempts)!r}, 'a').write('{name} ')\nraise ImportError('{name} is not here')\n"
        )
    return str(folder), attempts
