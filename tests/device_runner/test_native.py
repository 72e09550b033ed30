"""The native runner programs: every format that is written, bit for bit as the Python interpreters answer."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprivacy.confidences import Confidences
from edgeprivacy.device_runner import Queries
from edgeprivacy.device_runner.building import missing_tools
from edgeprivacy.device_runner.bundle import this_machine
from edgeprivacy.device_runner.host import HostRunner
from edgeprivacy.device_runner.native_runner import NativeRunner
from edgeprivacy.errors import ArtifactError, DataError, RunnerError

pytestmark = pytest.mark.skipif(bool(missing_tools(this_machine())), reason="no CMake or no compiler")

TFLITE = [
    (net, format)
    for net in ("mlp", "conv")
    for format in ("float32", "float16", "dynamic", "int8", "qat-int8")
]
PTE = [
    *(("mlp", format) for format in ("float32", "dynamic", "int8", "portable-float32")),
    *(("conv", format) for format in ("float32", "dynamic", "int8")),
]


def queries(x: np.ndarray) -> Queries:
    return Queries(x, np.arange(len(x)).astype(np.str_), np.full(len(x), -1, dtype=np.int64))


def assert_equal(ours: Confidences, theirs: Confidences) -> None:
    np.testing.assert_array_equal(ours.probabilities, theirs.probabilities)
    assert (ours.raw is None) == (theirs.raw is None)
    if ours.raw is not None and theirs.raw is not None:
        np.testing.assert_array_equal(ours.raw, theirs.raw)
    assert ours.grid == theirs.grid
    for fact in (
        "inputs_sha256",
        "model_sha256",
        "rows",
        "batch",
        "kernels",
        "threads",
        "runtime",
        "version",
    ):
        assert ours.facts[fact] == theirs.facts[fact], fact


@pytest.fixture(scope="module")
def native() -> Any:
    runner = NativeRunner()
    yield runner
    runner.close()


@pytest.fixture(scope="module")
def host() -> Any:
    runner = HostRunner()
    yield runner
    runner.close()


@pytest.mark.parametrize(("net", "format"), TFLITE)
def test_tflite_equals_the_interpreter(
    zoo: Any, native: NativeRunner, host: HostRunner, net: str, format: str
) -> None:
    rows = queries(np.concatenate([zoo.rows[net]] * 3)[:777])  # a last batch that is not full
    file = zoo.files[net, format]
    (ours,), (theirs,) = native.collect([file], rows), host.collect([file], rows)
    assert_equal(ours, theirs)
    assert ours.facts["delegates"] == ["XNNPACK"]


@pytest.mark.parametrize("format", ["float32", "dynamic", "int8"])
def test_builtin_kernels_equal_the_interpreters(zoo: Any, format: str) -> None:
    ours, theirs = NativeRunner(kernels="built-in"), HostRunner(kernels="built-in")
    rows = queries(zoo.rows["conv"][:50])
    for net in ("mlp", "conv"):
        rows = queries(zoo.rows[net][:50])
        file = zoo.files[net, format]
        assert_equal(ours.collect([file], rows)[0], theirs.collect([file], rows)[0])
    ours.close()
    theirs.close()


@pytest.mark.executorch
@pytest.mark.parametrize(("net", "format"), PTE)
def test_pte_equals_the_runtime(
    torch_zoo: Any, native: NativeRunner, host: HostRunner, net: str, format: str
) -> None:
    rows = queries(np.concatenate([torch_zoo.rows[net]] * 3)[:777])
    file = torch_zoo.files[net, format]
    (ours,), (theirs,) = native.collect([file], rows), host.collect([file], rows)
    assert_equal(ours, theirs)


def test_images_in_bytes_go_as_bytes(zoo: Any, native: NativeRunner, host: HostRunner) -> None:
    x = np.random.default_rng(0).integers(0, 256, (300, 12, 12, 3)).astype(np.uint8)
    for format in ("float32", "int8"):
        file = zoo.files["conv", format]
        assert_equal(native.collect([file], queries(x))[0], host.collect([file], queries(x))[0])


def test_many_files_in_chunks_are_each_alone(zoo: Any, torch_zoo: Any, native: NativeRunner) -> None:
    x = zoo.rows["mlp"]
    files = [zoo.files["mlp", format] for format in ("float32", "int8", "dynamic")]
    files.append(torch_zoo.files["mlp", "float32"])
    rows = queries(np.concatenate([x] * 4)[:1100])
    in_chunks = NativeRunner()
    in_chunks.chunk_bytes = 256 * 64 * 4  # 256 rows
    together = in_chunks.collect(files, rows)
    in_chunks.close()
    assert {confidences.facts["chunks"] for confidences in together} == {5}
    for file, confidences in zip(files, together, strict=True):
        alone = native.collect([file], rows)[0]
        np.testing.assert_array_equal(confidences.probabilities, alone.probabilities)
        assert confidences.facts["inputs_sha256"] == alone.facts["inputs_sha256"]


def test_latency_and_memory_are_of_single_rows(zoo: Any, native: NativeRunner) -> None:
    files = [zoo.files["mlp", "float32"], zoo.files["conv", "int8"]]
    for file, shape in zip(files, ("mlp", "conv"), strict=True):
        (found,) = native.measure([file], queries(zoo.rows[shape]))
        assert found is not None and found.rows == 200 and found.warm_up == 20
        assert 0 < found.median_us <= found.p95_us and found.first_us > 0
        assert 0 < found.memory_before_bytes <= found.peak_memory_bytes < 1 << 31


def test_a_ptl_is_run_on_the_host_alone(torch_zoo: Any, native: NativeRunner) -> None:
    with pytest.raises(ArtifactError, match="cannot be run by a native runner"):
        native.collect([torch_zoo.files["mlp", "ptl"]], queries(torch_zoo.rows["mlp"]))


@pytest.mark.parametrize("container", ["tflite", "pte"])
def test_a_truncated_file_is_refused_or_crashes_with_a_word(
    zoo: Any, torch_zoo: Any, native: NativeRunner, tmp_path: Path, container: str
) -> None:
    source = (zoo if container == "tflite" else torch_zoo).files["mlp", "float32"]
    content = source.read_bytes()
    for share in (0.3, 0.7, 0.95):
        path = tmp_path / f"cut.{container}"
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises((ArtifactError, RunnerError)):
            native.collect([path], queries(zoo.rows["mlp"][:10]))


def test_damaged_bytes_never_give_partial_answers(zoo: Any, native: NativeRunner, tmp_path: Path) -> None:
    content = bytearray(zoo.files["mlp", "int8"].read_bytes())
    rng = np.random.default_rng(1)
    for number in range(12):
        damaged = bytearray(content)
        for position in rng.integers(8, len(content), 40):
            damaged[position] = rng.integers(256)
        path = tmp_path / f"{number}.tflite"
        path.write_bytes(damaged)
        try:
            (found,) = native.collect([path], queries(zoo.rows["mlp"][:20]))
        except (ArtifactError, RunnerError, DataError):
            continue
        assert found.probabilities.shape == (20, 10) and np.isfinite(found.probabilities).all()


def test_another_library_is_told(zoo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = NativeRunner()
    bundle = runner.place.bundle("litert")
    other = tmp_path / "libLiteRt.so"
    shutil.copyfile(bundle.libraries[0], other)
    with other.open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\xff")
    monkeypatch.setattr(
        runner.place, "bundle", lambda runtime: dataclasses.replace(bundle, libraries=(other,))
    )
    with pytest.raises(
        RunnerError, match=r"not the one that it should be.*libraries are others than expected"
    ):
        runner.collect([zoo.files["mlp", "float32"]], queries(zoo.rows["mlp"][:5]))


def test_rows_that_do_not_fit(zoo: Any, native: NativeRunner) -> None:
    with pytest.raises(DataError, match="the rows do not fit"):
        native.collect([zoo.files["mlp", "float32"]], queries(np.zeros((4, 63), np.float32)))
    bad = zoo.rows["mlp"][:9].copy()
    bad[3, 0] = np.nan
    with pytest.raises(DataError, match="NaN or infinity"):
        native.collect([zoo.files["mlp", "float32"]], queries(bad))
