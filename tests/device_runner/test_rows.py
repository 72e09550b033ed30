"""Preparing rows and reading outputs, against plain definitions."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprivacy.converters import TensorFacts
from edgeprivacy.device_runner.inputs import InputFormat, encode, input_format
from edgeprivacy.device_runner.outputs import OutputFormat, probabilities_of
from edgeprivacy.errors import ArtifactError, DataError

FILE = Path("m.tflite")


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(-4000, 4000), min_size=1, max_size=30),
    st.sampled_from(["int8", "uint8", "int16"]),
    st.integers(-5, 5),
)
def test_halves_go_to_even_and_values_are_clipped(eighths: list[int], dtype: str, zero_point: int) -> None:
    # Scale 1/4 and eighths as values: every second quotient is exactly a half, and nothing is rounded before.
    x = np.array(eighths, np.float32)[:, None] / 8
    limits = np.iinfo(dtype)
    expected = [min(limits.max, max(limits.min, round(Fraction(e, 2)) + zero_point)) for e in eighths]
    got = encode(x, InputFormat(dtype, 0.25, zero_point))
    assert got.dtype == dtype and got.ravel().tolist() == expected


def test_integers_without_a_scale_pass_only_whole() -> None:
    ids = InputFormat("int32", None, None)
    rows = np.array([[1, 2], [3, -4]], np.int32)
    assert encode(rows, ids) is rows
    assert encode(rows.astype(np.float64), ids).tolist() == rows.tolist()
    with pytest.raises(DataError, match=r"1\.5"):
        encode(np.array([[1.5]]), ids)
    with pytest.raises(DataError, match="300"):
        encode(np.array([[300]]), InputFormat("uint8", None, None))
    with pytest.raises(DataError):
        encode(np.array([[np.nan]]), ids)


def test_integers_with_a_scale_are_quantized_even_when_the_type_matches() -> None:
    rows = np.array([[0, 10, 255]], np.uint8)
    assert encode(rows, InputFormat("uint8", 2.0, 1)).tolist() == [[1, 6, 129]]


def test_a_dynamic_dimension_takes_any_size() -> None:
    tensor = TensorFacts("x", (-1, -1, 3), "float32")
    assert input_format(FILE, tensor, np.zeros((2, 9, 3))) == InputFormat("float32", None, None)
    with pytest.raises(DataError):
        input_format(FILE, tensor, np.zeros((2, 9, 4)))
    with pytest.raises(DataError):
        input_format(FILE, tensor, np.zeros((2, 9)))
    with pytest.raises(ArtifactError, match="string"):
        input_format(FILE, TensorFacts("x", (1,), "string"), np.zeros((2, 1)))


def _float(ends_in: str | None = None) -> OutputFormat:
    return OutputFormat(FILE, None, None, 0.0, ends_in)


def test_distributions_pass_and_others_do_not() -> None:
    p = np.array([[0.25, 0.75], [1.0, 0.0]], np.float32)
    assert np.array_equal(probabilities_of(p, _float(), False), p)
    for bad in ([[0.5, 0.502]], [[-0.1, 1.1]], [[0.4, 0.4]]):
        with pytest.raises(DataError, match="--logits"):
            probabilities_of(np.array(bad, np.float32), _float(), False)
    with pytest.raises(DataError, match="NaN"):
        probabilities_of(np.array([[np.nan, 1.0]], np.float32), _float(), False)
    with pytest.raises(DataError, match="--logits"):
        probabilities_of(np.array([[1.2]], np.float32), _float(), False)


def test_the_tolerance_grows_with_the_grid() -> None:
    # 30 classes, each rounded by up to half a step: sums of real int8 files are off by several steps.
    q = np.full((1, 30), -128, np.int8)
    q[0, 0] = 119  # 247 / 256: the other 29 lost 0.3 steps each
    grid = OutputFormat(FILE, 1 / 256, -128, 1 / 256, "SOFTMAX")
    assert probabilities_of(q, grid, False)[0, 0] == np.float32(247 / 256)
    q[0, 0] = 100
    with pytest.raises(DataError):
        probabilities_of(q, grid, False)


def test_softmax_of_large_logits_stays_exact() -> None:
    z = np.array([[1000.0, 998.0], [-1000.0, -1000.0]], np.float32)
    got = probabilities_of(z, _float(), True)
    np.testing.assert_allclose(got, [[1 / (1 + np.exp(-2)), 1 / (1 + np.exp(2))], [0.5, 0.5]], rtol=1e-6)
    one = probabilities_of(np.array([[0.0], [800.0], [-2.0]], np.float32), _float(), True)
    np.testing.assert_allclose(one[:, 1], [0.5, 1.0, 1 / (1 + np.exp(2))], rtol=1e-6)


def test_integers_without_a_scale_are_no_output() -> None:
    with pytest.raises(ArtifactError):
        probabilities_of(np.zeros((1, 2), np.int8), OutputFormat(FILE, None, None, 0.0, None), False)
