"""Facts of files against LiteRT's own view of them and against the Keras weights; and files that lie."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeprivacy.converters import read_facts
from edgeprivacy.converters.tflite.container import TfliteFile
from edgeprivacy.converters.tflite.packing import CorruptTensor, unpack
from edgeprivacy.errors import ArtifactError

FORMATS = ("float32", "float16", "dynamic", "int8", "qat-int8")


def _interpreter(path: Path) -> Any:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    return Interpreter(
        model_path=str(path),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )


@pytest.mark.parametrize("name", ["mlp", "conv"])
@pytest.mark.parametrize("format_", FORMATS)
def test_inputs_and_outputs_are_those_the_interpreter_sees(zoo: Any, name: str, format_: str) -> None:
    path = zoo.files[name, format_]
    facts, interpreter = read_facts(path), _interpreter(path)
    for ours, theirs in (
        (facts.inputs, interpreter.get_input_details()),
        (facts.outputs, interpreter.get_output_details()),
    ):
        assert len(ours) == len(theirs) == 1
        assert ours[0].dtype == np.dtype(theirs[0]["dtype"]).name
        assert list(ours[0].shape) == list(theirs[0]["shape_signature"])
        scale, zero = theirs[0]["quantization"]
        assert ours[0].scale == (scale or None)
        assert ours[0].zero_point == (zero if scale else None)
    operators = [op["op_name"] for op in interpreter._get_ops_details()]
    assert facts.operators == {op: operators.count(op) for op in operators}


@pytest.mark.parametrize("name", ["mlp", "conv"])
@pytest.mark.parametrize("format_", FORMATS)
def test_weights_are_those_the_interpreter_holds(zoo: Any, name: str, format_: str) -> None:
    path = zoo.files[name, format_]
    interpreter = _interpreter(path)
    details = {(d["name"], tuple(d["shape"])): d for d in interpreter.get_tensor_details()}
    facts = read_facts(path)
    assert len(facts.weights) == {"mlp": 3, "conv": 4}[name]
    for weight in facts.weights:
        detail = details[weight.name, weight.shape]
        values = interpreter.get_tensor(detail["index"])
        parameters = detail["quantization_parameters"]
        zeros = parameters["zero_points"] if len(parameters["scales"]) else np.zeros(1)
        assert not zeros.any()  # these are symmetric; another zero point is tested below
        assert weight.dtype == values.dtype.name
        assert weight.scales == len(parameters["scales"])
        assert weight.size == values.size
        assert weight.sparsity == (values.size - np.count_nonzero(values)) / values.size
        assert weight.distinct == len(set(values.ravel().tolist()))
        channels = [
            np.take(values, c, axis=weight.channel_axis) for c in range(values.shape[weight.channel_axis])
        ]
        assert weight.distinct_per_channel == max(len(set(c.ravel().tolist())) for c in channels)


def test_layers_stand_in_order_of_execution_with_the_weights_of_the_model(zoo: Any) -> None:
    dense = [layer.kernel.numpy() for layer in zoo.models["mlp"].layers]
    for format_ in ("float32", "float16"):
        weights = read_facts(zoo.files["mlp", format_]).weights
        assert [w.shape for w in weights] == [k.T.shape for k in dense]
        stored = [k.astype(format_) for k in dense]
        assert [w.distinct for w in weights] == [len(np.unique(k)) for k in stored]
    conv = read_facts(zoo.files["conv", "int8"]).weights
    assert [w.operator for w in conv] == ["CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D", "FULLY_CONNECTED"]
    assert [w.channel_axis for w in conv] == [0, 3, 0, 0]


def test_sparse_storage_tells_the_same_as_dense(zoo: Any, tmp_path: Path) -> None:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(zoo.models["mlp"])
    converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
    path = tmp_path / "sparse.tflite"
    path.write_bytes(converter.convert())
    sparse, dense = read_facts(path), read_facts(zoo.files["mlp", "float32"])
    assert sparse.operators.get("DENSIFY", 0) >= 1
    assert [(w.sparsity, w.distinct, w.distinct_per_channel) for w in sparse.weights] == [
        (w.sparsity, w.distinct, w.distinct_per_channel) for w in dense.weights
    ]


def _export(keras: Any, layers: list[Any], path: Path, integer: str | None = None) -> Path:
    import tensorflow as tf

    model = keras.Sequential([keras.layers.Input((8,)), *layers])
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if integer:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        rows = np.random.default_rng(0).random((32, 8), np.float32)
        converter.representative_dataset = lambda: ([row[None]] for row in rows)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        if integer == "io":
            converter.inference_input_type = converter.inference_output_type = tf.int8
    path.write_bytes(converter.convert())
    return path


def test_the_output_grid_lies_where_the_file_puts_it(keras: Any, zoo: Any, tmp_path: Path) -> None:
    dense = keras.layers.Dense
    assert read_facts(zoo.files["mlp", "float32"]).output_grid is None
    assert read_facts(zoo.files["mlp", "dynamic"]).output_grid is None
    for format_ in ("int8", "qat-int8"):
        grid = read_facts(zoo.files["mlp", format_]).output_grid
        assert grid is not None and (grid.scale, grid.zero_point, grid.on) == (1 / 256, -128, "probabilities")
    behind = read_facts(_export(keras, [dense(4, activation="softmax")], tmp_path / "a", "float io"))
    assert behind.outputs[0].dtype == "float32" and behind.operators["DEQUANTIZE"] == 1
    assert behind.output_grid is not None and behind.output_grid.scale == 1 / 256
    assert behind.output_grid.on == "probabilities"
    sigmoid = read_facts(_export(keras, [dense(1, activation="sigmoid")], tmp_path / "b", "io")).output_grid
    assert sigmoid is not None and sigmoid.on == "probabilities"
    logits = read_facts(_export(keras, [dense(4)], tmp_path / "c", "io"))
    assert logits.output_grid is not None and logits.output_grid.on == "logits"
    assert logits.output_grid.scale == logits.outputs[0].scale


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "an empty file"),
        (b"PK\x03\x04" + b"\0" * 26 + b"metadata.json{}", "a Keras model"),
        (b"PK\x03\x04" + b"\0" * 26 + b"archive/data.pkl", "a PyTorch archive"),
        (b"PK\x03\x04" + b"\0" * 40, "a zip archive"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 40, "an HDF5 file"),
        (b"\x93NUMPY\x01\0", "a NumPy array"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"short", "a file of 5 bytes"),
        (bytes(range(200)), "a file of 200 bytes"),
    ],
)
def test_other_files_are_called_by_their_name(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=says) as error:
        read_facts(path)
    assert "\n" not in str(error.value)


def test_another_container_is_no_tflite_file(tmp_path: Path) -> None:
    path = tmp_path / "model.pte"
    path.write_bytes(b"\x20\0\0\0ET12" + b"\0" * 40)
    with pytest.raises(ArtifactError, match=r"an ExecuTorch program.*'TFL3' at byte 4"):
        TfliteFile(path)


def test_folders_and_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="does not exist"):
        read_facts(tmp_path / "none.tflite")
    with pytest.raises(ArtifactError, match="a folder"):
        read_facts(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(ArtifactError, match="SavedModel"):
        read_facts(tmp_path)


@pytest.mark.parametrize("format_", ["float32", "int8"])
def test_a_file_cut_off_anywhere_is_refused(zoo: Any, tmp_path: Path, format_: str) -> None:
    content = zoo.files["mlp", format_].read_bytes()
    path = tmp_path / "cut.tflite"
    for length in [*range(0, len(content) - 64, 97), *range(len(content) - 64, len(content))]:
        path.write_bytes(content[:length])
        with pytest.raises(ArtifactError):
            read_facts(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_bytes_give_facts_or_one_error(zoo: Any, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(zoo.files["conv", data.draw(st.sampled_from(FORMATS))].read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(8, len(content) - 5))
        value = data.draw(
            st.sampled_from([0, 1, 0x7F, 0xFF, 0x7FFFFFFF, 0xFFFFFFFF]) | st.integers(0, 2**32 - 1)
        )
        content[at : at + 4] = struct.pack("<I", value)
    path = tmp_path / "damaged.tflite"
    path.write_bytes(content)
    try:
        facts = read_facts(path)
    except ArtifactError as error:
        assert "\n" not in str(error)
    else:
        assert facts.size_bytes == len(content)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(noise=st.binary(max_size=300))
def test_noise_behind_the_magic_is_refused(tmp_path: Path, noise: bytes) -> None:
    path = tmp_path / "noise.tflite"
    path.write_bytes(noise[:4].ljust(4, b"\0") + b"TFL3" + noise[4:])
    with pytest.raises(ArtifactError):
        read_facts(path)


def test_names_from_the_file_cannot_steer_a_terminal(zoo: Any, tmp_path: Path) -> None:
    content = zoo.files["mlp", "float32"].read_bytes()
    name = read_facts(zoo.files["mlp", "float32"]).inputs[0].name.encode()
    hostile = b"\x1b[3\n".ljust(len(name), b"x")[: len(name)]
    assert len(name) > 5 and name in content
    path = tmp_path / "escape.tflite"
    path.write_bytes(content.replace(name, hostile))
    shown = read_facts(path).inputs[0].name
    assert "[3" in shown and len(shown) == len(name) and shown.isprintable()


def test_quantized_zeros_are_the_zero_point(zoo: Any, tmp_path: Path) -> None:
    """Shift one layer's zero point in the file: what was zero no longer is, what equals the point now is."""
    from ai_edge_litert import schema_py_generated as schema

    content = bytearray(zoo.files["mlp", "qat-int8"].read_bytes())
    model = schema.Model.GetRootAs(content, 0)
    graph = model.Subgraphs(0)
    first = next(
        graph.Tensors(i)
        for i in range(graph.TensorsLength())
        if list(graph.Tensors(i).ShapeAsNumpy()) == [48, 64]
    )
    values = model.Buffers(first.Buffer()).DataAsNumpy().view(np.int8)
    points = first.Quantization().ZeroPointAsNumpy()
    assert points.tolist() == [0]
    points.setflags(write=True)
    points[0] = 3
    path = tmp_path / "shifted.tflite"
    path.write_bytes(content)
    assert read_facts(path).weights[0].sparsity == (values == 3).mean()


