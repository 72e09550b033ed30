"""The host runner on .pte and .ptl files, against their bare runtimes and against what can go wrong."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="needs the extra executorch")
pytest.importorskip("executorch", reason="needs the extra executorch")

from edgeprivacy.device_runner import Queries, host
from edgeprivacy.device_runner.host import HostRunner
from edgeprivacy.doctor_models import softmax_model
from edgeprivacy.errors import ArtifactError, DataError, EdgePrivacyError, RunnerError

from .conftest import PTE_FORMATS, save_pte, save_ptl


@pytest.fixture(scope="module")
def runner() -> Iterator[HostRunner]:
    """One runner for all tests of the module; its children are restarted where a test loses them."""
    result = HostRunner()
    yield result
    result.close()


def queries(x: np.ndarray) -> Queries:
    return Queries(x, np.array([f"r{i}" for i in range(len(x))]), np.arange(len(x), dtype=np.int64) % 3)


def pte_one_by_one(path: Path, x: np.ndarray) -> np.ndarray:
    """The oracle: ExecuTorch's public runtime in this process, one row at a time."""
    import torch
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(path).load_method("forward")
    assert method is not None
    return np.concatenate([method.execute([torch.from_numpy(row[None].copy())])[0].numpy() for row in x])


def ptl_one_by_one(path: Path, x: np.ndarray) -> np.ndarray:
    """The oracle: the lite interpreter in this process, one row at a time, with the phones' int8 kernels."""
    import torch
    from torch.jit.mobile import _load_for_lite_interpreter

    torch.backends.quantized.engine = "qnnpack"
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        module = _load_for_lite_interpreter(str(path))
        return np.concatenate([module(torch.from_numpy(row[None].copy())).numpy() for row in x])


