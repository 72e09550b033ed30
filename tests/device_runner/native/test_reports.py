"""What the runner programs answer and report: batches, encodings, odd names; and all of it on arm64."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprivacy.device_runner.building import libc_libraries, missing_tools
from edgeprivacy.device_runner.bundle import bundle_for, this_machine
from edgeprivacy.device_runner.inputs import InputFormat, encode
from edgeprivacy.errors import RunnerError

from ..conftest import save_pte
from .conftest import Program, Tensor, softmax, tflite

X = np.random.default_rng(0).normal(size=(600, 4)).astype(np.float32)


def expected(x: np.ndarray) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum(1, keepdims=True)


def answers(program: Program, columns: int = 4) -> np.ndarray:
    return np.fromfile(program.output(), "<f4").reshape(-1, columns)


def any_batch(folder: Path) -> Path:
    """A softmax that takes any batch."""
    entry, answer = Tensor(b"input", [1, 4], batch="any"), Tensor(b"output", [1, 4], batch="any")
    return softmax(folder / "any.tflite", entry, answer)


@pytest.mark.parametrize("batch", [1, 2, 7, 256, 600, 1000])
def test_every_batch_answers_the_same_bytes(litert: Program, batch: int) -> None:
    path = any_batch(litert.folder)
    alone = litert.run([path], X, batch=1)
    assert alone.report is not None and alone.report["models"][0]["batch"] == 1
    first = litert.output().read_bytes()
    call = litert.run([path], X, batch=batch)
    assert call.report is not None and call.report["models"][0]["batch"] == batch
    assert litert.output().read_bytes() == first
    np.testing.assert_allclose(answers(litert), expected(X), atol=1e-6)


def test_a_fixed_batch_is_filled_up(litert: Program) -> None:
    path = softmax(litert.folder / "four.tflite", Tensor(b"i", [4, 4]), Tensor(b"o", [4, 4]))
    call = litert.run([path], X[:10])
    assert call.report is not None, call.stderr
    told = call.report["models"][0]
    assert (told["batch"], told["batch_resizable"], told["rows"]) == (4, False, 10)
    assert told["output"]["bytes"] == 10 * 16
    np.testing.assert_allclose(answers(litert), expected(X[:10]), atol=1e-6)


def test_a_graph_that_holds_one_row_runs_row_by_row(litert: Program) -> None:
    """Resized, it would answer nonsense or fail."""
    shape = Tensor(b"shape", [2], "INT32", content=np.array([1, 4], np.int32))
    entry, answer = Tensor(b"i", [1, 4], batch="any"), Tensor(b"o", [1, 4])
    path = tflite(litert.folder / "one.tflite", [entry, shape, answer], "RESHAPE", "ReshapeOptions")
    call = litert.run([path], X)
    assert call.report is not None, call.stderr
    assert call.report["models"][0]["batch"] == 1
    np.testing.assert_array_equal(answers(litert), X)


@pytest.mark.parametrize("sizes", [[2, 2], [4], [1, 4]])
def test_answers_are_one_vector_a_row(litert: Program, sizes: list[int]) -> None:
    """As the host says: what has two wide dimensions is no vector of classes."""
    shape = Tensor(b"shape", [1 + len(sizes)], "INT32", content=np.array([-1, *sizes], np.int32))
    entry, answer = Tensor(b"i", [1, 4], batch="any"), Tensor(b"o", [1, *sizes], batch="any")
    path = tflite(litert.folder / "wide.tflite", [entry, shape, answer], "RESHAPE", "ReshapeOptions")
    call = litert.run([path], X)
    if sizes == [2, 2]:
        assert call.status == 13 and call.error is not None and "one vector a row" in call.error["message"]
    else:
        assert call.status == 0, call.stderr
        np.testing.assert_array_equal(answers(litert), X)


@pytest.mark.executorch
def test_a_program_of_a_fixed_batch_is_filled_up(executorch: Program) -> None:
    import torch

    path = save_pte(torch.nn.Softmax(1).eval(), (torch.zeros(4, 4),), executorch.folder / "four.pte")
    call = executorch.run([path], X[:10])
    assert call.report is not None, call.stderr
    told = call.report["models"][0]
    assert (told["batch"], told["batch_resizable"], told["rows"]) == (4, False, 10)
    np.testing.assert_allclose(answers(executorch), expected(X[:10]), atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "zero_point"),
    [("int8", 0), ("int8", 5), ("int8", -128), ("uint8", 0), ("uint8", 255), ("int16", 0)],
)
def test_rows_are_encoded_as_the_host_encodes_them(litert: Program, kind: str, zero_point: int) -> None:
    """Halves to even, ends clipped, bit for bit: told by the hash of what the interpreter got."""
    scale = float(np.float32(0.0371))
    x = np.random.default_rng(1).normal(scale=3, size=(4000, 4)).astype(np.float32)
    x[:500] = np.float32(scale) * (np.arange(2000, dtype=np.float32).reshape(500, 4) - 1000.5)  # halves
    x[500:504] = [[1e30, -1e30, 3e38, -3e38], [0.0, -0.0, 1e-40, -1e-40], [1e9] * 4, [-1e9] * 4]
    tensor = Tensor(b"i", [1, 4], kind.upper(), "any", scale, zero_point)
    output = Tensor(b"o", [1, 4], batch="any")
    path = tflite(litert.folder / "q.tflite", [tensor, output], "DEQUANTIZE", "DequantizeOptions")
    for rows in (x, np.random.default_rng(2).integers(0, 256, (300, 4)).astype(np.uint8)):
        call = litert.run([path], rows)
        assert call.report is not None, call.stderr
        told = call.report["models"][0]
        given = encode(rows, InputFormat(kind, scale, zero_point))
        assert told["encoded_sha256"] == hashlib.sha256(given.tobytes()).hexdigest()
        assert (told["input"]["dtype"], told["input"]["zero_point"]) == (kind, zero_point)
        assert np.float32(told["input"]["scale"]) == np.float32(scale)
        decoded = (given.astype(np.float32) - zero_point) * np.float32(scale)
        np.testing.assert_allclose(answers(litert), decoded, rtol=1e-6)


def test_bytes_go_as_they_are_to_a_file_without_a_scale(litert: Program) -> None:
    entry, answer = Tensor(b"i", [1, 4], "UINT8", "any"), Tensor(b"o", [1, 4], batch="any")
    path = tflite(litert.folder / "bytes.tflite", [entry, answer], "CAST", "CastOptions", inDataType=3)
    x = np.random.default_rng(2).integers(0, 256, (300, 4)).astype(np.uint8)
    call = litert.run([path], x)
    assert call.report is not None, call.stderr
    assert call.report["models"][0]["encoded_sha256"] == hashlib.sha256(x.tobytes()).hexdigest()
    np.testing.assert_array_equal(answers(litert), x)
    assert litert.run([path], x.astype(np.float32)).status == 14


@pytest.mark.parametrize(
    "name",
    [
        b'a"b\\c',
        b"line\nend\ttab\x01\x7f",
        b"\xff\xfe broken",
        b"\xc0\x80 overlong \xed\xa0\x80",
        "\u00e9\u20ac\U0001f600".encode(),
        b"\xf0\x9f\x98",
        b"%s%n%d",
        b"",
        b"x" * 100_000,
    ],
)
def test_names_of_tensors_never_break_a_report(litert: Program, name: bytes) -> None:
    path = softmax(litert.folder / "odd.tflite", Tensor(name, [1, 4]), Tensor(b"o" + name, [1, 4]))
    call = litert.run([path], X[:3])
    assert call.report is not None, call.stderr
    told = call.report["models"][0]
    try:
        text = name.decode()
        assert told["input"]["name"] == text and told["output"]["name"] == "o" + text
    except UnicodeDecodeError:
        assert "\ufffd" in told["input"]["name"]


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), 0.0, -1.0])
def test_scales_that_are_no_numbers(litert: Program, scale: float) -> None:
    """They stand in damaged files: a report stays JSON, and no row is divided by them."""
    entry = Tensor(b"i", [1, 4], "INT8", "any", scale)
    path = softmax(litert.folder / "odd.tflite", entry, Tensor(b"o", [1, 4], "INT8", "any", 1 / 256, -128))
    call = litert.run([path], X[:3])
    assert call.status in (13, 14) and call.report is None
    answer = Tensor(b"o", [1, 4], scale=scale)
    call = litert.run([softmax(litert.folder / "odd.tflite", Tensor(b"i", [1, 4]), answer)], X[:3])
    assert call.status == 13 or call.report is not None


def test_several_models_are_reported_in_their_order(program: Program, tmp_path: Path) -> None:
    check = program.bundle.check
    call = program.run([check] * 5, X, threads=2)
    assert call.report is not None and len(call.report["models"]) == 5
    assert len({program.output(i).read_bytes() for i in range(5)}) == 1
    told = call.report
    assert (told["schema"], told["program"]) == ("edgeprivacy.native/1", program.bundle.program.name)
    assert (told["machine"], told["build"], told["threads"]) == (this_machine(), "linux-glibc", 2)
    assert [each["file"] for each in told["libraries"]] == [path.name for path in program.bundle.libraries]
    assert told["input"] == {
        "sha256": hashlib.sha256(X.tobytes()).hexdigest(),
        "bytes": X.nbytes,
        "rows": 600,
        "type": "float32",
        "row": [4],
    }
    assert 0 < told["memory_before_models_bytes"] <= told["peak_memory_bytes"]
    assert told["seconds"] >= sum(model["seconds"] for model in told["models"]) > 0


def test_the_grids_of_an_int8_file_are_reported(litert: Program) -> None:
    entry, answer = (
        Tensor(b"i", [1, 4], "INT8", "any", 0.125, 3),
        Tensor(b"o", [1, 4], "INT8", "any", 1 / 256, -128),
    )
    call = litert.run([softmax(litert.folder / "int8.tflite", entry, answer)], X)
    assert call.report is not None, call.stderr
    (told,) = call.report["models"]
    found = told["output"]
    assert (found["dtype"], found["scale"], found["zero_point"]) == ("int8", 1 / 256, -128)
    assert found["bytes"] == 600 * 4 == len(litert.output().read_bytes())
    assert (told["input"]["dtype"], told["input"]["scale"], told["input"]["zero_point"]) == ("int8", 0.125, 3)
    steps = np.fromfile(litert.output(), np.int8).reshape(600, 4).astype(np.float32)
    np.testing.assert_allclose((steps + 128) / 256, expected(X), atol=0.05)


def test_latency_is_of_as_many_rows_as_asked(program: Program) -> None:
    call = program.run([program.bundle.check], X[:3], latency_rows=50)
    assert call.report is not None
    told = call.report["models"][0]["latency"]
    assert (told["rows"], told["warm_up"]) == (50, 20)
    assert 0 < told["min_us"] <= told["median_us"] <= told["p95_us"]
    without = program.run([program.bundle.check], X[:3])
    assert without.report is not None and without.report["models"][0]["latency"] is None


# --- arm64 ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def arm64() -> Any:
    """`arm64(runtime, folder)`: a runtime's arm64 program under emulation, or the test is skipped."""
    qemu = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    missing = missing_tools("aarch64")
    if this_machine() == "aarch64" or qemu is None or missing:
        pytest.skip(f"needs an emulator and a cross compiler: {', '.join(missing) or 'qemu-user-static'}")

    def program(runtime: str, folder: Path) -> Program:
        try:
            bundle = bundle_for(runtime, "aarch64", static=True)
        except RunnerError as error:
            pytest.skip(str(error))  # no registry to fetch the arm64 wheel from
        flat = folder / "bundle"
        flat.mkdir()
        for name, path in bundle.files.items():
            shutil.copy2(path, flat / name)
        loader = flat / libc_libraries("aarch64")[0].name
        start = (qemu, str(loader), "--library-path", str(flat))
        program = Program(
            bundle.__class__(**{**bundle.__dict__, "program": flat / bundle.program.name}), folder
        )
        libraries = [str(flat / path.name) for path in bundle.libraries]
        # "max" would take the slowest of XNNPACK's ways.
        return Program(program.bundle, folder, start, {"QEMU_CPU": "cortex-a72"}, {"library": libraries})

    return program


