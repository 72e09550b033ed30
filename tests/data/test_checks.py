from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprivacy.data.checks import (
    as_ids,
    as_inputs,
    as_labels,
    drop_overlap,
    overlap,
    refuse_overlap,
    repeated_rows,
)
from edgeprivacy.data.dataset import Dataset
from edgeprivacy.errors import DataError


def dataset(x: object, ids: list[str]) -> Dataset:
    x = np.asarray(x, dtype=np.float32)
    return Dataset(x, np.zeros(len(x), np.int64), np.array(ids), 2, ("0", "1"), "test")


@pytest.mark.parametrize(
    ("x", "says"),
    [
        ([1.0, 2.0], "wrong shape"),
        (np.zeros((0, 3)), "empty"),
        (np.zeros((3, 0)), "empty"),
        ([[1.0, 2.0], [3.0]], "differ in shape"),
        (np.array([[1, "a"]], dtype=object), "Python objects"),
        (np.array([["1", "2"]]), "not numeric"),
        (np.array([[1 + 2j]]), "not numeric"),
        (np.array([[1.0, 1e300]]), "beyond float32"),
    ],
)
def test_inputs_that_are_refused(x: object, says: str) -> None:
    with pytest.raises(DataError, match=says):
        as_inputs(x, "here.npz")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_named_by_row_and_column(bad: float) -> None:
    x = np.zeros((5, 4))
    x[3, 2] = bad
    with pytest.raises(DataError, match=r"row 3, column 2 .*counted from 0") as caught:
        as_inputs(x, "here.npz")
    assert "here.npz" in str(caught.value)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float64, bool])
def test_inputs_keep_their_values(dtype: type) -> None:
    x = np.arange(24).reshape(2, 3, 4).astype(dtype)
    assert as_inputs(x, "here").dtype == np.float32
    np.testing.assert_array_equal(as_inputs(x, "here"), x)


@pytest.mark.parametrize(
    ("y", "says"),
    [
        ([0, 1], "differ in length"),
        (np.eye(3), "argmax"),
        ([0, -1, 1], "out of range.*-1 in row 1"),
        ([0.0, 1.0, 1.5], "not a whole number.*1.5 in row 2"),
        ([0.0, np.nan, 1.0], "not a whole number"),
        ([0, 1, 10**12], "out of range"),
        (np.array([0, 1, None], dtype=object), "Python objects"),
        (["a", "", "b"], "empty.*row 1"),
        (np.array([1j, 2, 3]), "neither numbers nor strings"),
    ],
)
def test_labels_that_are_refused(y: object, says: str) -> None:
    with pytest.raises(DataError, match=says):
        as_labels(y, 3, "here.npz")


def test_labels_that_are_taken() -> None:
    for y in ([0, 1, 2], [0.0, 1.0, 2.0], [[0], [1], [2]], np.array([0, 1, 2], np.uint8)):
        taken = as_labels(y, 3, "here")
        assert taken.dtype == np.int64 and taken.tolist() == [0, 1, 2]
    assert as_labels(np.array(["b", "a"], dtype=object), 2, "here").tolist() == ["b", "a"]
    assert as_labels(np.array([b"b", b"a"]), 2, "here").tolist() == ["b", "a"]


def test_ids_must_be_unique_one_a_row_and_not_empty() -> None:
    assert as_ids([7, 8], 2, "here").tolist() == ["7", "8"]
    with pytest.raises(DataError, match=r"not unique.*'a'"):
        as_ids(["a", "b", "a"], 3, "here")
    with pytest.raises(DataError, match=r"one a row"):
        as_ids(["a"], 2, "here")
    with pytest.raises(DataError, match=r"empty.*row 1"):
        as_ids(["a", " "], 2, "here")


@settings(deadline=None, max_examples=40)
@given(
    a=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12),
    b=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12),
    shared=st.integers(0, 3),
)
def test_overlap_against_plain_sets(a: list[tuple[int, int]], b: list[tuple[int, int]], shared: int) -> None:
    a_ids = [f"a{i}" for i in range(len(a))]
    b_ids = [a_ids[i] if i < min(shared, len(a)) else f"b{i}" for i in range(len(b))]
    found = overlap(dataset(a, a_ids), dataset(b, b_ids))
    assert found.by_id == sum(i in set(a_ids) for i in b_ids)
    assert found.by_content == sum(row in set(a) for row in b)
    rows = [i in set(a_ids) or row in set(a) for i, row in zip(b_ids, b, strict=True)]
    assert found.rows.tolist() == rows
    assert bool(found) == any(rows) == (found.example is not None)
    assert repeated_rows(np.array(a, np.float32)) == len(a) - len(set(a))


def test_negative_zero_is_the_same_content_and_other_shapes_are_not() -> None:
    assert overlap(dataset([[0.0, 1.0]], ["a"]), dataset([[-0.0, 1.0]], ["b"])).by_content == 1
    assert not overlap(dataset([[0.0, 1.0]], ["a"]), dataset([[[0.0], [1.0]]], ["b"]))


def test_overlap_is_refused_with_counts_or_dropped_from_the_non_members() -> None:
    members = dataset([[1, 2], [3, 4], [5, 6]], ["a", "b", "c"])
    others = dataset([[3, 4], [9, 9], [7, 7]], ["x", "y", "c"])
    with pytest.raises(
        DataError, match=r"2 of 3 rows.*1 with the same id, 1 with the same content.*drop-overlap"
    ):
        refuse_overlap(members, others)
    kept, found = drop_overlap(members, others)
    assert kept.ids.tolist() == ["y"] and kept.x.tolist() == [[9, 9]] and found.rows.sum() == 2
    refuse_overlap(members, kept)
    with pytest.raises(DataError, match=r"every non-member"):
        drop_overlap(members, members)


def test_overlap_of_many_rows_is_fast() -> None:
    x = np.random.default_rng(0).normal(size=(50_000, 100)).astype(np.float32)
    ids = np.arange(50_000).astype(str)
    first = Dataset(x, np.zeros(50_000, np.int64), np.char.add("a", ids), 2, ("0", "1"), "a")
    second = Dataset(x[::-1], np.zeros(50_000, np.int64), np.char.add("b", ids), 2, ("0", "1"), "b")
    start = time.process_time()
    assert overlap(first, second).by_content == 50_000
    assert time.process_time() - start < 10


def test_the_hash_of_rows_does_not_depend_on_what_they_were_cut_out_of() -> None:
    narrow, wide = dataset([[1], [2]], ["a", "b"]), dataset([[1], [2], [3]], ["a", "b", "longer-id"])
    assert wide.take(np.array(["a", "b"])).sha256 == narrow.sha256
    assert narrow.sha256 != dataset([[1], [2]], ["a", "c"]).sha256
    with pytest.raises(DataError, match=r"row id is not in the data"):
        narrow.take(np.array(["zz"]))