@pytest.mark.parametrize("name", ["mlp", "conv"])
def test_every_pte_format_answers_what_the_runtime_answers_row_by_row(
    torch_zoo: Any, runner: HostRunner, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(host, "_CHUNK_BYTES", 20_000)  # several chunks, the ring goes round, a partial batch
    x = torch_zoo.rows[name]
    formats = PTE_FORMATS[name]
    paths = [torch_zoo.files[name, format_] for format_ in formats]
    for format_, path, result in zip(formats, paths, runner.collect(paths, queries(x)), strict=True):
        assert np.array_equal(result.probabilities, pte_one_by_one(path, x))
        assert result.probabilities.dtype == np.float32 and result.raw is None
        assert result.row_ids[-1] == "r299" and result.labels[4] == 1
        facts = result.facts
        assert 1 < facts["batch"] <= facts["batch_capacity"] and facts["batch_resizable"] is True
        assert facts["rows"] == 300 and facts["threads"] == 1
        assert facts["kernels"] == ("portable" if format_ == "portable-float32" else "XNNPACK")
        assert (result.grid is not None) == (format_ == "int8")


@pytest.mark.parametrize("name", ["mlp", "conv"])
def test_the_grid_of_an_int8_program_is_that_of_its_logits(
    torch_zoo: Any, runner: HostRunner, name: str
) -> None:
    result = runner.collect([torch_zoo.files[name, "int8"]], queries(torch_zoo.rows[name]))[0]
    assert result.grid is not None and result.grid.on == "logits"
    logs = np.log(result.probabilities.astype(np.float64))
    steps = (logs[:, 1:] - logs[:, :1])[(result.probabilities > 1e-6).all(axis=1)] / result.grid.scale
    assert len(steps) > 100 and np.abs(steps).max() > 1
    np.testing.assert_allclose(steps, np.rint(steps), atol=0.01)
    assert result.log_floor == 1e-30  # no half step of a grid of probabilities


@pytest.mark.parametrize(("name", "format_"), [("mlp", "ptl"), ("conv", "ptl"), ("mlp", "ptl-int8")])
def test_a_ptl_answers_what_the_lite_interpreter_answers_row_by_row(
    torch_zoo: Any, runner: HostRunner, name: str, format_: str
) -> None:
    x, path = torch_zoo.rows[name], torch_zoo.files[name, format_]
    result = runner.collect([path], queries(x))[0]
    assert np.array_equal(result.probabilities, ptl_one_by_one(path, x))
    assert result.facts["runtime"] == "torch-lite" and result.facts["kernels"] == "qnnpack"
    assert result.facts["batch"] == 1 and result.facts["threads"] == 1


def test_containers_are_mixed_in_one_call_and_come_back_in_order(runner: HostRunner, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="needs the extra litert")
    x = np.random.default_rng(0).normal(size=(70, 4)).astype(np.float32)
    expected = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    paths = []
    for i, container in enumerate(["pte", "tflite", "ptl", "pte", "tflite"]):
        paths.append(tmp_path / f"{i}.{container}")
        paths[-1].write_bytes(softmax_model(container))
    results = runner.collect(paths, queries(x))
    names = ["executorch", "litert", "torch-lite", "executorch", "litert"]
    assert [result.facts["runtime"] for result in results] == names
    assert [result.facts["model"] for result in results] == [path.name for path in paths]
    assert len({result.facts["inputs_sha256"] for result in results}) == 1
    for path, result in zip(paths, results, strict=True):
        np.testing.assert_allclose(result.probabilities, expected, atol=1e-6)
        assert result.facts["model_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert runner.identity(path).items() <= result.facts.items()


def test_identities_are_those_of_the_files_and_need_no_framework(torch_zoo: Any, tmp_path: Path) -> None:
    code = (
        "import sys, json; from pathlib import Path\n"
        "from edgeprivacy.device_runner import open_runner\n"
        "print(json.dumps([open_runner().identity(Path(path)) for path in sys.argv[1:]]))\n"
        "assert not {'torch', 'executorch', 'tensorflow'} & sys.modules.keys()"
    )
    files = [torch_zoo.files["mlp", f] for f in ("float32", "portable-float32", "ptl")]
    done = subprocess.run([sys.executable, "-c", code, *map(str, files)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    import json

    delegated, portable, lite = json.loads(done.stdout)
    assert {**delegated, "kernels": "portable"} == portable
    assert delegated["kernels"] == "XNNPACK" and delegated["version"].startswith("1.5")
    assert lite["runtime"] == "torch-lite"
    assert len(delegated["library_sha256"]) == len(lite["library_sha256"]) == 64


@pytest.mark.parametrize(
    ("missing", "container", "extra"),
    [("torch", "pte", "executorch"), ("executorch", "pte", "executorch"), ("torch", "ptl", "executorch"),
     ("ai_edge_litert", "tflite", "litert"),
     ("torch", "tflite", ""), ("ai_edge_litert", "pte", ""), ("ai_edge_litert", "ptl", ""),
     ("executorch", "ptl", "")],
)  # fmt: skip
def test_a_file_needs_its_own_runtime_and_no_other(
    tmp_path: Path, missing: str, container: str, extra: str
) -> None:
    if container == "tflite":
        pytest.importorskip("ai_edge_litert", reason="needs the extra litert")
    code = (
        "import sys, importlib.util as u, numpy as np; from pathlib import Path\n"
        "find = u.find_spec; u.find_spec = lambda n, *a: None if n == sys.argv[1] else find(n, *a)\n"
        "from edgeprivacy.device_runner import Queries, open_runner\n"
        "from edgeprivacy.errors import MissingDependency\n"
        "sys.modules[sys.argv[1]] = None\n"
        "q = Queries(np.zeros((1, 4), np.float32), np.array(['r']), np.zeros(1, np.int64))\n"
        "try: print(open_runner().collect([Path(sys.argv[2])], q)[0].probabilities.tolist())\n"
        "except MissingDependency as error: print(error)"
    )
    path = tmp_path / f"m.{container}"
    path.write_bytes(softmax_model(container))
    done = subprocess.run([sys.executable, "-c", code, missing, str(path)], capture_output=True, text=True)
    expected = f"edgeprivacy[{extra}]" if extra else "[[0.25, 0.25, 0.25, 0.25]]"
    assert expected in done.stdout, done.stderr


def test_a_fixed_batch_is_filled_up(torch_zoo: Any, runner: HostRunner, tmp_path: Path) -> None:
    import torch

    module, x = torch_zoo.modules["mlp"], torch_zoo.rows["mlp"]
    path = save_pte(module, (torch.zeros(4, 64),), tmp_path / "fixed.pte")
    result = runner.collect([path], queries(x[:10]))[0]
    assert result.facts["batch"] == 4 and result.facts["batch_resizable"] is False
    with torch.inference_mode():
        np.testing.assert_allclose(result.probabilities, module(torch.from_numpy(x[:10])).numpy(), atol=1e-6)


def test_rows_of_any_type_and_layout_are_the_same_input(torch_zoo: Any, runner: HostRunner) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 12, 12, 3)).astype(np.uint8)
    files = [torch_zoo.files["conv", format_] for format_ in ("float32", "int8", "ptl")]
    for path, expected in zip(files, runner.collect(files, queries(pixels)), strict=True):
        for other in (pixels.astype(np.float64), np.asfortranarray(pixels)):
            again = runner.collect([path], queries(other))[0]
            assert np.array_equal(again.probabilities, expected.probabilities)
            assert again.facts["inputs_sha256"] == expected.facts["inputs_sha256"]


def test_rows_that_do_not_fit_are_named(torch_zoo: Any, runner: HostRunner) -> None:
    with pytest.raises(DataError, match=r"mlp-float32\.pte.*\[63\].*\[64\]"):
        runner.collect([torch_zoo.files["mlp", "float32"]], queries(np.zeros((3, 63), np.float32)))
    with pytest.raises(DataError, match=r"rows do not fit .*mlp-float32\.ptl.*63"):
        runner.collect([torch_zoo.files["mlp", "ptl"]], queries(np.zeros((3, 63), np.float32)))
    x = torch_zoo.rows["mlp"].copy()
    x[217, 3] = np.nan
    for format_ in ("float32", "ptl"):
        with pytest.raises(DataError, match="1 such rows, first: row r217"):
            runner.collect([torch_zoo.files["mlp", format_]], queries(x))


def test_logits_and_nan_are_told_from_probabilities(runner: HostRunner, tmp_path: Path) -> None:
    import torch
    from scipy.special import softmax

    torch.manual_seed(0)
    module, x = torch.nn.Linear(6, 4).eval(), np.random.default_rng(0).random((9, 6), np.float32)
    example = torch.zeros(9, 6)
    probabilities = torch.nn.Sequential(module, torch.nn.Softmax(1)).eval()
    with torch.no_grad():
        expected = softmax(module(torch.from_numpy(x)).numpy().astype(np.float64), axis=1)
    for save, suffix, entry in ((save_pte, "pte", (example,)), (save_ptl, "ptl", example)):
        path = save(module, entry, tmp_path / f"logits.{suffix}")
        with pytest.raises(DataError, match="pass --logits"):
            runner.collect([path], queries(x))
        result = runner.collect([path], queries(x), logits=True)[0]
        np.testing.assert_allclose(result.probabilities, expected, atol=1e-6)
        path = save(probabilities, entry, tmp_path / f"probabilities.{suffix}")
        with pytest.raises(DataError, match="leave out --logits"):
            runner.collect([path], queries(x), logits=True)
        broken = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Softmax(1)).eval()
        torch.nn.init.constant_(broken[0].weight, torch.nan)
        path = save(broken, entry, tmp_path / f"nan.{suffix}")
        with pytest.raises(DataError, match=r"nan\.pt.*answered NaN"):
            runner.collect([path], queries(x))


def test_several_inputs_or_outputs_are_refused(runner: HostRunner, tmp_path: Path) -> None:
    import torch

    class Sum(torch.nn.Module):
        def forward(self, a: Any, b: Any) -> Any:
            return torch.softmax(a + b, 1)

    class Twice(torch.nn.Module):
        def forward(self, a: Any) -> Any:
            return torch.softmax(a, 1), torch.softmax(2 * a, 1)

    x, example = np.ones((3, 3), np.float32), torch.zeros(3, 3)
    with pytest.raises(ArtifactError, match="2 input"):
        runner.collect([save_pte(Sum().eval(), (example, example), tmp_path / "two.pte")], queries(x))
    with pytest.raises(ArtifactError, match="2 output"):
        runner.collect([save_pte(Twice().eval(), (example,), tmp_path / "two.pte")], queries(x))
    with pytest.raises(ArtifactError, match="tuple"):
        runner.collect([save_ptl(Twice().eval(), example, tmp_path / "two.ptl")], queries(x))
    with pytest.raises((ArtifactError, DataError), match=r"two\.ptl"):
        runner.collect([save_ptl(Sum().eval(), (example, example), tmp_path / "two.ptl")], queries(x))


@pytest.mark.parametrize(
    ("format_", "old", "new", "says"),
    [
        ("float32", b"ET12", b"ET13", "ET13"),
        ("float32", b"XN01", b"XN99", "another version of the interpreter.*XN99"),
        (
            "float32",
            b"XnnpackBackend",
            b"XnnpackBackenX",
            "another version.*XnnpackBackenX is not registered",
        ),
        ("portable-float32", b"aten::relu", b"aten::relx", r"another version.*Missing operator.*aten::relx"),
    ],
)
def test_a_program_for_another_runtime_says_what_is_missing(
    torch_zoo: Any, runner: HostRunner, tmp_path: Path, format_: str, old: bytes, new: bytes, says: str
) -> None:
    content = torch_zoo.files["mlp", format_].read_bytes()
    assert old in content
    path = tmp_path / "other.pte"
    path.write_bytes(content.replace(old, new))
    with pytest.raises(ArtifactError, match=says):
        runner.collect([path], queries(torch_zoo.rows["mlp"][:3]))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_end_in_one_error_and_the_parent_lives(
    torch_zoo: Any, runner: HostRunner, tmp_path: Path, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(["mlp", "conv"]))
    format_ = data.draw(st.sampled_from([*PTE_FORMATS[name], *PTE_FORMATS[name], "ptl"]))
    source = torch_zoo.files[name, format_]
    content = bytearray(source.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(8, len(content) - 1)) :]
    else:
        for _ in range(data.draw(st.integers(1, 4))):
            # The tables of a program stand first; behind them are only weights.
            content[data.draw(st.integers(8, min(6000, len(content)) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / f"damaged{source.suffix}"
    path.write_bytes(content)
    try:
        runner.collect([path], queries(torch_zoo.rows[name][:20]))
    except EdgePrivacyError as error:
        # A damaged weight may also make the outputs NaN or no distribution.
        assert isinstance(error, ArtifactError | RunnerError | DataError)
        assert path.name in str(error) and "\n" not in str(error)


def _child(runner: HostRunner) -> int:
    (child,) = runner._children.values()
    return child.process.pid


@pytest.mark.parametrize("format_", ["float32", "ptl"])
@pytest.mark.parametrize(
    ("stop", "says"), [(signal.SIGSEGV, "crashed.*SIGSEGV"), (signal.SIGSTOP, "no sign of life")]
)
def test_a_lost_child_is_a_runner_error_and_the_next_call_works(
    torch_zoo: Any, format_: str, stop: signal.Signals, says: str
) -> None:
    runner = HostRunner(stall_seconds=60)
    path, few = torch_zoo.files["conv", format_], queries(torch_zoo.rows["conv"][:5])
    runner.collect([path], few)  # the process is there, torch is imported
    first = _child(runner)
    runner._children[next(iter(runner._children))].stall_seconds = 1.5
    rows = 1_000_000  # seconds of work, prepared in no time
    work = Queries(
        np.broadcast_to(torch_zoo.rows["conv"][:1], (rows, 12, 12, 3)),
        np.full(rows, "r"),
        np.zeros(rows, int),
    )
    timer = threading.Timer(0.3, os.kill, [first, stop])
    timer.start()
    with pytest.raises(RunnerError, match=says):
        runner.collect([path], work)
    timer.join()
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    assert len(runner.collect([path], few)) == 1 and _child(runner) != first
    runner.close()


def test_a_child_computes_on_one_thread_and_does_not_grow(torch_zoo: Any) -> None:
    runner = HostRunner()
    paths = [torch_zoo.files["conv", format_] for format_ in ("float32", "int8")]
    work = queries(torch_zoo.rows["conv"])

    def status(key: str) -> int:
        lines = Path(f"/proc/{_child(runner)}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(key)).split()[1])

    for _ in range(15):
        runner.collect(paths, work)
    before = status("VmRSS")
    for _ in range(60):
        runner.collect(paths, work)
    assert status("VmRSS") - before < 3_000  # KiB; a file that is kept would be 60 times two programs
    assert status("Threads") <= 2  # the one that computes and the one that listens
    runner.close()


@pytest.mark.parametrize("format_", ["int8", "ptl"])
def test_an_audit_takes_the_file_as_it_takes_a_tflite(torch_zoo: Any, tmp_path: Path, format_: str) -> None:
    from edgeprivacy.auditing import audit

    rng = np.random.default_rng(0)
    sides = [(rng.random((rows, 64), np.float32), rng.integers(0, 10, rows)) for rows in (60, 120)]
    path = torch_zoo.files["mlp", format_]
    result = audit(path, *sides, attacks=["loss"], out=tmp_path / "out", resamples=50)
    assert result.artifacts[0].name == path.stem
    assert (tmp_path / "out" / "report.html").is_file()
