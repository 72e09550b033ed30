"""torch to .ptl and back: facts against torch's own view, the same bytes, nothing unpickled; bad files."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprivacy.converters import Request, container_of, read_facts
from edgeprivacy.converters.ptl.check import check_request
from edgeprivacy.converters.ptl.convert import check_ptl, convert_ptl
from edgeprivacy.converters.ptl.pickled import Called, Unreadable, read_pickle
from edgeprivacy.errors import ArtifactError, ConversionError, DataError, ModelError, UsageError

torch = pytest.importorskip("torch", reason="needs the extra executorch")
pytest.importorskip("executorch", reason="needs the extra executorch")
pytestmark = pytest.mark.executorch
SHAPES = {"mlp": (64,), "conv": (12, 12, 3)}
CASES = [(name, format_) for name in SHAPES for format_ in ("ptl-float32", "ptl-int8")]


def _run(path: Path, rows: np.ndarray) -> np.ndarray:
    import torch.jit.mobile

    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = "qnnpack"
    try:
        return torch.jit.mobile._load_for_lite_interpreter(str(path))(torch.from_numpy(rows)).numpy()
    finally:
        torch.backends.quantized.engine = before


def _entries(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _pack(path: Path, entries: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize(("name", "format_"), CASES)
def test_the_file_answers_like_its_model_for_any_number_of_rows(
    ptl_zoo: Any, name: str, format_: str
) -> None:
    rows = ptl_zoo.rows[name]
    with torch.no_grad():
        expected = ptl_zoo.models[name](torch.from_numpy(rows)).numpy()
    assert np.abs(expected - expected.mean(axis=0)).max() > 0.1  # rows differ: the test can fail
    tolerance = 1e-6 if format_ == "ptl-float32" else 0.05
    for count in (1, 17, 100):
        answers = _run(ptl_zoo.files[name, format_], rows[:count])
        assert np.abs(answers - expected[:count]).max() < tolerance


@pytest.mark.parametrize(("name", "format_"), CASES)
def test_weights_are_those_that_torch_loads(ptl_zoo: Any, name: str, format_: str) -> None:
    path = ptl_zoo.files[name, format_]
    loaded = torch.jit.load(str(path))
    constants = loaded.graph.findAllNodes("prim::Constant")
    expected: dict[tuple[int, ...], np.ndarray] = {}
    for node in constants:
        value = node.output().toIValue()
        if isinstance(value, torch.Tensor) and value.dim() > 1:
            expected[tuple(value.shape)] = value.numpy()
        elif isinstance(value, torch.ScriptObject):
            packed = torch.ops.quantized.linear_unpack if "Linear" in str(value) else None
            unpack = packed or torch.ops.quantized.conv2d_unpack
            expected[tuple(unpack(value)[0].shape)] = unpack(value)[0].int_repr().numpy()
    facts = read_facts(path)
    assert len(facts.weights) == len(expected) == {"mlp": 2, "conv": 3}[name]
    for weight in facts.weights:
        values = expected[weight.shape]
        assert weight.dtype == values.dtype.name == format_.removeprefix("ptl-")
        assert weight.sparsity == (values.size - np.count_nonzero(values)) / values.size
        assert weight.distinct == len(np.unique(values))
        assert weight.distinct_per_channel == max(len(np.unique(channel)) for channel in values)
        assert weight.scales == (len(values) if weight.dtype == "int8" else 0)


@pytest.mark.parametrize(("name", "format_"), CASES)
def test_zeros_and_palettes_of_the_model_are_found(ptl_zoo: Any, name: str, format_: str) -> None:
    facts = read_facts(ptl_zoo.files[name, format_])
    layers = len(facts.weights)
    check_request(Request(format_, sparsity=(0.6,) * layers, clusters=(8,) * layers), facts)
    kernels = [p.detach().numpy() for p in ptl_zoo.models[name].parameters() if p.dim() > 1]
    for weight, kernel in zip(facts.weights, kernels, strict=True):  # in order of execution
        assert weight.shape == kernel.shape and weight.channel_axis == 0
        if format_ == "ptl-float32":
            assert round(weight.sparsity * weight.size) == kernel.size - np.count_nonzero(kernel)


def test_operators_inputs_and_notes(ptl_zoo: Any) -> None:
    facts = read_facts(ptl_zoo.files["mlp", "ptl-float32"])
    assert facts.operators == {"aten::linear": 2, "aten::relu": 1, "aten::softmax.int": 1}
    assert (facts.inputs[0].shape, facts.inputs[0].dtype) == ((-1, 64), "float32")
    assert "legacy" in facts.notes[0] and "wrote it down" in facts.notes[1]
    assert facts.container == container_of(ptl_zoo.files["mlp", "ptl-float32"]) == "ptl"
    assert facts.output_grid is None
    integer = read_facts(ptl_zoo.files["conv", "ptl-int8"]).operators
    assert integer["quantized::conv2d.new"] == 2 and integer["quantized::linear"] == 1


@pytest.mark.parametrize("name", ["mlp", "conv"])
def test_the_grid_lies_on_the_logits(ptl_zoo: Any, name: str) -> None:
    path = ptl_zoo.files[name, "ptl-int8"]
    grid = read_facts(path).output_grid
    assert grid is not None and grid.on == "logits"
    logs = np.log(_run(path, ptl_zoo.rows[name]).astype(np.float64))
    steps = (logs - logs[:, :1]) / grid.scale
    assert np.abs(steps).max() > 1 and np.abs(steps - np.round(steps)).max() < 1e-2


def test_a_foreign_file_without_a_written_shape_says_so(ptl_zoo: Any, tmp_path: Path) -> None:
    model = ptl_zoo.models["mlp"]
    path = tmp_path / "foreign.ptl"
    traced = torch.jit.trace(model, torch.zeros(4, 64))  # not frozen: weights are attributes
    traced._save_for_lite_interpreter(str(path))
    facts = read_facts(path)
    assert facts.inputs[0].shape == () and facts.inputs[0].dtype == "unknown"
    assert any("does not hold the shape" in note for note in facts.notes)
    ours = read_facts(ptl_zoo.files["mlp", "ptl-float32"])
    listed = [replace(weight, name="") for weight in facts.weights]
    assert listed == [replace(weight, name="") for weight in ours.weights]


@pytest.mark.parametrize(("name", "format_"), CASES)
def test_the_same_model_gives_the_same_bytes_without_paths(
    ptl_zoo: Any, tmp_path: Path, name: str, format_: str
) -> None:
    path = tmp_path / "again.ptl"
    convert_ptl(ptl_zoo.models[name], format_, ptl_zoo.rows[name], path, None, SHAPES[name])
    assert path.read_bytes() == ptl_zoo.files[name, format_].read_bytes()
    assert list(tmp_path.iterdir()) == [path]
    for data in _entries(path).values():
        assert b"conftest.py" not in data and b"site-packages" not in data


def test_conversion_is_silent_and_leaves_the_engine(
    ptl_zoo: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = torch.backends.quantized.engine
    convert_ptl(ptl_zoo.models["mlp"], "ptl-int8", ptl_zoo.rows["mlp"], tmp_path / "m.ptl", None, (64,))
    assert capfd.readouterr() == ("", "")
    assert torch.backends.quantized.engine == before


def test_what_was_not_asked_for_fails(ptl_zoo: Any, tmp_path: Path) -> None:
    facts = read_facts(ptl_zoo.files["mlp", "ptl-float32"])
    with pytest.raises(ConversionError) as error:
        check_request(Request("ptl-int8", sparsity=(0.7, None)), facts)
    assert str(error.value).count("int8 weights asked, float32 found") == 2
    assert "70.0000% zeros asked, 60.0098% found" in str(error.value)
    model, rows = ptl_zoo.models["mlp"], ptl_zoo.rows["mlp"]
    with pytest.raises(ConversionError, match="at most 2 distinct"):
        request = Request("ptl-float32", clusters=(2, 2))
        convert_ptl(model, "ptl-float32", None, tmp_path / "m.ptl", request, (64,))
    with pytest.raises(UsageError, match="did you mean 'ptl-int8'"):
        convert_ptl(model, "ptlint8", rows, tmp_path / "m.ptl", None, (64,))
    with pytest.raises(UsageError, match="differ"):
        convert_ptl(model, "ptl-int8", rows, tmp_path / "m.ptl", Request("ptl-float32"), (64,))
    with pytest.raises(DataError, match="calibration"):
        convert_ptl(model, "ptl-int8", None, tmp_path / "m.ptl", None, (64,))
    assert list(tmp_path.iterdir()) == []


def test_a_branch_on_data_is_refused_where_a_trace_would_freeze_it() -> None:
    class Branch(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            if x.sum() > 0:
                x = -x
            return torch.softmax(x, -1)

    with pytest.raises(ModelError, match=r"depends on the data.*test_ptl\.py:\d+"):
        check_ptl(Branch(), (4,), ("ptl-float32",))


class _Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (Path.touch, (self.mark,))


def test_a_pickle_is_read_as_data(tmp_path: Path) -> None:
    mark = tmp_path / "was-here"
    (value,) = read_pickle(pickle.dumps(_Evil(mark), protocol=2))
    assert isinstance(value, Called) and not mark.exists()
    pickle.loads(pickle.dumps(_Evil(mark), protocol=2))  # noqa: S301  our own
    assert mark.exists()  # so the test can fail
    with pytest.raises(Unreadable, match="opcode"):
        read_pickle(pickle.dumps({1, 2}, protocol=4))


def test_reading_needs_no_torch(ptl_zoo: Any) -> None:
    code = (
        "import sys\nfor n in ('torch', 'executorch', 'tensorflow'): sys.modules[n] = None\n"
        "from pathlib import Path\nfrom edgeprivacy.converters import read_facts\n"
        "print(len(read_facts(Path(sys.argv[1])).weights))"
    )
    path = ptl_zoo.files["conv", "ptl-int8"]
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "3"


@pytest.mark.parametrize(("name", "format_"), CASES)
def test_a_file_cut_off_anywhere_is_refused(ptl_zoo: Any, tmp_path: Path, name: str, format_: str) -> None:
    content = ptl_zoo.files[name, format_].read_bytes()
    path = tmp_path / "cut.ptl"
    for length in [*range(0, len(content) - 64, 131), *range(len(content) - 64, len(content), 7)]:
        path.write_bytes(content[:length])
        with pytest.raises(ArtifactError) as error:
            read_facts(path)
        assert "\n" not in str(error.value)


def test_changed_entries_end_in_facts_or_in_one_error(ptl_zoo: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    refused = 0
    for case in (("mlp", "ptl-float32"), ("conv", "ptl-int8")):
        entries = _entries(ptl_zoo.files[case])
        for _ in range(200):
            changed = dict(entries)
            name = f"archive/{rng.choice(['bytecode.pkl', 'data.pkl'])}"
            data = bytearray(changed[name])
            for place in rng.integers(0, len(data), rng.integers(1, 4)):
                data[place] = rng.integers(0, 256)
            changed[name] = bytes(data)
            try:
                read_facts(_pack(tmp_path / "changed.ptl", changed))
            except ArtifactError as error:
                refused += 1
                assert "\n" not in str(error)
    assert refused > 50


def test_bombs_and_missing_entries_are_refused(ptl_zoo: Any, tmp_path: Path) -> None:
    entries = _entries(ptl_zoo.files["mlp", "ptl-float32"])
    path = tmp_path / "bad.ptl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, b"\0" * (64 << 20) if name.endswith("bytecode.pkl") else data)
    assert path.stat().st_size < 1 << 20
    with pytest.raises(ArtifactError, match="claims 67108864 bytes"):
        read_facts(path)
    short = {name: data for name, data in entries.items() if not name.endswith("0.storage")}
    with pytest.raises(ArtifactError, match=r"no entry constants/0\.storage"):
        read_facts(_pack(path, short))
    small = {n: data[:64] if n.endswith("0.storage") else data for n, data in entries.items()}
    with pytest.raises(ArtifactError, match="larger than its storage"):
        read_facts(_pack(path, small))
    other = {n: pickle.dumps(7, protocol=2) if n.endswith("bytecode.pkl") else d for n, d in entries.items()}
    with pytest.raises(ArtifactError, match="without a method forward"):
        read_facts(_pack(path, other))


def test_other_torch_files_are_called_by_their_name(ptl_zoo: Any, tmp_path: Path) -> None:
    model = ptl_zoo.models["mlp"]
    path = tmp_path / "file.pt"
    torch.save(model.state_dict(), path)
    with pytest.raises(ArtifactError, match=r"archive of weights.*weights of a model factory"):
        read_facts(path)
    torch.save(model.state_dict(), path, _use_new_zipfile_serialization=False)
    with pytest.raises(ArtifactError, match=r"a Python pickle.*it is not opened"):
        read_facts(path)
    torch.jit.trace(model, torch.zeros(2, 64)).save(path)
    with pytest.raises(ArtifactError, match=r"without mobile bytecode.*_save_for_lite_interpreter"):
        read_facts(path)
    torch.export.save(torch.export.export(model, (torch.zeros(2, 64),)), path.with_suffix(".pt2"))
    with pytest.raises(ArtifactError, match=r"exported torch program \(\.pt2\).*lower it"):
        read_facts(path.with_suffix(".pt2"))
    stream = io.BytesIO()
    np.savez(stream, x=np.zeros(3))
    path.write_bytes(stream.getvalue())
    with pytest.raises(ArtifactError, match="a zip archive"):
        read_facts(path)