def test_packed_integers_unpack_low_bits_first() -> None:
    packed = np.array([0x1F, 0x80], np.uint8)
    assert unpack(packed, "int4", 4).tolist() == [-1, 1, 0, -8]
    assert unpack(packed, "int4", 3).tolist() == [-1, 1, 0]
    assert unpack(packed, "uint4", 4).tolist() == [15, 1, 0, 8]
    assert unpack(np.array([0b11_10_01_00], np.uint8), "int2", 4).tolist() == [0, 1, -2, -1]
    assert unpack(np.array([0x80, 0x3F], np.uint8), "bfloat16", 1).tolist() == [1.0]
    with pytest.raises(CorruptTensor):
        unpack(packed, "int4", 5)
    with pytest.raises(CorruptTensor):
        unpack(packed, "string", 2)


def _python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )


def test_reading_needs_no_tensorflow(zoo: Any) -> None:
    code = (
        "import sys; sys.modules['tensorflow'] = None; from pathlib import Path\n"
        "from edgeprivacy.converters import read_facts\n"
        "print(len(read_facts(Path(sys.argv[1])).weights), 'tf_keras' in sys.modules)"
    )
    assert _python(code, str(zoo.files["mlp", "int8"])).stdout.split() == ["3", "False"]


def test_a_missing_reader_names_the_extra(zoo: Any) -> None:
    code = (
        "import sys; sys.modules['ai_edge_litert'] = None; from pathlib import Path\n"
        "from edgeprivacy.converters import read_facts\n"
        "from edgeprivacy.errors import MissingDependency\n"
        "try: read_facts(Path(sys.argv[1]))\n"
        "except MissingDependency as error: print(error)"
    )
    assert "edgeprivacy[litert]" in _python(code, str(zoo.files["mlp", "int8"])).stdout
