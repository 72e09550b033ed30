from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprivacy.data.loading import DataSpec, load_source
from edgeprivacy.data.tables import read_table
from edgeprivacy.errors import DataError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def write(folder: Path, text: str, name: str = "rows.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_the_last_column_is_the_label(tmp_path: Path) -> None:
    rows = read_table(write(tmp_path, "a,b,kind\n1,2,cat\n3,4,dog\n"))
    assert rows.x.tolist() == [[1, 2], [3, 4]] and rows.labels.tolist() == ["cat", "dog"]
    assert rows.x.dtype == np.float32 and rows.row_ids().tolist() == ["rows:0", "rows:1"]


def test_a_column_named_label_is_the_label_wherever_it_stands(tmp_path: Path) -> None:
    rows = read_table(write(tmp_path, "label,p0,p1\n5,1,2\n6,3,4\n"))
    assert rows.x.tolist() == [[1, 2], [3, 4]] and rows.labels.tolist() == ["5", "6"]


@pytest.mark.parametrize(
    ("label", "labels", "x"),
    [
        ("b", ["2", "5"], [[1, 3], [4, 6]]),
        ("0", ["1", "4"], [[2, 3], [5, 6]]),
        ("-1", ["3", "6"], [[1, 2], [4, 5]]),
        ("-3", ["1", "4"], [[2, 3], [5, 6]]),
    ],
)
@pytest.mark.parametrize("header", [True, False])
def test_the_label_by_name_or_index(
    tmp_path: Path, label: str, labels: list[str], x: list[list[int]], header: bool
) -> None:
    if label == "b" and not header:
        with pytest.raises(DataError, match=r"go by index"):
            read_table(write(tmp_path, "1,2,3\n"), label, header=False)
        return
    rows = read_table(write(tmp_path, ("a,b,c\n" if header else "") + "1,2,3\n4,5,6\n"), label, header)
    assert rows.labels.tolist() == labels and rows.x.tolist() == x


def test_quotes_semicolons_bom_blank_lines_and_crlf(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes('\ufeff"a";"b";"kind"\r\n1;2;"x;y"\r\n\r\n3;4;z\r\n'.encode())
    rows = read_table(path, "kind")
    assert rows.labels.tolist() == ["x;y", "z"] and rows.x.tolist() == [[1, 2], [3, 4]]


def test_only_a_column_named_id_gives_ids(tmp_path: Path) -> None:
    rows = read_table(write(tmp_path, "id,a,y\nu1,1,0\nu2,2,1\n"))
    assert rows.row_ids("train").tolist() == ["u1", "u2"] and rows.x.tolist() == [[1], [2]]
    plain = read_table(write(tmp_path, "ID,a,y\n1,1,0\n2,2,1\n"))
    assert plain.row_ids("train").tolist() == ["train:0", "train:1"] and plain.x.shape == (2, 2)
    with pytest.raises(DataError, match=r"not unique"):
        read_table(write(tmp_path, "id,a,y\nu,1,0\nu,2,1\n"))


@pytest.mark.parametrize(
    ("text", "label", "header", "says"),
    [
        ("", None, True, "is empty"),
        ("a,b\n", None, True, "no rows"),
        ("a,b\n1,0\n2\n", None, True, "line 3 .* has 1 cells, others 2"),
        ("a,b,y\n1,2,0\n1,x,1\n", None, True, r"line 3, column 'b' .*not a number.*'x'"),
        ("a,b,y\n1,2,0\n1,,1\n", None, True, r"line 3, column 'b' .*is empty"),
        ("a,b,y\n1,2,0\nnan,3,1\n", None, True, r"line 3, column 'a' .*NaN"),
        ("a,b,y\n1,2,0\n1,1e99,1\n", None, True, r"line 3, column 'b' .*beyond float32"),
        ("a,b,y\n1,2,0\n", "kind", True, "no label column 'kind'"),
        ("alpha,beta,y\n1,2,0\n", "bete", True, "did you mean 'beta'"),
        ("a,b,y\n1,2,0\n", "7", True, "no column 7"),
        ("a,b,y\n1,2,0\n", None, False, "leave out --no-header"),
        ("13,0,1,0\n2,1,1,0\n", None, True, "--no-header"),
        ("y\n1\n", None, True, "no feature column"),
        ("a,a,y\n1,2,3\n", "a", True, "two columns named"),
        ('a,b,y\n"1,2,0\n', None, True, "not a readable CSV"),
    ],
)
def test_bad_files_in_one_line(tmp_path: Path, text: str, label: str | None, header: bool, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        read_table(write(tmp_path, text), label, header)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not exist"):
        read_table(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)) * 10)
    with pytest.raises(DataError, match=r"not a readable CSV"):
        read_table(tmp_path / "binary.csv")


def test_number_labels_sort_as_numbers_and_names_as_names(tmp_path: Path) -> None:
    source = load_source(DataSpec(str(write(tmp_path, "a,y\n0,10\n1,9\n2,2\n3,10\n"))))
    assert source.pool.class_names == ("2", "9", "10") and source.pool.y.tolist() == [2, 1, 0, 2]
    assert "classes 0 to 2" in source.notes[0]
    named = load_source(DataSpec(str(write(tmp_path, "a,y\n0,dog\n1,cat\n2,10\n"))))
    assert named.pool.class_names == ("10", "cat", "dog") and named.pool.y.tolist() == [2, 1, 0]
    with pytest.raises(DataError, match=r"not a whole number.*0\.5"):
        load_source(DataSpec(str(write(tmp_path, "a,y\n0,0.5\n1,1\n"))))
    with pytest.raises(DataError, match=r"fewer than 2 classes"):
        load_source(DataSpec(str(write(tmp_path, "a,y\n0,1\n1,1\n"))))


def test_a_declared_number_of_classes_keeps_labels_as_indices(tmp_path: Path) -> None:
    path = str(write(tmp_path, "a,y\n0,0\n1,3\n2,1\n"))
    assert load_source(DataSpec(path)).pool.y.tolist() == [0, 2, 1]
    kept = load_source(DataSpec(path, classes=5)).pool
    assert kept.y.tolist() == [0, 3, 1] and kept.classes == 5
    with pytest.raises(DataError, match=r"more classes than declared"):
        load_source(DataSpec(path, classes=2))
    with pytest.raises(DataError, match=r"fewer classes than declared"):
        load_source(DataSpec(str(write(tmp_path, "a,y\n0,cat\n1,dog\n")), classes=3))


@settings(deadline=None, max_examples=25)
@given(
    st.lists(
        st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=3, max_size=3), min_size=1, max_size=20
    )
)
def test_values_come_back_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, x: list[list[float]]
) -> None:
    text = "".join(",".join([*map(repr, row), "c"]) + "\n" for row in x)
    path = write(tmp_path_factory.mktemp("csv"), text)
    np.testing.assert_array_equal(read_table(path, header=False).x, np.array(x, np.float32))