@pytest.mark.executorch
def test_arm64_programs_answer_as_the_host(arm64: Any, torch_zoo: Any, tmp_path: Path) -> None:
    import copy

    import torch

    from edgeprivacy.converters import Request
    from edgeprivacy.converters.executorch.convert import convert
    from edgeprivacy.device_runner import Queries
    from edgeprivacy.device_runner.host import HostRunner

    program = arm64("executorch", tmp_path)
    x = torch_zoo.rows["mlp"][:100]
    formats = ("float32", "dynamic", "int8", "portable-float32", "int8 in 4 bits")
    files = [torch_zoo.files["mlp", format_] for format_ in formats[:-1]]
    files.append(tmp_path / "packed.pte")
    rounded = copy.deepcopy(torch_zoo.modules["mlp"])
    with torch.no_grad():
        for layer in (rounded[0], rounded[2]):
            step = layer.weight.abs().amax(dim=1, keepdim=True) / 7
            layer.weight.copy_((layer.weight / step).round() * step)
    convert(rounded, "int8", x, files[-1], Request("int8", bits=(4, 4)), (64,))
    call = program.run(files, x)
    assert call.report is not None and call.report["machine"] == "aarch64", call.stderr
    host = HostRunner()
    queries = Queries(x, np.arange(100).astype(np.str_), np.full(100, -1, np.int64))
    for number, (format_, theirs) in enumerate(zip(formats, host.collect(files, queries), strict=True)):
        ours = np.fromfile(program.output(number), "<f4").reshape(100, 10)
        # An int8 program quantizes its logits; its softmax is computed in float32 like the others'. The
        # portable kernels are plain loops, whose products and sums arm64 compilers contract.
        bound = 5e-7 if format_ == "portable-float32" else 2e-7
        assert np.abs(ours - theirs.probabilities).max() <= bound, format_
        assert (ours.argmax(1) == theirs.probabilities.argmax(1)).all(), format_
    host.close()


def test_the_arm64_program_for_tflite_is_built_and_starts(arm64: Any, tmp_path: Path) -> None:
    """LiteRT itself reads /proc/cpuinfo, which is the host's under plain emulation: that it runs is shown on
    the test device, which has an arm64 one."""
    program = arm64("litert", tmp_path)
    assert program.call(["--version"]).status == 0
    call = program.run([program.bundle.check], X, library_sha256="0" * 64)
    assert call.status == 12 and call.error is not None and "others than expected" in call.error["message"]
