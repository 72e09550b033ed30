"""`edgeprivacy doctor` says what is there and what is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packaging.requirements import Requirement

from edgeprivacy import doctor, doctor_models
from edgeprivacy.converters import read_facts


def test_it_runs_the_interpreters_and_imports_no_framework_itself(
    edgeprivacy: Callable[..., Any], no_frameworks: tuple[str, Path], tmp_path: Path
) -> None:
    pytest.importorskip("ai_edge_litert", reason="needs the extra litert")
    folder, attempts = no_frameworks
    done = edgeprivacy("doctor", "--json", PYTHONPATH=folder, XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    # A .pte and a .ptl are run by processes of their own, which need torch.
    assert not attempts.exists() or set(attempts.read_text().split()) == {"torch"}
    content = json.loads(done.stdout)
    checks = {check["name"]: check for check in content["checks"]}
    assert checks["runs .tflite"]["state"] == "ok" and "right answer" in checks["runs .tflite"]["detail"]
    for container in ("pte", "ptl"):
        assert checks[f"runs .{container}"]["state"] in ("failed", "missing")
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
    assert table.returncode == 0 and "runs .tflite" in table.stdout


def test_without_the_interpreter_it_exits_4_and_names_the_line(
    edgeprivacy: Callable[..., Any], tmp_path: Path
) -> None:
    # Packages without the wheels' modules, found before the real ones.
    for package in ("ai_edge_litert", "torch"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise ImportError('broken')\n")
    done = edgeprivacy("doctor", PYTHONPATH=str(tmp_path), XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 4
    assert "pip install 'edgeprivacy[litert]'" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("container", ["pte", "ptl"])
def test_a_torch_interpreter_is_tried_on_a_file(container: str) -> None:
    pytest.importorskip("executorch", reason="needs the extra executorch")
    check = doctor.check_interpreter(container)
    assert check.state == "ok" and "right answer" in check.detail


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
    path.write_bytes(doctor_models.softmax_tflite(3))
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.zeros((1, 3), np.float32))
    interpreter.invoke()
    answer = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(answer, 1 / 3, rtol=1e-6)


def test_the_models_that_it_brings_hold_one_softmax(tmp_path: Path) -> None:
    operators = {"tflite": {"SOFTMAX": 1}, "pte": {"xnnpack:Softmax": 1}, "ptl": {"aten::softmax.int": 1}}
    for container, expected in operators.items():
        if container == "tflite" and find_spec("ai_edge_litert") is None:
            continue
        path = tmp_path / f"m.{container}"
        path.write_bytes(doctor_models.softmax_model(container))
        assert read_facts(path).operators == expected
