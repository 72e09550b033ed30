"""Weights of few bits: the integers found again one by one, and what a packed .tflite holds and answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprivacy.converters import Request, read_facts
from edgeprivacy.converters.narrow import narrowed, pack
from edgeprivacy.converters.tflite.packing import unpack
from edgeprivacy.errors import ConversionError


@settings(deadline=None, max_examples=100)
@given(seed=st.integers(0, 2**32 - 1), bits=st.integers(2, 6), end=st.integers(1, 31))
def test_multiples_come_back_from_a_quantizer_s_integers(seed: int, bits: int, end: int) -> None:
    rng, most = np.random.default_rng(seed), 2 ** (bits - 1) - 1
    end = min(end, most)
    multiples = rng.integers(-end, end + 1, (5, 3, 4))
    multiples[:, 0, 0] = end * rng.choice([-1, 1], 5)
    multiples[2] = 0
    # As a quantizer stores them: each channel over the whole of int8.
    stored = np.array([[[round(127 * k / end) for k in row] for row in channel] for channel in multiples])
    few, factors = narrowed(stored.astype(np.int8), bits, "layer 0")
    assert few.dtype == np.int8 and few.shape == stored.shape and np.abs(few).max() <= most
    for channel, (found, factor) in enumerate(zip(few, factors, strict=True)):
        if channel == 2:
            assert not found.any()
            continue
        ours, theirs = found * factor, multiples[channel] * 127 / end
        # Where two grids explain the integers, both lie within half a step of them.
        assert np.abs(ours - theirs).max() <= 1.0 and np.abs(ours - stored[channel]).max() <= 0.5 + 1e-6
        assert (found == 0).sum() == (multiples[channel] == 0).sum()
        if end >= 2 and bits <= 4:
            scale = np.gcd.reduce(np.abs(multiples[channel]).ravel())
            np.testing.assert_array_equal(found, multiples[channel] // scale)


@settings(deadline=None, max_examples=200)
@given(seed=st.integers(0, 2**32 - 1), bits=st.integers(2, 4), step=st.floats(0.3, 18.0))
def test_small_weights_use_a_part_of_int8(seed: int, bits: int, step: float) -> None:
    """A quantizer that bears no smaller scale rounds multiples of whatever step."""
    rng, most = np.random.default_rng(seed), 2 ** (bits - 1) - 1
    multiples = rng.integers(-most, most + 1, (1, int(rng.integers(2, 60))))
    stored = np.round(multiples * step).astype(np.int8)
    few, factors = narrowed(stored, bits, "layer 0")
    assert np.abs(few).max() <= most and np.abs(few * factors[:, None] - stored).max() <= 0.5 + 1e-6


def test_integers_of_no_grid_are_refused() -> None:
    stored = np.array([[127, 0, -127], [127, 50, 3]], np.int8)
    with pytest.raises(
        ConversionError, match="layer 3 are not on a grid of 4 bits; given: output channel 1,"
    ):
        narrowed(stored, 4, "layer 3")


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("count", [1, 7, 8])
def test_packed_numbers_are_read_back(bits: int, count: int) -> None:
    most = 2 ** (bits - 1) - 1
    values = np.random.default_rng(count).integers(-most, most + 1, count).astype(np.int8)
    assert unpack(pack(values, bits), f"int{bits}", count).tolist() == values.tolist()


@pytest.fixture(scope="module")
def on_grid(keras: Any) -> Any:
    """A network of every kind of layer, its weights multiples of a step a channel, and rows."""

    def make(bits: int) -> tuple[Any, np.ndarray]:
        keras.utils.set_random_seed(3)
        layers, rng = keras.layers, np.random.default_rng(3)
        model = keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                layers.Conv2D(8, 3, use_bias=False),
                layers.BatchNormalization(),
                layers.ReLU(),
                layers.DepthwiseConv2D(3),
                layers.Flatten(),
                layers.Dense(33, activation="relu"),
                layers.Dense(5, activation="softmax"),
            ]
        )
        most = 2 ** (bits - 1) - 1
        for layer in model.layers:
            weights = layer.get_weights()
            if isinstance(layer, layers.BatchNormalization):
                weights = [rng.uniform(0.5, 1.5, w.shape) for w in weights]
            elif weights:
                axes = (
                    (0, 1, 3)
                    if isinstance(layer, layers.DepthwiseConv2D)
                    else tuple(range(weights[0].ndim - 1))
                )
                step = np.abs(weights[0]).max(axis=axes, keepdims=True) / most
                weights = [
                    np.round(weights[0] / step) * step,
                    *(rng.normal(0, 0.1, w.shape) for w in weights[1:]),
                ]
            layer.set_weights(weights)
        return model, rng.normal(size=(120, 8, 8, 3)).astype(np.float32)

    return make


@pytest.mark.parametrize(
    ("bits", "dtypes"), [(4, ["int4"] * 4), (3, ["int4"] * 4), (2, ["int4", "int4", "int2", "int2"])]
)
def test_a_packed_file_answers_as_the_int8_one(
    on_grid: Any, tmp_path: Path, bits: int, dtypes: list[str]
) -> None:
    from edgeprivacy.converters.tflite.convert import convert
    from edgeprivacy.device_runner import Queries
    from edgeprivacy.device_runner.host import HostRunner

    model, rows = on_grid(bits)
    wide, packed = tmp_path / "wide.tflite", tmp_path / "packed.tflite"
    before = convert(model, "int8", rows, wide)
    after = convert(model, "int8", rows, packed, Request("int8", bits=(bits,) * 4))
    assert [w.dtype for w in after.weights] == dtypes and {w.dtype for w in before.weights} == {"int8"}
    assert [w.sparsity for w in after.weights] == [w.sparsity for w in before.weights]
    assert max(w.distinct_per_channel for w in after.weights) <= 2**bits - 1
    weights = sum(w.size for w in after.weights)
    assert before.size_bytes - after.size_bytes > weights * (1 - (4 if bits > 2 else 2.2) / 8) - 2000
    assert any("packed" in note for note in after.notes)
    again = tmp_path / "again.tflite"
    convert(model, "int8", rows, again, Request("int8", bits=(bits,) * 4))
    assert again.read_bytes() == packed.read_bytes()
    asked = Queries(rows, np.arange(len(rows)).astype(np.str_), np.zeros(len(rows), np.int64))
    expected = model.predict(rows, verbose=0)
    for kernels in ("XNNPACK", "built-in"):
        runner = HostRunner(kernels=kernels)
        answers = [found.probabilities for found in runner.collect([wide, packed], asked)]
        runner.close()
        off = [np.abs(answer - expected).max() for answer in answers]
        assert off[1] <= off[0] + 2.5 / 256, f"{kernels}: {off}"
        assert np.abs(answers[0] - answers[1]).max() <= 4.5 / 256


def test_what_is_not_packed_as_asked_is_an_error(on_grid: Any, tmp_path: Path) -> None:
    from edgeprivacy.converters.tflite.check import check_request
    from edgeprivacy.converters.tflite.convert import convert

    model, rows = on_grid(5)
    path = tmp_path / "wide.tflite"
    convert(model, "int8", rows, path, Request("int8", bits=(5, None, 6, 8)))
    assert {w.dtype for w in read_facts(path).weights} == {"int8"}
    with pytest.raises(ConversionError, match=r"layer 2 .*: int4 weights asked, int8 found"):
        check_request(Request("int8", bits=(None, None, 4, None)), read_facts(path))
    kept = path.read_bytes()
    with pytest.raises(ConversionError, match="bits asked for 3 layers, the file has 4"):
        convert(model, "int8", rows, path, Request("int8", bits=(4, 4, 4)))
    with pytest.raises(ConversionError, match="layer 0 are not on a grid of 4 bits"):
        convert(model, "int8", rows, path, Request("int8", bits=(4, 4, 4, 4)))
    assert path.read_bytes() == kept
