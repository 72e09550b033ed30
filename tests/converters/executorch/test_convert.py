"""torch to .pte: what was asked is in the file, and what is not is an error."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprivacy.converters import Request, read_facts
from edgeprivacy.converters.executorch.check import check_request
from edgeprivacy.converters.executorch.convert import check_exports, convert
from edgeprivacy.errors import ConversionError, DataError, ModelError, UsageError

torch = pytest.importorskip("torch", reason="needs the extra executorch")
pytest.importorskip("executorch", reason="needs the extra executorch")
pytestmark = pytest.mark.executorch
SHAPES = {"mlp": (64,), "conv": (12, 12, 3)}


def _run(path: Path, rows: np.ndarray) -> np.ndarray:
    from executorch.runtime import Runtime

    # By path: of bytes, the runtime keeps no reference and reads on. XNNPACK may read behind its input.
    method = Runtime.get().load_program(path).load_method("forward")
    memory = np.zeros(rows.nbytes + 128, np.uint8)
    padded = memory[: rows.nbytes].view(rows.dtype).reshape(rows.shape)
    padded[...] = rows
    return method.execute([torch.from_numpy(padded)])[0].numpy().copy()


@pytest.mark.parametrize(
    ("name", "format_", "tolerance"),
    [
        ("mlp", "float32", 1e-5),
        ("mlp", "portable-float32", 1e-5),
        ("mlp", "dynamic", 0.05),
        ("mlp", "int8", 0.05),
        ("mlp", "qat-int8", 0.05),
        ("conv", "float32", 1e-5),
        ("conv", "portable-float32", 1e-5),
        ("conv", "dynamic", 0.05),
        ("conv", "int8", 0.05),
        ("conv", "qat-int8", 0.05),
    ],
)
def test_the_file_answers_like_its_model_for_any_number_of_rows(
    torch_zoo: Any, name: str, format_: str, tolerance: float
) -> None:
    rows, model = torch_zoo.rows[name], torch_zoo.models[name]
    with torch.no_grad():
        expected = model(torch.from_numpy(rows)).numpy()
    path = torch_zoo.files[name, format_]
    limit = read_facts(path).batch_capacity
    assert limit == {"mlp": 256, "conv": 64}[name]
    many = np.resize(rows, (limit, *SHAPES[name]))
    for count in (1, 17, limit):
        answers = _run(path, many[:count])
        assert np.abs(answers - np.resize(expected, (limit, expected.shape[1]))[:count]).max() < tolerance
    assert np.abs(expected - expected.mean(axis=0)).max() > 0.01  # rows differ: the test can fail


@pytest.mark.parametrize("name", ["mlp", "conv"])
def test_every_format_holds_what_its_request_asks(torch_zoo: Any, name: str) -> None:
    layers = {"mlp": 2, "conv": 3}[name]
    for (model, format_), path in torch_zoo.files.items():
        if model == name:
            request = Request(format_, sparsity=(0.6,) * layers, clusters=(8,) * layers)
            notes = check_request(request, read_facts(path), {"mlp": 256, "conv": 64}[name])
            assert len(notes) == (2 if (name, format_) == ("conv", "dynamic") else 0)
            assert all("stays float32 in a dynamic file" in note for note in notes)


def test_a_request_for_more_lists_everything_that_is_missing(torch_zoo: Any) -> None:
    facts = read_facts(torch_zoo.files["mlp", "float32"])
    with pytest.raises(ConversionError) as error:
        check_request(Request("int8"), facts)
    assert str(error.value).count("int8 weights asked, float32 found") == 2
    with pytest.raises(ConversionError, match=r"layer 0 .*70\.0000% zeros asked, 60\.0098% found"):
        check_request(Request("float32", sparsity=(0.7, None)), facts)
    with pytest.raises(
        ConversionError, match=r"at most 2 distinct values an output channel asked, [5-8] found"
    ):
        check_request(Request("float32", clusters=(2, None)), facts)
    with pytest.raises(ConversionError, match="asked for 3 layers, the file has 2"):
        check_request(Request("float32", sparsity=(0.1, 0.1, 0.1)), facts)
    with pytest.raises(ConversionError, match="room for 512 rows asked, for 256 found"):
        check_request(Request("float32"), facts, 512)
    with pytest.raises(ConversionError, match="portable kernels asked, a delegate found"):
        check_request(Request("portable-float32"), facts)


def test_weights_outside_the_delegate_are_no_int8_file(torch_zoo: Any) -> None:
    portable = read_facts(torch_zoo.files["mlp", "portable-float32"])
    with pytest.raises(ConversionError) as error:
        check_request(Request("int8"), portable)
    assert "nothing was delegated" in str(error.value)
    assert str(error.value).count("float32, not delegated") == 2
    with pytest.raises(ConversionError, match="float32 asked for XNNPACK, nothing was delegated"):
        check_request(Request("float32"), portable)
    dynamic = read_facts(torch_zoo.files["mlp", "dynamic"])
    left = replace(dynamic, weights=tuple(replace(w, dtype="float32") for w in dynamic.weights))
    with pytest.raises(ConversionError, match="int8 weights asked, float32 found"):
        check_request(Request("dynamic"), left)


def test_operators_outside_the_delegate_are_listed(torch_zoo: Any) -> None:
    for format_ in ("float32", "int8"):
        facts = read_facts(torch_zoo.files["conv", format_])
        assert "aten::mean.out" in facts.outside
        assert any("outside the delegate" in note and "aten::mean.out" in note for note in facts.notes)
        assert sum(delegate.payload_bytes for delegate in facts.delegates) > 1000
    assert "aten::mean.out" in check_exports(torch_zoo.models["conv"], SHAPES["conv"])
    assert check_exports(torch_zoo.models["mlp"], SHAPES["mlp"]) == ()


@pytest.mark.parametrize(
    ("name", "format_"),
    [
        ("mlp", "float32"),
        ("mlp", "dynamic"),
        ("conv", "int8"),
        ("conv", "qat-int8"),
        ("mlp", "portable-float32"),
    ],
)
def test_the_same_model_gives_the_same_bytes(torch_zoo: Any, tmp_path: Path, name: str, format_: str) -> None:
    path = tmp_path / "again.pte"
    source = torch_zoo.models[name, "qat"] if format_ == "qat-int8" else torch_zoo.models[name]
    convert(source, format_, torch_zoo.rows[name], path, input_shape=SHAPES[name])
    assert path.read_bytes() == torch_zoo.files[name, format_].read_bytes()
    assert list(tmp_path.iterdir()) == [path]


def test_the_model_is_left_as_it_was_and_nothing_is_said(
    torch_zoo: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = torch_zoo.models["mlp"].train()
    model[1].eval()
    state = torch.get_rng_state()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    convert(model, "int8", torch_zoo.rows["mlp"], tmp_path / "m.pte", input_shape=(64,))
    assert [part.training for part in model.modules()] == [True, True, False, True, True]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.eval()
    assert capfd.readouterr() == ("", "")


def test_a_file_that_fails_its_check_is_not_left_behind(torch_zoo: Any, tmp_path: Path) -> None:
    request = Request("float32", sparsity=(0.9, None))
    with pytest.raises(ConversionError, match=r"90\.0000% zeros asked"):
        convert(torch_zoo.models["mlp"], "float32", None, tmp_path / "m.pte", request, (64,))
    assert list(tmp_path.iterdir()) == []


def test_bad_requests_are_usage_errors(torch_zoo: Any, tmp_path: Path) -> None:
    model, rows, path = torch_zoo.models["mlp"], torch_zoo.rows["mlp"], tmp_path / "m.pte"
    with pytest.raises(UsageError, match="did you mean 'int8'"):
        convert(model, "int 8", rows, path, None, (64,))
    with pytest.raises(UsageError, match="differ"):
        convert(model, "int8", rows, path, Request("float32"), (64,))
    with pytest.raises(DataError, match="calibration"):
        convert(model, "int8", None, path, None, (64,))
    with pytest.raises(DataError, match=r"\(63,\)"):
        convert(model, "int8", rows[:, :63], path, None, (64,))
    with pytest.raises(DataError, match="NaN"):
        convert(model, "int8", np.full((2, 64), np.nan, np.float32), path, None, (64,))
    with pytest.raises(ConversionError, match="trained with fake quantization"):
        convert(model, "qat-int8", None, path, None, (64,))
    assert list(tmp_path.iterdir()) == []


class _Base(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)

    def answer(self, x: Any) -> Any:
        return torch.softmax(self.layer(x), -1)


class _Branch(_Base):
    def forward(self, x: Any) -> Any:
        if x.sum() > 0:
            x = -x
        return self.answer(x)


class _FixedRows(_Base):
    def forward(self, x: Any) -> Any:
        return self.answer(x.reshape(256, 4))


class _NoOperator(_Base):
    def forward(self, x: Any) -> Any:
        return self.answer(torch.erfinv(x))


class _NoKernel(_Base):
    def forward(self, x: Any) -> Any:
        return self.answer(torch.sort(x)[0])


class _LeavesTorch(_Base):
    def forward(self, x: Any) -> Any:
        return self.answer(torch.from_numpy(x.numpy()))


class _TwoAnswers(_Base):
    def forward(self, x: Any) -> Any:
        return self.answer(x), x


class _OneAnswerForAll(_Base):
    def forward(self, x: Any) -> Any:
        return self.answer(x).sum(0, keepdim=True)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (
            _Branch,
            r"control flow depends on the data.*test_convert\.py:\d+ \(if x\.sum\(\) > 0:\).*torch\.where",
        ),
        (_FixedRows, r"one number of rows.*256.*flatten"),
        (_NoOperator, r"aten::erfinv, at test_convert\.py:\d+ \(return self\.answer\(torch\.erfinv"),
        (_NoKernel, r"no kernel for; given: aten::sort\.values"),
        (_LeavesTorch, r"does not export.*test_convert\.py:\d+"),
        (_TwoAnswers, r"one tensor \[rows, classes\]"),
        (_OneAnswerForAll, "one row for each row"),
    ],
)
def test_models_that_do_not_export_are_named_with_their_line(kind: Any, says: str) -> None:
    with pytest.raises(ModelError, match=says) as error:
        check_exports(kind(), (4,))
    assert error.value.exit_code == 2 and "\n" not in str(error.value)


def test_known_patterns_change_no_file(
    torch_zoo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes are those that torchao makes when it exports its patterns anew."""
    import contextlib

    from edgeprivacy.converters.executorch import convert as module

    monkeypatch.setattr(module, "known_patterns", contextlib.nullcontext)
    path = tmp_path / "plain.pte"
    convert(torch_zoo.models["conv", "qat"], "qat-int8", None, path, input_shape=SHAPES["conv"])
    assert path.read_bytes() == torch_zoo.files["conv", "qat-int8"].read_bytes()