@pytest.fixture(scope="module")
def location(tmp_path_factory: pytest.TempPathFactory) -> Path:
    archive = SHARED / "location30.tgz"
    if not archive.exists():
        pytest.skip("Location-30 is not in ../shared/data")
    folder = tmp_path_factory.mktemp("location")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / "bangkok"


def test_location(location: Path) -> None:
    """Against the raw text: no header, quoted class first, 446 zeros and ones, no suffix."""
    pool = load_source(DataSpec(str(location), label="0", header=False)).pool
    lines = location.read_text().split()
    assert pool.x.shape == (5010, 446) and pool.classes == 30 and pool.class_names[0] == "1"
    assert set(np.unique(pool.x)) == {0.0, 1.0}
    for row in (0, 1, 2500, 5009):
        label, features = lines[row].split(",", 1)
        assert pool.class_names[pool.y[row]] == label.strip('"')
        assert ",".join(str(int(value)) for value in pool.x[row]) == features
    assert pool.ids[17] == "bangkok:17"
    with pytest.raises(DataError, match=r"--no-header"):
        load_source(DataSpec(str(location), label="0"))


def test_several_label_columns_are_independent_labels(tmp_path: Path) -> None:
    path = write(tmp_path, "glasses,a,smiling,id,b\n1,0.5,0,u,2\n0,1.5,1.0,v,3\n1,2.5,1,w,4\n")
    for label in ("smiling,glasses", "2, 0", "-3,-5"):
        rows = read_table(path, label)
        assert rows.labels.tolist() == [[0, 1], [1, 0], [1, 1]] and rows.labels.dtype == np.int64
        assert rows.x.tolist() == [[0.5, 2], [1.5, 3], [2.5, 4]] and rows.columns == ("a", "b")
        assert rows.class_names == ("smiling", "glasses")
    pool = load_source(DataSpec(source=str(path), label="smiling,glasses", label_sets=True)).pool
    assert (pool.classes, pool.class_names, pool.label_sets) == (2, ("smiling", "glasses"), True)
    # A name with a comma in it is that column's.
    both = write(tmp_path, '"x,y",a\n7,1\n8,2\n')
    assert read_table(both, "x,y").labels.tolist() == ["7", "8"]


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("smiling,b", r"label 'b' of rows.csv, one of several, holds another value; given: '2' in row 0"),
        ("smiling,2", "is named twice"),
        ("smiling,smilng", "has no label column 'smilng'"),
    ],
)
def test_several_label_columns_that_are_none(tmp_path: Path, label: str, words: str) -> None:
    path = write(tmp_path, "glasses,a,smiling,id,b\n1,0.5,0,u,2\n0,1.5,1,v,3\n")
    with pytest.raises(DataError, match=words):
        read_table(path, label)
    with pytest.raises(DataError, match="one label a row here"):
        load_source(DataSpec(source=str(path), label="smiling,glasses"))
