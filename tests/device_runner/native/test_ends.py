"""How the runner programs end: every exit code, its one line of error, and never an answer beside one."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ..conftest import save_pte
from .conftest import Call, Program, Tensor, softmax, tflite

X = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)


def assert_failed(call: Call, program: Program, status: int, kind: str, model: int, says: str) -> None:
    """Ended as it should, with one line, and without a report that would call the rest whole."""
    assert call.status == status, call.stderr
    assert call.error is not None and call.report is None
    assert (call.error["kind"], call.error["model"]) == (kind, model)
    assert says in call.error["message"]
    assert not list(program.folder.glob("*.part"))


def test_a_run_that_succeeds(program: Program) -> None:
    (call,) = [program.run([program.bundle.check], X)]
    assert call.status == 0 and call.error is None and call.report is not None
    expected = np.exp(X) / np.exp(X).sum(1, keepdims=True)
    found = np.fromfile(program.output(), "<f4").reshape(10, 4)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    (told,) = call.report["models"]
    assert told["output"]["sha256"] == hashlib.sha256(found.tobytes()).hexdigest()
    assert told["output"]["bytes"] == found.nbytes and told["rows"] == 10
    assert told["encoded_sha256"] == call.report["input"]["sha256"] == hashlib.sha256(X.tobytes()).hexdigest()
    assert told["sha256"] == hashlib.sha256(program.bundle.check.read_bytes()).hexdigest()
    assert 0 <= call.report["check"]["max_abs"] < 1e-6


def test_help_and_version(program: Program) -> None:
    for word in ("--help", "--version"):
        assert program.call([word]).status == 0


@pytest.mark.parametrize("size", [0, 1, 55, 56, 63, 64, 65, 119, 120, 1000, 100_003])
def test_hashes_are_printed_as_sha256sum_prints_them(program: Program, size: int) -> None:
    content = np.random.default_rng(size).bytes(size)
    paths = [program.folder / name for name in ("one", "not there", "t w o")]
    for path in (paths[0], paths[2]):
        path.write_bytes(content)
    call = program.call(["--hash", *map(str, paths)])
    digest = hashlib.sha256(content).hexdigest()
    assert call.status == 10 and call.stdout == f"{digest}  {paths[0]}\n{digest}  {paths[2]}\n"
    assert program.call(["--hash", str(paths[0])]).status == 0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"report": None}, "an option is missing"),
        ({"model": None, "output": None}, "an option is missing"),
        ({"output": None}, "every --model needs an --output"),
        ({"model_sha256": ["0" * 64, "0" * 64]}, "for every --model"),
        ({"rows": "ten"}, "--rows takes a number"),
        ({"rows": -1}, "--rows takes a number"),
        ({"rows": "99999999999999999999999"}, "--rows takes a number"),
        ({"rows": 1 << 24, "row": "2147483648,512"}, "more numbers than"),
        ({"row": "4,"}, "--row takes a number"),
        ({"row": "1,1,1,1,1,1,1,1,1"}, "too many dimensions"),
        ({"threads": 0}, "--threads takes a number"),
        ({"batch": 0}, "--batch takes a number"),
        ({"input_type": "float16"}, "float32 or uint8"),
        ({"kernels": "fast"}, "XNNPACK or built-in"),
        ({"colour": "red"}, "unknown option --colour"),
    ],
)
def test_2_a_command_line_that_says_nothing_sensible(
    program: Program, changes: dict[str, Any], says: str
) -> None:
    call = program.run([program.bundle.check], X, **changes)
    assert_failed(call, program, 2, "usage", -1, says)


def test_2_an_option_without_a_value(program: Program) -> None:
    assert_failed(program.call(["--rows"]), program, 2, "usage", -1, "--rows needs a value")


def test_10_files_that_cannot_be_read(program: Program) -> None:
    check = program.bundle.check
    nowhere, folder, pipe = (program.folder / name for name in ("nowhere", "folder", "pipe"))
    folder.mkdir()
    os.mkfifo(pipe)  # nobody will ever write to it
    for bad in (nowhere, folder, pipe):
        assert_failed(program.run([check], X, input=bad), program, 10, "io", -1, str(bad))
        assert_failed(program.run([check, bad], X), program, 10, "io", 1, str(bad))


def test_10_files_that_are_others(program: Program) -> None:
    check, other = program.bundle.check, "0" * 64
    digest = hashlib.sha256(check.read_bytes()).hexdigest()
    call = program.run([check, check], X, model_sha256=[digest, other])
    assert_failed(call, program, 10, "changed", 1, "another than was sent")
    assert not program.output(1).exists()
    call = program.run([check], X, input_sha256=other)
    assert_failed(call, program, 10, "changed", 0, "another than was sent")
    right = hashlib.sha256(X.tobytes()).hexdigest()
    assert program.run([check], X, input_sha256=right, model_sha256=digest).status == 0


def test_11_a_library_that_cannot_be_loaded(litert: Program) -> None:
    text = litert.folder / "libLiteRt.so"
    text.write_text("no library")
    digest = hashlib.sha256(text.read_bytes()).hexdigest()
    call = litert.run([litert.bundle.check], X, library=text, library_sha256=digest)
    assert_failed(call, litert, 11, "library", -1, "libLiteRt.so")


def test_12_a_library_with_another_hash(program: Program) -> None:
    call = program.run([program.bundle.check], X, library_sha256="0" * 64)
    assert_failed(call, program, 12, "library", -1, "others than expected")


def test_12_a_library_without_the_functions(litert: Program) -> None:
    other = litert.folder / "libm.so.6"
    from edgeprivacy.device_runner.building import libc_libraries

    (source,) = [path for path in libc_libraries(litert.bundle.machine) if path.name == other.name]
    shutil.copyfile(source, other)
    digest = hashlib.sha256(other.read_bytes()).hexdigest()
    call = litert.run([litert.bundle.check], X, library=other, library_sha256=digest)
    assert_failed(call, litert, 12, "library", -1, "of another version")


def test_12_a_library_beside_the_one_that_was_loaded(executorch: Program) -> None:
    first, *rest = executorch.bundle.libraries
    copy = executorch.folder / first.name
    shutil.copyfile(first, copy)  # the same bytes, so the same hash: but the loader took the other file
    call = executorch.run([executorch.bundle.check], X, library=[copy, *rest])
    assert_failed(call, executorch, 12, "library", -1, "not the library that was loaded")


def test_12_a_self_test_that_fails(program: Program) -> None:
    content = program.bundle.check.read_bytes()
    damaged = program.folder / "damaged"
    damaged.write_bytes(content[:80])
    for check in (damaged, program.folder / "nowhere"):
        call = program.run([program.bundle.check], X, check=check)
        assert_failed(call, program, 12, "library", -1, "self-test")


def test_12_a_self_test_that_answers_wrongly(litert: Program) -> None:
    entry, answer = Tensor(b"input", [1, 4]), Tensor(b"output", [1, 4])
    hot = tflite(litert.folder / "hot.tflite", [entry, answer], "SOFTMAX", "SoftmaxOptions", beta=1.001)
    call = litert.run([litert.bundle.check], X, check=hot)
    assert_failed(call, litert, 12, "library", -1, "came out wrong")


def test_13_files_that_are_no_models(program: Program) -> None:
    check = program.bundle.check
    content, rng = check.read_bytes(), np.random.default_rng(1)
    damages = {
        "empty": b"",
        "short": content[:7],
        "head": content[:64],
        "half": content[: len(content) // 2],
        "random": rng.bytes(4096),
        "random behind a right head": content[:8] + rng.bytes(4096),
        "zeros behind a right head": content[:8] + bytes(4096),
    }
    for name, damaged in damages.items():
        path = program.folder / f"{name}.{program.container}"
        path.write_bytes(damaged)
        call = program.run([check, path], X)
        assert_failed(call, program, 13, "model", 1, "")


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_never_end_well_without_an_answer(program: Program, seed: int) -> None:
    """A damaged file may crash an interpreter, or still be a model. What it may not do is to end with 0 and
    no whole answer, or with an answer that the report does not describe."""
    content, rng = program.bundle.check.read_bytes(), np.random.default_rng(seed)
    path = program.folder / f"damaged.{program.container}"
    ends = set()
    for _ in range(25):
        damaged = bytearray(content)
        for position in rng.integers(8, len(content), rng.integers(1, 4)):
            damaged[position] = rng.integers(256)
        path.write_bytes(damaged)
        program.report.unlink(missing_ok=True)
        call = program.run([path], X)
        ends.add(call.status)
        assert (call.status == 0) == (call.report is not None)
        if call.report is not None:
            told = call.report["models"][0]["output"]
            answered = program.output().read_bytes()
            assert told["bytes"] == len(answered) and len(answered) % 10 == 0
            assert told["sha256"] == hashlib.sha256(answered).hexdigest()
        else:
            assert call.status < 0 or (call.status in (13, 14, 15) and call.error is not None)
    assert len(ends) > 1


@pytest.mark.parametrize(
    ("old", "new"), [(b"ET12", b"ET13"), (b"XN01", b"XN99"), (b"XnnpackBackend", b"XnnpackBackenX")]
)
def test_13_programs_for_another_runtime(executorch: Program, old: bytes, new: bytes) -> None:
    content = executorch.bundle.check.read_bytes()
    assert old in content
    path = executorch.folder / "other.pte"
    path.write_bytes(content.replace(old, new))
    assert_failed(executorch.run([path], X), executorch, 13, "version", 0, "")


def test_13_more_dimensions_than_a_tensor_can_have(litert: Program) -> None:
    for rank in (0, 9, 200):
        shape = [1] * (rank - 1) + [4] if rank else []
        path = softmax(litert.folder / "deep.tflite", Tensor(b"i", shape), Tensor(b"o", shape))
        call = litert.run([path], X)
        assert call.status in (13, 14) and call.error is not None and call.report is None, (rank, call)


def test_13_sizes_that_no_model_has(litert: Program) -> None:
    big = 2**31 - 1
    for shape in ([1, 0], [0, 4], [1, -4], [big, 4], [big, big, big, 4], [1, big]):
        path = softmax(litert.folder / "sizes.tflite", Tensor(b"i", shape), Tensor(b"o", shape))
        call = litert.run([path], X)
        assert call.status != 0 and call.report is None, (shape, call)


def test_14_rows_that_do_not_fit(program: Program) -> None:
    check = program.bundle.check
    for wrong in (X[:, :3], X.reshape(10, 2, 2), X.reshape(10, 4, 1)):
        call = program.run([check], np.ascontiguousarray(wrong))
        assert_failed(call, program, 14, "rows", 0, "")
    for rows in (9, 11):
        assert_failed(program.run([check], X, rows=rows), program, 14, "rows", -1, "not")


@pytest.mark.parametrize(
    ("kind", "given"), [("INT8", "float32"), ("UINT8", "float32"), ("FLOAT16", "float32")]
)
def test_14_inputs_that_rows_cannot_be_encoded_for(litert: Program, kind: str, given: str) -> None:
    """A type without a scale, or one that no quantizer writes."""
    entry, answer = Tensor(b"i", [1, 4], kind), Tensor(b"o", [1, 4], kind)
    path = tflite(litert.folder / "other.tflite", [entry, answer], "ABS", "AbsOptions")
    call = litert.run([path], X.astype(given))
    assert call.error is not None and call.error["kind"] in ("rows", "model") and call.status in (13, 14)


def table(path: Path) -> Path:
    """A file that looks rows up in a table of five."""
    entries = Tensor(b"table", [5, 3], content=np.eye(5, 3, dtype=np.float32))
    which, answer = Tensor(b"which", [1, 1], "INT32", "any", scale=1.0), Tensor(b"answer", [1, 1, 3])
    return tflite(path, [entries, which, answer], "GATHER", "GatherOptions")


def test_15_an_interpreter_that_fails_on_a_row(litert: Program) -> None:
    path = table(litert.folder / "table.tflite")
    rows = np.arange(600, dtype=np.float32).reshape(600, 1) % 5
    good = litert.run([path], rows)
    assert good.status == 0, good.stderr
    found = np.fromfile(litert.output(), "<f4").reshape(600, 3)
    np.testing.assert_array_equal(found, np.eye(5, 3)[np.arange(600) % 5])
    rows[598] = 7  # an entry that is not there
    assert_failed(litert.run([path], rows), litert, 15, "runtime", 0, "failed at row")


@pytest.mark.executorch
def test_15_a_program_that_fails_on_a_row(executorch: Program) -> None:
    import torch

    class Table(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.index_select(torch.eye(5), 0, x[:, 0].to(torch.int64))

    path = save_pte(Table().eval(), (torch.zeros(1, 1),), executorch.folder / "table.pte")
    rows = np.arange(20, dtype=np.float32).reshape(20, 1) % 5
    good = executorch.run([path], rows)
    assert good.status == 0, good.stderr
    found = np.fromfile(executorch.output(), "<f4").reshape(20, 5)
    np.testing.assert_array_equal(found, np.eye(5)[np.arange(20) % 5])
    rows[18] = 7
    assert_failed(executorch.run([path], rows), executorch, 15, "runtime", 0, "failed at row 18")


def test_16_a_full_disk(program: Program, full_disk: Path) -> None:
    many = np.tile(X, (1000, 1))  # 156 KiB of answers
    full = full_disk / "output"
    call = program.run([program.bundle.check], many, output=full)
    assert_failed(call, program, 16, "storage", 0, "No space left on device")
    full.unlink()
    for place in (full_disk / "report", full_disk / "deeper" / "report"):
        (full_disk / "filler").write_bytes(bytes(60 << 10))
        while True:  # to the last byte
            try:
                with (full_disk / "filler").open("ab") as stream:
                    stream.write(b"x")
            except OSError:
                break
        call = program.run([program.bundle.check], X, report=place)
        assert_failed(call, program, 16, "storage", -1, "")
        assert not place.exists() and not list(full_disk.glob("*.part"))


def test_16_outputs_that_cannot_be_written(program: Program) -> None:
    for path, says in (
        (Path("/dev/full"), "No space left on device"),
        (program.folder / "nowhere" / "output", "No such file or directory"),
        (program.folder, "Is a directory"),
    ):
        call = program.run([program.bundle.check], X, output=path)
        assert_failed(call, program, 16, "storage", 0, says)


def test_a_report_of_an_earlier_run_does_not_stay(program: Program) -> None:
    assert program.run([program.bundle.check], X).report is not None
    call = program.run([program.folder / "nowhere"], X)
    assert_failed(call, program, 10, "io", 0, "nowhere")


def test_an_error_is_one_line_whatever_a_name_holds(program: Program) -> None:
    name = 'a"b\\c\nedgeprivacy-error: {}\x01\u20ac'
    call = program.run([program.folder / name], X)
    assert call.status == 10 and call.error is not None and name in call.error["message"]
    raw = os.fsencode(program.folder / "bad-") + b"\xff\xc0\xe2\x82"
    assert "\ufffd" in (program.run([Path(os.fsdecode(raw))], X).error or {})["message"]
