"""The host runner against the bare interpreter, and against everything that can go wrong around it."""

from __future__ import annotations

import hashlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeprivacy.device_runner import Queries, host
from edgeprivacy.device_runner.host import HostRunner
from edgeprivacy.errors import (
    ArtifactError,
    DataError,
    EdgePrivacyError,
    RunnerError,
    StorageError,
    UsageError,
)

FORMATS = ("float32", "float16", "dynamic", "int8", "qat-int8")


@pytest.fixture(scope="module")
def runner() -> Iterator[HostRunner]:
    """One runner for all tests of the module; its child is restarted where a test loses it."""
    pytest.importorskip("ai_edge_litert", reason="needs the extra litert")
    result = HostRunner()
    yield result
    result.close()


def queries(x: np.ndarray) -> Queries:
    return Queries(x, np.array([f"r{i}" for i in range(len(x))]), np.arange(len(x), dtype=np.int64) % 3)


def fresh(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in a new Python."""
    line = [sys.executable, "-c", code, *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def quantized(x: np.ndarray, scale: float, zero_point: int) -> np.ndarray:
    """The definition in Python's own arithmetic: `round` takes halves to even."""
    flat = [float(np.float32(v) / np.float32(scale)) for v in x.ravel()]
    return np.array([min(127, max(-128, round(v) + zero_point)) for v in flat], np.int8).reshape(x.shape)


def one_by_one(path: Path, x: np.ndarray, kernels: str = "XNNPACK") -> np.ndarray:
    """The oracle: the interpreter in this process, one row at a time."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kinds = {"XNNPACK": OpResolverType.AUTO, "built-in": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES}
    interpreter = Interpreter(
        model_path=str(path), num_threads=1, experimental_op_resolver_type=kinds[kernels]
    )
    interpreter.allocate_tensors()
    entry, exit_ = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    if entry["dtype"] == np.int8:
        x = quantized(x, *entry["quantization"])
    results = []
    for row in x:
        interpreter.set_tensor(entry["index"], row[None])
        interpreter.invoke()
        results.append(interpreter.get_tensor(exit_["index"]))
    return np.concatenate(results)


@pytest.mark.parametrize("name", ["mlp", "conv"])
def test_every_format_answers_what_the_interpreter_answers_row_by_row(
    zoo: Any, runner: HostRunner, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(host, "_CHUNK_BYTES", 20_000)  # several chunks, the ring goes round, a partial batch
    x = zoo.rows[name]
    paths = [zoo.files[name, f] for f in FORMATS]
    results = runner.collect(paths, queries(x))
    for path, result in zip(paths, results, strict=True):
        expected = one_by_one(path, x)
        assert result.facts["batch"] > 1 and result.facts["rows"] == len(x) == 300
        if expected.dtype == np.int8:
            assert result.raw is not None and result.raw.dtype == np.int8
            assert np.array_equal(result.raw, expected)
            assert result.grid is not None and result.grid.scale == 1 / 256
            assert np.array_equal(result.probabilities, (expected.astype(np.float32) + 128) / 256)
            assert result.log_floor == 1 / 512
        else:
            assert result.raw is None and result.grid is None
            assert np.array_equal(result.probabilities, expected)
        assert result.probabilities.dtype == np.float32
        assert result.row_ids[-1] == "r299" and result.labels[4] == 1


def test_built_in_kernels_run_row_by_row_and_say_so(zoo: Any) -> None:
    runner = HostRunner(kernels="built-in")
    x = zoo.rows["conv"][:40]
    for format_ in ("float32", "int8"):
        path = zoo.files["conv", format_]
        result = runner.collect([path], queries(x))[0]
        expected = one_by_one(path, x, "built-in")
        got = result.probabilities if result.raw is None else result.raw
        assert np.array_equal(got, expected)
        assert result.facts["kernels"] == "built-in" and result.facts["batch"] == 1
    runner.close()


def test_facts_name_the_run_and_identity_is_its_stable_part(zoo: Any, runner: HostRunner) -> None:
    x, path = zoo.rows["mlp"], zoo.files["mlp", "float32"]
    facts = runner.collect([path], queries(x))[0].facts
    assert facts["model_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert facts["inputs_sha256"] == hashlib.sha256(x.tobytes()).hexdigest()
    identity = runner.identity()
    assert identity.items() <= facts.items()
    assert identity["runtime"] == "litert" and identity["kernels"] == "XNNPACK" and identity["threads"] == 1
    assert len(identity["library_sha256"]) == 64
    assert not {"seconds", "rows_per_second"} & identity.keys()
    assert facts["rows_per_second"] > 0


def test_integer_inputs_are_hashed_as_the_file_takes_them(zoo: Any, runner: HostRunner) -> None:
    from ai_edge_litert.interpreter import Interpreter

    x, path = zoo.rows["mlp"], zoo.files["mlp", "int8"]
    scale, zero = Interpreter(model_path=str(path)).get_input_details()[0]["quantization"]
    facts = runner.collect([path], queries(x))[0].facts
    assert facts["inputs_sha256"] == hashlib.sha256(quantized(x, scale, zero).tobytes()).hexdigest()


def test_pixels_and_floats_of_the_same_value_are_the_same_input(zoo: Any, runner: HostRunner) -> None:
    x = np.random.default_rng(0).integers(0, 12, (50, 64)).astype(np.uint8)
    paths = [zoo.files["mlp", "float32"], zoo.files["mlp", "int8"]]
    pixels, floats = runner.collect(paths, queries(x)), runner.collect(paths, queries(x.astype(np.float64)))
    for a, b in zip(pixels, floats, strict=True):
        assert np.array_equal(a.probabilities, b.probabilities)
        assert a.facts["inputs_sha256"] == b.facts["inputs_sha256"]


def _export(keras: Any, model: Any, path: Path, shape: tuple[int, ...] = (), int8: bool = False) -> Path:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if int8:
        rows = np.random.default_rng(0).random((32, *shape), np.float32)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([row[None]] for row in rows)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    path.write_bytes(converter.convert())
    return path


def test_a_fixed_batch_runs_at_its_own_size(keras: Any, runner: HostRunner, tmp_path: Path) -> None:
    entry = keras.Input((6,), batch_size=4)
    model = keras.Model(entry, keras.layers.Dense(3, activation="softmax")(entry))
    path = _export(keras, model, tmp_path / "fixed.tflite")
    x = np.random.default_rng(0).random((10, 6), np.float32)
    result = runner.collect([path], queries(x))[0]
    assert result.facts["batch"] == 4 and result.facts["batch_resizable"] is False
    padded = np.vstack([x, np.zeros((2, 6), np.float32)])
    expected = np.vstack([model(padded[i : i + 4]).numpy() for i in (0, 4, 8)])[:10]
    np.testing.assert_allclose(result.probabilities, expected, atol=1e-6)


def test_a_batch_that_cannot_be_resized_falls_back_to_single_rows(
    keras: Any, runner: HostRunner, tmp_path: Path
) -> None:
    import tensorflow as tf

    weights = tf.constant(np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec([None, 6], tf.float32)])
    def answer(x: Any) -> Any:
        return tf.nn.softmax(tf.reshape(tf.matmul(x, weights), [1, 3]))  # one row is baked in

    module = tf.Module()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([answer.get_concrete_function()], module)
    path = tmp_path / "baked.tflite"
    path.write_bytes(converter.convert())
    x = np.random.default_rng(1).random((20, 6), np.float32)
    result = runner.collect([path], queries(x))[0]
    assert result.facts["batch"] == 1 and result.facts["batch_resizable"] is True
    z = np.exp(x @ weights.numpy())
    np.testing.assert_allclose(result.probabilities, z / z.sum(1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("int8", [False, True])
def test_one_sigmoid_output_becomes_two_columns(
    keras: Any, runner: HostRunner, tmp_path: Path, int8: bool
) -> None:
    model = keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(1, activation="sigmoid")])
    path = _export(keras, model, tmp_path / "sigmoid.tflite", (6,), int8)
    x = np.random.default_rng(0).random((9, 6), np.float32)
    result = runner.collect([path], queries(x))[0]
    assert result.probabilities.shape == (9, 2)
    np.testing.assert_allclose(result.probabilities[:, 1:], model(x).numpy(), atol=0.02 if int8 else 1e-6)
    np.testing.assert_allclose(result.probabilities.sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("int8", [False, True])
def test_logits_are_refused_unless_announced(
    keras: Any, runner: HostRunner, tmp_path: Path, int8: bool
) -> None:
    from scipy.special import softmax

    model = keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(4)])
    path = _export(keras, model, tmp_path / "logits.tflite", (6,), int8)
    x = np.random.default_rng(0).random((9, 6), np.float32)
    with pytest.raises(DataError, match="pass --logits"):
        runner.collect([path], queries(x))
    result = runner.collect([path], queries(x), logits=True)[0]
    expected = softmax(model(x).numpy().astype(np.float64), axis=1)
    np.testing.assert_allclose(result.probabilities, expected, atol=0.03 if int8 else 1e-6)
    assert (result.grid is not None and result.grid.on == "logits") if int8 else result.grid is None


def test_logits_claimed_of_a_softmax_are_an_error(zoo: Any, runner: HostRunner) -> None:
    for format_ in ("float32", "int8"):
        with pytest.raises(DataError, match="ends in SOFTMAX"):
            runner.collect([zoo.files["mlp", format_]], queries(zoo.rows["mlp"][:5]), logits=True)


def test_independent_sigmoids_are_not_called_logits(keras: Any, runner: HostRunner, tmp_path: Path) -> None:
    model = keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(4, activation="sigmoid")])
    path = _export(keras, model, tmp_path / "multi.tflite")
    with pytest.raises(DataError, match="multi-label"):
        runner.collect([path], queries(np.ones((3, 6), np.float32)))


def test_rows_that_do_not_fit_are_named(zoo: Any, runner: HostRunner) -> None:
    path = zoo.files["mlp", "float32"]
    with pytest.raises(DataError, match=r"\[63\].*\[64\]"):
        runner.collect([path], queries(np.zeros((3, 63), np.float32)))
    with pytest.raises(DataError, match="no rows"):
        runner.collect([path], queries(np.zeros((0, 64), np.float32)))
    for bad in (np.nan, np.inf):
        x = zoo.rows["mlp"].copy()
        x[217, 3] = bad
        with pytest.raises(DataError, match="1 such rows, first: row r217"):
            runner.collect([path], queries(x))
    with pytest.raises(DataError, match="1 such rows"):
        runner.collect([path], queries(np.full((1, 64), 1e300)))


def test_models_with_two_inputs_are_refused(keras: Any, runner: HostRunner, tmp_path: Path) -> None:
    a, b = keras.Input((3,)), keras.Input((3,))
    path = _export(keras, keras.Model([a, b], keras.layers.Add()([a, b])), tmp_path / "two.tflite")
    with pytest.raises(ArtifactError, match="2 input tensors"):
        runner.collect([path], queries(np.ones((3, 3), np.float32)))


def test_a_file_with_foreign_operators_is_an_artifact_error(runner: HostRunner, tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow", reason="needs the extra tflite")

    @tf.function(input_signature=[tf.TensorSpec([1, 4], tf.float32)])
    def answer(x: Any) -> Any:
        return tf.nn.softmax(tf.math.igamma(x, x))

    converter = tf.lite.TFLiteConverter.from_concrete_functions([answer.get_concrete_function()], tf.Module())
    converter.allow_custom_ops = True
    path = tmp_path / "custom.tflite"
    path.write_bytes(converter.convert())
    with pytest.raises(ArtifactError, match=r"custom\.tflite.*Igamma"):
        runner.collect([path], queries(np.ones((3, 4), np.float32)))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_end_in_one_error_and_the_parent_lives(
    zoo: Any, runner: HostRunner, tmp_path: Path, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(["mlp", "conv"]))
    content = bytearray(zoo.files[name, data.draw(st.sampled_from(FORMATS))].read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(8, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.tflite"
    path.write_bytes(content)
    try:
        runner.collect([path], queries(zoo.rows[name][:20]))
    except EdgePrivacyError as error:
        # A damaged weight may also make the outputs NaN or no distribution.
        assert isinstance(error, ArtifactError | RunnerError | DataError)
        assert "damaged.tflite" in str(error)


def _child(runner: HostRunner) -> int:
    (child,) = runner._children.values()
    return child.process.pid


def _while_running(runner: HostRunner, zoo: Any, act: Any) -> RunnerError:
    """Run something long, do `act(pid)` to the child in the middle of it, and return what the caller sees."""
    path, rows = zoo.files["conv", "float32"], 1_000_000  # seconds of work, prepared in no time
    runner.collect([path], queries(zoo.rows["conv"][:5]))
    x = np.broadcast_to(zoo.rows["conv"][:1], (rows, 12, 12, 3))
    work = Queries(x, np.full(rows, "r"), np.zeros(rows, np.int64))
    timer = threading.Timer(0.3, act, [_child(runner)])
    timer.start()
    with pytest.raises(RunnerError) as caught:
        runner.collect([path], work)
    timer.join()
    return caught.value


def test_a_killed_child_is_a_runner_error_and_the_next_call_works(zoo: Any) -> None:
    runner = HostRunner()
    error = _while_running(runner, zoo, lambda pid: os.kill(pid, signal.SIGSEGV))
    assert "conv-float32.tflite" in str(error) and "SIGSEGV" in str(error) and error.exit_code == 4
    assert len(runner.collect([zoo.files["mlp", "int8"]], queries(zoo.rows["mlp"]))) == 1
    os.kill(_child(runner), signal.SIGKILL)  # also when it dies between two calls
    time.sleep(0.1)
    assert len(runner.collect([zoo.files["mlp", "int8"]], queries(zoo.rows["mlp"]))) == 1
    runner.close()


def test_a_hung_child_is_given_up(zoo: Any) -> None:
    runner = HostRunner(stall_seconds=1.5)
    pids = []

    def stop(pid: int) -> None:
        pids.append(pid)
        os.kill(pid, signal.SIGSTOP)

    assert "no sign of life" in str(_while_running(runner, zoo, stop))
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_the_child_dies_with_its_parent(zoo: Any) -> None:
    code = (
        "import sys, numpy as np, os, signal; from pathlib import Path\n"
        "from edgeprivacy.device_runner import Queries, open_runner\n"
        "r = open_runner(); x = np.zeros((5, 64), np.float32)\n"
        "r.collect([Path(sys.argv[1])], Queries(x, np.arange(5).astype(str), np.zeros(5, np.int64)))\n"
        "print(*[c.process.pid for c in r._children.values()], 'tensorflow' in sys.modules, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(zoo.files["mlp", "float32"])],
        capture_output=True,
        text=True,
        check=False,
    )
    pid, tensorflow = done.stdout.split()
    assert done.returncode == -signal.SIGKILL and tensorflow == "False"
    for _ in range(100):
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return  # dead; nobody has collected it
        time.sleep(0.05)
    pytest.fail("the child outlived its parent")


def test_nothing_is_left_behind_and_the_dead_are_swept(
    zoo: Any, runner: HostRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    abandoned = tmp_path / "edgeprivacy-run-dead"
    abandoned.mkdir()
    (abandoned / "lock").touch()
    (abandoned / "ring").write_bytes(b"x")
    runner.collect([zoo.files["mlp", "float32"]], queries(zoo.rows["mlp"]))
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(StorageError, match="TMPDIR"):
        runner.collect([zoo.files["mlp", "float32"]], queries(zoo.rows["mlp"]))


@pytest.mark.parametrize(
    ("limit", "rows", "says"),
    [(1_000_000, 20_000, "temporary files"), (13_000_000, 1_500_000, "interpreter's output")],
)
def test_a_full_disk_is_a_storage_error(zoo: Any, limit: int, rows: int, says: str) -> None:
    """A limit on file size is what a full disk looks like. The ring takes 12 MiB, a row's output 10 bytes."""
    code = (
        "import resource, sys, numpy as np; from pathlib import Path\n"
        "from edgeprivacy.device_runner import Queries, open_runner\n"
        "from edgeprivacy.errors import StorageError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)\n"
        "x = np.broadcast_to(np.float32(0), (int(sys.argv[3]), 64))\n"
        "try: open_runner().collect([Path(sys.argv[1])],\n"
        "    Queries(x, np.full(len(x), 'r'), np.zeros(len(x), np.int64)))\n"
        "except StorageError as error: print('storage:', error)"
    )
    arguments = [str(zoo.files["mlp", "int8"]), str(limit), str(rows)]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith("storage:") and says in done.stdout, done.stderr


def test_runners_travel_to_workers_without_their_child(zoo: Any, runner: HostRunner) -> None:
    runner.collect([zoo.files["mlp", "float32"]], queries(zoo.rows["mlp"][:3]))
    copy = pickle.loads(pickle.dumps(runner))  # noqa: S301 - what a worker pool does
    assert copy.identity() == runner.identity() and not copy._children


def test_unknown_settings_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="XNNPACK, built-in"):
        HostRunner(kernels="gpu")  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        HostRunner(threads=0)


def test_a_missing_interpreter_names_the_extra(zoo: Any) -> None:
    code = (
        "import sys, importlib.util as u, numpy as np; from pathlib import Path\n"
        "find = u.find_spec; u.find_spec = lambda n, *a: None if n == 'ai_edge_litert' else find(n, *a)\n"
        "from edgeprivacy.device_runner import Queries, open_runner\n"
        "from edgeprivacy.errors import MissingDependency\n"
        "try: open_runner().collect([Path(sys.argv[1])], None)\n"
        "except MissingDependency as error: print(error)"
    )
    path = str(zoo.files["mlp", "float32"])
    done = fresh(code, path)
    assert "edgeprivacy[litert]" in done.stdout, done.stderr
