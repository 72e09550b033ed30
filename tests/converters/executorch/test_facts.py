"""Facts of .pte files against ExecuTorch's own reader, and against the weights of the torch models."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprivacy.converters import container_of, read_facts
from edgeprivacy.converters.executorch import container, xnnpack
from edgeprivacy.errors import ArtifactError

pytest.importorskip("executorch", reason="needs the extra executorch")
pytest.importorskip("torch", reason="needs the extra executorch")
pytestmark = pytest.mark.executorch
FORMATS = ("float32", "dynamic", "int8", "qat-int8", "portable-float32")
CASES = [(name, format_) for name in ("mlp", "conv") for format_ in FORMATS]


def _oracle(path: Path, folder: Path) -> tuple[Any, list[dict[str, Any]]]:
    """The program as ExecuTorch reads it, and its XNNPACK graphs as flatc prints them."""
    import executorch.backends.xnnpack.serialization as serialization
    from executorch.exir._serialize._flatbuffer import _flatc_decompile
    from executorch.exir._serialize._program import deserialize_pte_binary

    read = deserialize_pte_binary(path.read_bytes())
    graphs = []
    schema = Path(next(iter(serialization.__path__))) / "schema.fbs"
    for delegate in read.program.execution_plan[0].delegates:
        blob = bytes(read.program.backend_delegate_data[delegate.processed.index].data)
        offset, size = struct.unpack("<II", blob[10:18])
        (folder / "graph.bin").write_bytes(blob[offset : offset + size])
        _flatc_decompile(str(folder), str(schema), str(folder / "graph.bin"))
        text = re.sub(r": (-?)(inf|nan)\b", r': "\1\2"', (folder / "graph.json").read_text())
        graphs.append(json.loads(text))
    return read, graphs


@pytest.mark.parametrize(("name", "format_"), CASES)
def test_the_file_holds_what_executorch_reads(
    torch_zoo: Any, tmp_path: Path, name: str, format_: str
) -> None:
    path = torch_zoo.files[name, format_]
    read, graphs = _oracle(path, tmp_path)
    plan, facts = read.program.execution_plan[0], read_facts(path)
    names = [f"{op.name}.{op.overload}" if op.overload else op.name for op in plan.operators]
    called: list[str] = []
    for instruction in plan.chains[0].instructions:
        call = instruction.instr_args
        if hasattr(call, "op_index"):
            called.append(names[call.op_index])
        elif hasattr(call, "delegate_index"):
            nodes = graphs[call.delegate_index]["xnodes"]
            called += ["xnnpack:" + node["xnode_union_type"].removeprefix("XNN") for node in nodes]
    assert facts.operators == {operator: called.count(operator) for operator in called}
    assert [d.id for d in facts.delegates] == [d.id for d in plan.delegates]
    outside = [operator for operator in called if not operator.startswith("xnnpack:")]
    assert list(facts.outside) == (list(dict.fromkeys(outside)) if plan.delegates else [])
    for ours, indices in ((facts.inputs, plan.inputs), (facts.outputs, plan.outputs)):
        assert len(ours) == len(indices) == 1
        tensor = plan.values[indices[0]].val
        assert ours[0].dtype == "float32" and tensor.scalar_type.name == "FLOAT"
        assert list(ours[0].shape) == [-1, *tensor.sizes[1:]]
    assert facts.batch_capacity == plan.values[plan.inputs[0]].val.sizes[0] == {"mlp": 256, "conv": 64}[name]
    assert facts.size_bytes == path.stat().st_size and container_of(path) == facts.container == "pte"


@pytest.mark.parametrize(("name", "format_"), [case for case in CASES if "portable" not in case[1]])
def test_delegated_weights_are_those_that_flatc_points_to(
    torch_zoo: Any, tmp_path: Path, name: str, format_: str
) -> None:
    path = torch_zoo.files[name, format_]
    read, graphs = _oracle(path, tmp_path)
    stored = {k: bytes(read.named_data.buffers[e.buffer_index]) for k, e in read.named_data.pte_data.items()}
    expected = []
    for graph in graphs:
        for node in graph["xnodes"]:
            filter_id = node["xnode_union"].get("filter_id")
            if filter_id is None:
                continue
            value = graph["xvalues"][filter_id]["xvalue_union"]
            tensor = value.get("tensor_value", value)
            kind = {"xnn_datatype_fp32": "float32", "xnn_datatype_qcint8": "int8"}[tensor["datatype"]]
            data = stored[graph["constant_data"][tensor["constant_buffer_idx"]]["named_key"]]
            values = np.frombuffer(data, kind).reshape(tensor["dims"])
            scales = value["quant_params"]["num_scales"] if "quant_params" in value else 0
            expected.append((node["xnode_union_type"], kind, values, scales))
    weights = read_facts(path).weights
    assert len(weights) == len(expected) == {"mlp": 2, "conv": 3}[name]
    for weight, (operator, kind, values, scales) in zip(weights, expected, strict=True):
        assert weight.operator == "xnnpack:" + operator.removeprefix("XNN")
        assert (weight.dtype, weight.shape, weight.scales) == (kind, values.shape, scales)
        assert weight.sparsity == (values.size - np.count_nonzero(values)) / values.size
        assert weight.distinct == len(set(values.ravel().tolist()))
        channels = np.moveaxis(values, 3 if "Depthwise" in operator else 0, 0)
        assert weight.distinct_per_channel == max(len(set(c.ravel().tolist())) for c in channels)


@pytest.mark.parametrize(("name", "format_"), CASES)
def test_zeros_and_palettes_of_the_model_are_found_exactly(torch_zoo: Any, name: str, format_: str) -> None:
    model = torch_zoo.models[name]
    kernels = [p.detach().numpy() for n, p in model.named_parameters() if p.dim() > 1]
    weights = read_facts(torch_zoo.files[name, format_]).weights
    assert len(weights) == len(kernels)
    for weight, kernel in zip(weights, kernels, strict=True):
        assert weight.size == kernel.size and weight.shape[weight.channel_axis] == len(kernel)
        zeros = round(weight.sparsity * weight.size)
        wanted = kernel.size - np.count_nonzero(kernel)
        # Quantization may round a small weight to zero, never a zero to something else.
        assert zeros == wanted if weight.dtype == "float32" else zeros >= wanted
        assert weight.distinct_per_channel <= max(len(np.unique(channel)) for channel in kernel) <= 8


def test_the_grid_of_an_integer_file_lies_on_the_logits(torch_zoo: Any) -> None:
    import torch
    from executorch.runtime import Runtime

    for name, format_ in CASES:
        path = torch_zoo.files[name, format_]
        grid = read_facts(path).output_grid
        if "int8" not in format_:
            assert grid is None
            continue
        assert grid is not None and grid.on == "logits"
        method = Runtime.get().load_program(path).load_method("forward")
        answers = method.execute([torch.from_numpy(torch_zoo.rows[name][:50])])[0].numpy().astype(np.float64)
        steps = (np.log(answers) - np.log(answers[:, :1])) / grid.scale
        assert np.abs(steps).max() > 1
        assert np.abs(steps - np.round(steps)).max() < 1e-3


def test_field_numbers_are_those_of_the_installed_schema() -> None:
    import executorch.backends.xnnpack.serialization as serialization
    import executorch.exir._serialize as serialize

    folder = Path(next(iter(serialization.__path__)))
    text = re.sub(r"//.*", "", (folder / "schema.fbs").read_text())
    union = re.search(r"union XNodeUnion \{(.*?)\}", text, re.S)
    types = re.search(r"enum XNNDatatype : short \{(.*?)\}", text, re.S)
    assert union and types
    nodes = [line.split(":")[0].strip().removeprefix("XNN") for line in union[1].split(",") if line.strip()]
    assert list(xnnpack.NODES[1:]) == nodes
    numbers = dict(re.findall(r"xnn_datatype_(\w+) = (\d+)", types[1]))
    ours = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
    assert {ours.get(name, name): str(n) for n, name in enumerate(xnnpack.DATATYPES)} == numbers
    fields = {
        table: re.findall(r"(\w+)\s*:", body)
        for table, body in re.findall(r"table (\w+) \{(.*?)\}", text, re.S)
    }
    assert fields["XNNFullyConnected"][1] == "filter_id" and fields["XNNFullyConnected"][3] == "output_id"
    convolution = fields["_XNNNodeConv"]
    assert [convolution[i] for i in (15, 16, 18, 19)] == ["input1_id", "filter_id", "output_id", "flags"]
    assert [fields["XNNStaticReshape"][i] for i in (2, 3)] == ["input_id", "output_id"]
    assert [fields["XNNStaticTranspose"][i] for i in (2, 3)] == ["input_id", "output_id"]
    program = Path(next(iter(serialize.__path__)))
    scalars = dict(re.findall(r"(\w+) = (\d+)", (program / "scalar_type.fbs").read_text()))
    for number, name in container.SCALARS.items():
        known = {"uint8": "BYTE", "int8": "CHAR", "int16": "SHORT", "int32": "INT", "int64": "LONG"}
        known |= {"float16": "HALF", "float32": "FLOAT", "float64": "DOUBLE"}
        assert scalars[known.get(name, name.replace("float8_", "float8").upper())] == str(number)


def test_reading_needs_neither_torch_nor_executorch(torch_zoo: Any) -> None:
    code = (
        "import sys\nfor n in ('torch', 'executorch', 'torchao', 'tensorflow', 'ai_edge_litert'):\n"
        "    sys.modules[n] = None\n"
        "from pathlib import Path\nfrom edgeprivacy.converters import read_facts\n"
        "print(read_facts(Path(sys.argv[1])).sha256)"
    )
    path = torch_zoo.files["conv", "int8"]
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == read_facts(path).sha256


@pytest.mark.parametrize(
    ("name", "format_"), [("mlp", "int8"), ("conv", "float32"), ("mlp", "portable-float32")]
)
def test_a_file_cut_off_anywhere_is_refused(torch_zoo: Any, tmp_path: Path, name: str, format_: str) -> None:
    content = torch_zoo.files[name, format_].read_bytes()
    path = tmp_path / "cut.pte"
    for length in [*range(0, len(content) - 64, 61), *range(len(content) - 64, len(content), 7)]:
        path.write_bytes(content[:length])
        with pytest.raises(ArtifactError) as error:
            read_facts(path)
        assert "\n" not in str(error.value)


def test_flipped_bytes_end_in_facts_or_in_one_error(torch_zoo: Any, tmp_path: Path) -> None:
    path = tmp_path / "flipped.pte"
    rng = np.random.default_rng(0)
    refused = 0
    for name, format_ in (("mlp", "int8"), ("conv", "int8"), ("conv", "portable-float32")):
        content = np.frombuffer(torch_zoo.files[name, format_].read_bytes(), np.uint8)
        for _ in range(400):
            changed = content.copy()
            # The tables stand at the front; half of the hits land there.
            end = 4096 if rng.random() < 0.5 else len(content)
            places = rng.integers(8, min(end, len(content)), rng.integers(1, 4))
            changed[places] = rng.integers(0, 256, len(places))
            path.write_bytes(changed.tobytes())
            try:
                read_facts(path)
            except ArtifactError as error:
                refused += 1
                assert "\n" not in str(error)
    assert refused > 50


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\x20\0\0\0ET12", "damaged or truncated"),
        (b"\x20\0\0\0ET12" + b"\0" * 100, "damaged or truncated"),
        (b"\xff\xff\xff\x7fET12" + b"\xff" * 200, "damaged or truncated"),
        (b"\x08\0\0\0ET12" + b"\x01" * 4096, "damaged or truncated"),
        (b"\x20\0\0\0ET13" + b"\0" * 100, "format ET13"),
    ],
)
def test_the_right_magic_over_nonsense(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "bad.pte"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=says) as error:
        read_facts(path)
    assert "\n" not in str(error.value)


def test_random_bytes_behind_the_magic_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "random.pte"
    rng = np.random.default_rng(1)
    for _ in range(200):
        path.write_bytes(b"\x20\0\0\0ET12" + rng.bytes(int(rng.integers(0, 3000))))
        with pytest.raises(ArtifactError):
            read_facts(path)


def test_tables_that_point_at_one_another_cost_no_more_than_the_file(tmp_path: Path) -> None:
    """10 000 values that are all the same tensor of 50 000 sizes: honest readers would read 2 GB."""
    from edgeprivacy.converters.executorch.flatbuffer import Buffer, Damaged

    count = 50_000
    vector = struct.pack("<I", count) + b"\x01\0\0\0" * count
    # Root offset 8; a vtable of one field; a table whose field 0 is a vector.
    content = (
        struct.pack("<I", 12) + b"\0" * 2 + struct.pack("<HHH", 6, 8, 4) + struct.pack("<iI", 6, 4) + vector
    )
    buffer = Buffer(content)
    assert len(buffer.root.numbers(0, "<i4")) == count
    with pytest.raises(Damaged, match="more often"):
        for _ in range(10_000):
            buffer.root.numbers(0, "<i4")
