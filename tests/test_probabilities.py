"""Tables of outputs: what is written by csv and numpy comes back as the same confidences."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from edgeprivacy.confidences import Confidences, OutputGrid
from edgeprivacy.errors import DataError
from edgeprivacy.probabilities import read_probabilities, read_probability_table

LOGITS = np.random.default_rng(0).normal(size=(12, 3))
P = softmax(LOGITS, axis=1)
Y = np.arange(12) % 3


def write(path: Path, header: list[str] | None, columns: list[object]) -> Path:
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        if header:
            writer.writerow(header)
        writer.writerows(zip(*columns, strict=True))  # type: ignore[call-overload]
    return path


@settings(deadline=None, max_examples=15)
@given(order=st.permutations(range(4)), prefix=st.sampled_from(["p", "prob_", "class", ""]))
def test_columns_go_by_their_number(
    order: list[int], prefix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    names = [f"{prefix}{k}" for k in range(3)] + ["label"]
    columns: list[object] = [*P.T, Y]
    path = write(
        tmp_path_factory.mktemp("t") / "t.csv", [names[i] for i in order], [columns[i] for i in order]
    )
    found = read_probabilities(path)
    np.testing.assert_allclose(found.probabilities, P, rtol=1e-6)
    np.testing.assert_array_equal(found.labels, Y)


def test_labels_go_by_the_names_of_the_columns(tmp_path: Path) -> None:
    names = ["zebra", "ape", "cat"]
    labels = [names[k] for k in Y]
    found = read_probabilities(write(tmp_path / "t.csv", [*names, "label"], [*P.T, labels]))
    np.testing.assert_array_equal(found.labels, Y)  # by position, not by alphabet
    np.testing.assert_allclose(found.probabilities, P, rtol=1e-6)
    counted = write(tmp_path / "u.csv", ["p1", "p2", "p3", "label"], [*P.T, Y + 1])
    np.testing.assert_array_equal(read_probabilities(counted).labels, Y)
    with pytest.raises(DataError, match="did you mean 'zebra'"):
        read_probabilities(write(tmp_path / "v.csv", [*names, "label"], [*P.T, ["zebre", *labels[1:]]]))


def test_without_header_and_with_other_columns(tmp_path: Path) -> None:
    bare = read_probabilities(write(tmp_path / "t.csv", None, [*P.T, Y]), header=False)
    np.testing.assert_allclose(bare.probabilities, P, rtol=1e-6)
    header = ["id", "p0", "p1", "p2", "loss", "y"]
    path = write(tmp_path / "u.csv", header, [[f"r{n}" for n in range(12)], *P.T, np.zeros(12), Y])
    found = read_probabilities(path, label="y")
    np.testing.assert_allclose(found.probabilities, P, rtol=1e-6)
    assert found.row_ids.tolist() == [f"r{n}" for n in range(12)]


def test_logits_need_their_name(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", ["p0", "p1", "p2", "label"], [*LOGITS.T, Y])
    with pytest.raises(DataError, match="pass --logits"):
        read_probabilities(path)
    np.testing.assert_allclose(read_probabilities(path, logits=True).probabilities, P, rtol=1e-5)


def test_one_column_is_the_second_class(tmp_path: Path) -> None:
    p = np.linspace(0.1, 0.9, 9)
    found = read_probabilities(write(tmp_path / "t.csv", ["p", "label"], [p, (p > 0.5).astype(int)]))
    np.testing.assert_allclose(found.probabilities, np.stack([1 - p, p], axis=1), rtol=1e-6)


@pytest.mark.parametrize(
    "words", [("1", "0"), ("True", "False"), ("member", "nonmember"), ("train", "holdout")]
)
def test_a_column_tells_members(tmp_path: Path, words: tuple[str, str]) -> None:
    inside = np.arange(12) % 4 == 1
    cells = [words[0] if member else words[1] for member in inside]
    path = write(tmp_path / "t.csv", ["member", "p0", "p1", "p2", "label"], [cells, *P.T, Y])
    members, nonmembers = read_probability_table(path, "member")
    np.testing.assert_allclose(members.probabilities, P[inside], rtol=1e-6)
    np.testing.assert_array_equal(nonmembers.labels, Y[~inside])
    archive = tmp_path / "t.npz"
    np.savez(archive, probabilities=P, labels=Y, member=inside)
    members, nonmembers = read_probability_table(archive, "member")
    np.testing.assert_array_equal(members.labels, Y[inside])
    assert len(nonmembers.labels) == 9


def test_saved_confidences_come_back_with_grid_and_facts(tmp_path: Path) -> None:
    grid = OutputGrid(1 / 256, -128)
    p = np.round(P * 256) / 256  # sums miss one by a step, as an int8 softmax does
    saved = Confidences(
        p.astype(np.float32), np.array([f"r{n}" for n in range(12)]), Y, grid=grid, facts={"a": 1}
    )
    saved.save(tmp_path / "c.npz")
    found = read_probabilities(tmp_path / "c.npz")
    assert found.grid == grid and found.facts == {"a": 1} and found.log_floor == 1 / 512
    np.testing.assert_array_equal(found.probabilities, saved.probabilities)
    with pytest.raises(DataError, match="leave out --logits"):
        read_probabilities(tmp_path / "c.npz", logits=True)


def test_files_of_one_name_do_not_share_ids(tmp_path: Path) -> None:
    for name, shift in (("a", 0), ("b", 1)):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "t.csv", ["p0", "p1", "p2", "label"], [*P.T, (Y + shift) % 3])
    first, second = (read_probabilities(tmp_path / name / "t.csv").row_ids for name in ("a", "b"))
    assert not set(first) & set(second)


@pytest.mark.parametrize(
    ("header", "columns", "words"),
    [
        (["p0", "p1", "p2", "label"], [*P.T, Y + 5], "out of range"),
        (["p0", "p1", "p2", "label"], [*P.T, [*Y[:-1], -1]], "out of range"),
        (["p0", "p1", "p2", "label"], [*P.T, [*Y[:-1], 1.5]], "not|no class"),
        (["p0", "p1", "p2", "label"], [P[:, 0], [*P[:-1, 1], "nan"], P[:, 2], Y], "NaN"),
        (["p0", "p1", "p2", "label"], [P[:, 0], P[:, 1], P[:, 1], Y], "no probability distributions"),
    ],
)
def test_tables_that_are_none(tmp_path: Path, header: list[str], columns: list[object], words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_probabilities(write(tmp_path / "t.csv", header, columns))


def test_member_columns_that_are_none(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", ["member", "p0", "p1", "p2", "label"], [["maybe"] * 12, *P.T, Y])
    with pytest.raises(DataError, match="another value"):
        read_probability_table(path, "member")
    with pytest.raises(DataError, match="did you mean 'member'"):
        read_probability_table(path, "membre")
    path = write(tmp_path / "u.csv", ["member", "p0", "p1", "p2", "label"], [[1] * 12, *P.T, Y])
    with pytest.raises(DataError, match="no non-member"):
        read_probability_table(path, "member")
