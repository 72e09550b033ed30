"""Weights of 4 bits in a .pte: dense layers packed, convolutions not, and the answers of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprivacy.converters import Request, read_facts
from edgeprivacy.converters.executorch.check import check_request
from edgeprivacy.errors import ConversionError

pytestmark = pytest.mark.executorch


def test_dense_layers_are_packed_and_answer_as_before(torch_zoo: Any, tmp_path: Path) -> None:
    import torch

    from edgeprivacy.converters.executorch.convert import convert
    from edgeprivacy.device_runner import Queries, open_runner

    model, rows = torch_zoo.models["mlp"], torch_zoo.rows["mlp"]
    wide, packed = torch_zoo.files["mlp", "int8"], tmp_path / "packed.pte"
    before = read_facts(wide)
    after = convert(model, "int8", rows, packed, Request("int8", bits=(3, 3)), (64,))
    assert [w.dtype for w in after.weights] == ["int4", "int4"]
    assert [w.sparsity for w in after.weights] == [w.sparsity for w in before.weights]
    assert max(w.distinct_per_channel for w in after.weights) <= 7
    saved = before.size_bytes - after.size_bytes
    assert saved == pytest.approx(sum(w.size for w in after.weights) / 2, abs=200)
    with torch.no_grad():
        expected = model(torch.from_numpy(rows)).numpy()
    asked = Queries(rows, np.arange(len(rows)).astype(np.str_), np.zeros(len(rows), np.int64))
    runner = open_runner("host")
    answers = [found.probabilities for found in runner.collect([wide, packed], asked)]
    runner.close()
    off = [float(np.abs(answer - expected).max()) for answer in answers]
    assert off[1] <= 1.5 * off[0] + 0.01, off


def test_rows_of_an_odd_number_of_weights_and_molds(tmp_path: Path) -> None:
    """The third program is cast from what the first two taught, to the same bytes as without."""
    import torch

    from edgeprivacy.converters.executorch.convert import convert
    from edgeprivacy.converters.executorch.molds import Molds

    from .conftest import rows_for, shape_weights

    rows, molds, request = rows_for((33,)), Molds(), Request("int8", bits=(3, None))
    for seed in range(3):
        torch.manual_seed(seed)
        model = torch.nn.Sequential(
            torch.nn.Linear(33, 15), torch.nn.ReLU(), torch.nn.Linear(15, 4), torch.nn.Softmax(-1)
        )
        shape_weights(model)
        alone, cast = tmp_path / f"{seed}.pte", tmp_path / f"{seed}-cast.pte"
        facts = convert(model, "int8", rows, alone, request, (33,))
        convert(model, "int8", rows, cast, request, (33,), molds)
        assert alone.read_bytes() == cast.read_bytes()
        assert [(w.dtype, w.shape) for w in facts.weights] == [("int4", (15, 33)), ("int8", (4, 15))]
        first = model[0].weight.detach().numpy()
        assert facts.weights[0].sparsity == pytest.approx((first == 0).mean())
    assert any(mold is not None for mold in molds._learned.values()) and not molds._unproved


def test_weights_too_small_for_the_quantizer_s_scales(tmp_path: Path) -> None:
    """It bears no scale below 2^-12: such a channel's weights do not reach the end of int8."""
    import torch

    from edgeprivacy.converters.executorch.convert import convert

    from .conftest import rows_for, shape_weights

    rows = rows_for((33,))
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(33, 4), torch.nn.Softmax(-1))
    shape_weights(model, 0.3, 15)
    with torch.no_grad():
        for channel, end in enumerate((0.02, 0.008, 0.003, 1.0)):
            model[0].weight[channel] *= end / model[0].weight[channel].abs().max()
    facts = convert(model, "int8", rows, tmp_path / "small.pte", Request("int8", bits=(4,)), (33,))
    assert [w.dtype for w in facts.weights] == ["int4"]


def test_convolutions_hold_their_grid_in_int8_and_it_is_said(torch_zoo: Any, tmp_path: Path) -> None:
    from edgeprivacy.converters.executorch.convert import convert

    facts = convert(
        torch_zoo.models["conv"],
        "int8",
        torch_zoo.rows["conv"],
        tmp_path / "c.pte",
        Request("int8", bits=(3, 3, 3)),
        (12, 12, 3),
    )
    assert [w.dtype for w in facts.weights] == ["int8", "int8", "int4"]
    assert sum("holds its grid of 3 bits in int8" in note for note in facts.notes) == 2


def test_what_is_not_packed_as_asked_is_an_error(torch_zoo: Any, tmp_path: Path) -> None:
    from edgeprivacy.converters.executorch.convert import convert

    with pytest.raises(ConversionError, match=r"layer 1 .*: int4 weights asked, int8 found"):
        check_request(Request("int8", bits=(None, 4)), read_facts(torch_zoo.files["mlp", "int8"]))
    with pytest.raises(ConversionError, match="bits asked for 1 layers, the file has 2"):
        check_request(Request("int8", bits=(4,)), read_facts(torch_zoo.files["mlp", "int8"]))
    with pytest.raises(ConversionError, match="layer 0 are not on a grid of 2 bits"):
        convert(
            torch_zoo.models["mlp"],
            "int8",
            torch_zoo.rows["mlp"],
            tmp_path / "x.pte",
            Request("int8", bits=(2, 2)),
            (64,),
        )
    assert not (tmp_path / "x.pte").exists()
