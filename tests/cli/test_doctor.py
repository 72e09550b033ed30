"""`edgeprivacy doctor` says what is there and what is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packaging.requirements import Requirement

from edgeprivacy import doctor


def test_it_runs_the_interpreter_and_imports_no_framework(
    edgeprivacy: Callable[..., Any], no_frameworks: tuple[str, Path], tmp_path: Path
) -> None:
    pytest.importorskip("ai_edge_litert", reason="needs the extra litert")
    folder, attempts = no_frameworks
    done = edgeprivacy("doctor", "--json", PYTHONPATH=folder, XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert not attempts.exists()
    content = json.loads(done.stdout)
    checks = {check["name"]: check for check in content["checks"]}
    assert checks["interpreter"]["state"] == "ok" and "right answer" in checks["interpreter"]["detail"]
    assert str(tmp_path / "edgeprivacy") in checks["cache"]["detail"]
    extras = {extra["name"]: extra for extra in content["extras"]}
    (litert,) = extras["litert"]["packages"]
    assert litert == {
        "name": "ai-edge-litert",
        "state": "ok",
        "detail": version("ai-edge-litert"),
        "hint": "",
    }
    table = edgeprivacy("doctor", XDG_CACHE_HOME=str(tmp_path))
    assert table.returncode == 0 and "interpreter" in table.stdout


def test_without_the_interpreter_it_exits_4_and_names_the_line(
    edgeprivacy: Callable[..., Any], tmp_path: Path
) -> None:
    # A namespace without the wheel's modules, found before the real one.
    (tmp_path / "ai_edge_litert").mkdir()
    (tmp_path / "ai_edge_litert" / "__init__.py").write_text("raise ImportError('broken')\n")
    done = edgeprivacy("doctor", PYTHONPATH=str(tmp_path), XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 4
    assert "pip install 'edgeprivacy[litert]'" in done.stderr and "Traceback" not in done.stderr


def test_an_unwritable_cache_is_found(edgeprivacy: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = edgeprivacy("doctor", "--json", XDG_CACHE_HOME=str(tmp_path / "file"))
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["cache"]["state"] == "failed" and "XDG_CACHE_HOME" in checks["cache"]["hint"]


@pytest.mark.parametrize(
    ("requirement", "state"),
    [("numpy>=1", "ok"), ("numpy>=1000", "wrong"), ("no-such-package-anywhere", "missing")],
)
def test_versions_are_compared(requirement: str, state: str) -> None:
    assert doctor._package(Requirement(requirement)).state == state


def test_the_model_that_it_writes_is_read_back(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="needs the extra litert")
    from ai_edge_litert.interpreter import Interpreter

    path = tmp_path / "m.tflite"
    path.write_bytes(doctor.softmax_model(3))
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.zeros((1, 3), np.float32))
    interpreter.invoke()
    answer = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(answer, 1 / 3, rtol=1e-6)
