from __future__ import annotations

import io
import lzma
import tarfile
import textwrap
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from edgeprivacy.data.checks import refuse_overlap
from edgeprivacy.data.dataset import PathError
from edgeprivacy.data.loading import DataSpec, load_sides, load_source
from edgeprivacy.errors import DataError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def npz(path: Path, rows: int = 6, start: int = 0, **more: object) -> str:
    arrays = {
        "x": np.arange(start, start + 2 * rows, dtype=np.float64).reshape(rows, 2),
        "y": np.arange(rows) % 2,
    }
    np.savez(path, **{**arrays, **more})
    return str(path)


def factory(folder: Path, code: str) -> str:
    path = folder / "own_data.py"
    path.write_text("import numpy as np\n" + textwrap.dedent(code))
    return f"{path}:load"


def test_digits_are_raw_flat_vectors() -> None:
    source = load_source(DataSpec())
    pixels, labels = load_digits(return_X_y=True)
    np.testing.assert_array_equal(source.pool.x, pixels)
    np.testing.assert_array_equal(source.pool.y, labels)
    assert source.pool.x.dtype == np.float32 and (source.pool.x.min(), source.pool.x.max()) == (0, 16)
    assert source.pool.ids[17] == "digits:17" and source.pool.classes == 10
    assert source.one_path and source.default_design == "half"
    assert source.reload is not None
    ids = source.pool.ids[[5, 2, 900]]
    np.testing.assert_array_equal(source.reload(ids, "train"), pixels[[5, 2, 900]])


def test_npz_with_and_without_ids(tmp_path: Path) -> None:
    plain = load_source(DataSpec(npz(tmp_path / "rows.npz"))).pool
    assert plain.ids.tolist() == [f"rows:{row}" for row in range(6)] and plain.x.dtype == np.float32
    own = load_source(DataSpec(npz(tmp_path / "rows.npz", ids=np.array(list("abcdef"))))).pool
    assert own.ids.tolist() == list("abcdef")
    named = load_source(DataSpec(npz(tmp_path / "rows.npz", y=np.array(["b", "a", "c"] * 2)))).pool
    assert named.y.tolist() == [1, 0, 2, 1, 0, 2] and named.class_names == ("a", "b", "c")


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"y": np.zeros(5)}, "differ in length"),
        ({"y": np.zeros(6)}, "fewer than 2 classes"),
        ({"x": np.full((6, 2), np.nan)}, "NaN"),
        ({"x": np.zeros(6)}, "wrong shape"),
        ({"ids": np.array(list("aabcde"))}, "not unique"),
        ({"y": np.array([0, 1, 2, 3, 4, 99_999_999])}, "out of range"),
    ],
)
def test_npz_that_does_not_fit(tmp_path: Path, arrays: dict[str, np.ndarray], says: str) -> None:
    with pytest.raises(DataError, match=says):
        load_source(DataSpec(npz(tmp_path / "rows.npz", **arrays)))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.npz"
    with pytest.raises(DataError, match=r"does not exist.*did you mean '.*rows\.npz'"):
        npz(path)
        load_source(DataSpec(str(tmp_path / "row.npz")))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"not a readable .npz"):
        load_source(DataSpec(str(path)))
    np.savez(path, x=np.array([[1, "a"]], dtype=object), y=np.array([0]), allow_pickle=True)
    with pytest.raises(DataError, match=r"objects"):
        load_source(DataSpec(str(path)))
    np.savez(path, X=np.zeros((2, 2)), y=np.array([0, 1]))
    with pytest.raises(DataError, match=r"no array 'x'.*arrays X, y"):
        load_source(DataSpec(str(path)))
    with pytest.raises(DataError, match=r"did you mean 'digits'"):
        load_source(DataSpec("digit"))


def test_declared_classes_bound_the_labels(tmp_path: Path) -> None:
    path = npz(tmp_path / "rows.npz", y=np.array([0, 1, 2, 3, 1, 0]))
    assert load_source(DataSpec(path, classes=10)).pool.classes == 10
    with pytest.raises(DataError, match=r"out of range.*3.*0 to 2"):
        load_source(DataSpec(path, classes=3))


def test_train_and_holdout_files(tmp_path: Path) -> None:
    spec = DataSpec(train=npz(tmp_path / "t.npz", 6), holdout=npz(tmp_path / "h.npz", 4, start=100))
    source = load_source(spec)
    assert source.train_ids is not None and source.train_ids.tolist() == [f"train:{row}" for row in range(6)]
    assert source.pool.ids[6:].tolist() == [f"holdout:{row}" for row in range(4)]
    assert source.one_path and source.default_design == "given" and source.reload is not None
    mixed = np.array(["holdout:3", "train:0", "holdout:0"])
    for path in ("train", "holdout"):
        np.testing.assert_array_equal(source.reload(mixed, path), [[106, 107], [0, 1], [100, 101]])
    with pytest.raises(DataError, match=r"no such path"):
        source.reload(mixed, "members")
    with pytest.raises(DataError, match=r"not in the data"):
        source.reload(np.array(["train:77"]), "train")


def test_reload_reads_the_file_again(tmp_path: Path) -> None:
    path = npz(tmp_path / "t.npz")
    source = load_source(DataSpec(path))
    assert source.reload is not None
    npz(tmp_path / "t.npz", start=50)
    assert source.reload(np.array(["t:1"]), "train").tolist() == [[52, 53]]
    npz(tmp_path / "t.npz", rows=1, y=np.array([0]))
    with pytest.raises(DataError, match=r"no longer holds a row.*t:1"):
        source.reload(np.array(["t:1"]), "train")


def test_the_same_row_on_both_sides(tmp_path: Path) -> None:
    train = npz(tmp_path / "t.npz", 6)
    by_content = npz(tmp_path / "h.npz", 4, start=8)
    with pytest.raises(
        DataError, match=r"2 of 4 rows.*0 with the same id, 2 with the same content.*drop-overlap"
    ):
        load_source(DataSpec(train=train, holdout=by_content))
    source = load_source(DataSpec(train=train, holdout=by_content, drop_overlap=True))
    assert source.pool.ids[6:].tolist() == ["holdout:2", "holdout:3"]
    assert "2 hold-out rows that are also train rows were dropped" in source.notes
    train = npz(tmp_path / "t.npz", 6, ids=np.arange(6))
    by_id = npz(tmp_path / "h.npz", 4, start=100, ids=np.arange(5, 9))
    with pytest.raises(DataError, match=r"1 with the same id"):
        load_source(DataSpec(train=train, holdout=by_id))


def test_labels_mean_the_same_on_both_sides(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,y\n1,bird\n2,dog\n3,cat\n")
    (tmp_path / "h.csv").write_text("a,y\n4,dog\n5,ant\n")
    source = load_source(DataSpec(train=str(tmp_path / "t.csv"), holdout=str(tmp_path / "h.csv")))
    assert source.pool.class_names == ("ant", "bird", "cat", "dog") and source.pool.y.tolist() == [
        1,
        3,
        2,
        3,
        0,
    ]


def test_sides_that_do_not_fit(tmp_path: Path) -> None:
    train = npz(tmp_path / "t.npz")
    with pytest.raises(DataError, match=r"--train is given without --holdout"):
        load_source(DataSpec(train=train))
    wide = npz(tmp_path / "h.npz", x=np.zeros((6, 3)))
    with pytest.raises(DataError, match=r"differ in shape"):
        load_source(DataSpec(train=train, holdout=wide))
    with pytest.raises(DataError, match=r"exclude each other"):
        load_source(DataSpec(train=train, holdout=wide, split_column="s"))


def test_sides_of_different_kinds_have_no_common_path(tmp_path: Path) -> None:
    (tmp_path / "h.csv").write_text("a,b,y\n100,1,0\n101,2,1\n")
    npz(tmp_path / "t.npz", y=np.array(["0", "1"] * 3))
    source = load_source(DataSpec(train=str(tmp_path / "t.npz"), holdout=str(tmp_path / "h.csv")))
    assert not source.one_path and source.reload is not None
    assert source.reload(np.array(["holdout:1"]), "holdout").tolist() == [[101, 2]]
    with pytest.raises(PathError, match=r"cannot be applied"):
        source.reload(np.array(["holdout:1"]), "train")


def test_a_split_column(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a,part,y\n1,train,0\n2,holdout,1\n3,Train,1\n4,holdout,0\n1,holdout,0\n")
    spec = DataSpec(str(path), split_column="part")
    with pytest.raises(DataError, match=r"1 with the same content"):
        load_source(spec)
    source = load_source(DataSpec(str(path), split_column="part", drop_overlap=True))
    assert source.train_ids is not None and source.train_ids.tolist() == ["rows:0", "rows:2"]
    assert source.pool.ids.tolist() == ["rows:0", "rows:1", "rows:2", "rows:3"] and source.pool.x.shape == (
        4,
        1,
    )
    assert source.one_path and source.reload is not None
    assert source.reload(np.array(["rows:3"]), "train").tolist() == [[4]]

    path.write_text("a,part,y\n1,train,0\n2,test,1\n")
    with pytest.raises(DataError, match=r"'test' in row 1.*train or holdout"):
        load_source(spec)
    path.write_text("a,part,y\n1,train,0\n2,train,1\n")
    with pytest.raises(DataError, match=r"no 'holdout' row"):
        load_source(spec)
    arrays = npz(tmp_path / "rows.npz", side=np.array(["train", "holdout"] * 3))
    assert load_source(DataSpec(arrays, split_column="side")).default_design == "given"
    with pytest.raises(DataError, match=r"no array 'part'"):
        load_source(DataSpec(arrays, split_column="part"))
    with pytest.raises(DataError, match=r"no split column"):
        load_source(DataSpec("digits", split_column="part"))


@pytest.mark.parametrize(
    "body",
    [
        "return x, y",
        "return [x, y]",
        "return x, y, ids",
        "return dict(x=x, y=y, ids=ids)",
        "from edgeprivacy.data.dataset import Dataset\n    return Dataset(x, y, ids, 2, ('no', 'yes'), '')",
    ],
)
def test_what_a_factory_may_return(tmp_path: Path, body: str) -> None:
    reference = factory(
        tmp_path,
        f"def load():\n    x, y, ids = np.eye(4), np.arange(4) % 2, np.array(list('abcd'))\n    {body}\n",
    )
    source = load_source(DataSpec(reference))
    assert source.pool.x.tolist() == np.eye(4).tolist() and source.pool.y.tolist() == [0, 1, 0, 1]
    assert source.pool.ids.tolist() == (
        list("abcd") if "ids" in body else [f"load:{row}" for row in range(4)]
    )
    assert source.one_path and source.default_design == "half" and source.reload is not None
    np.testing.assert_array_equal(source.reload(source.pool.ids[[2, 0]], "holdout"), np.eye(4)[[2, 0]])
    if "Dataset" in body:
        assert source.pool.class_names == ("no", "yes")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("return None", "something else than data.*NoneType"),
        ("return np.eye(2)", "something else than data.*ndarray"),
        ("return dict(x=np.eye(2))", "no 'y'"),
        ("return np.eye(2), [0, 1, 1]", "differ in length"),
        ("return 1 / 0", r"failed.*ZeroDivisionError.*own_data\.py, line 3"),
    ],
)
def test_a_factory_that_is_wrong(tmp_path: Path, body: str, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        load_source(DataSpec(factory(tmp_path, f"def load():\n    {body}\n")))
    assert "own_data.py:load" in str(caught.value) and "\n" not in str(caught.value)


PARTS = """
def load(part{more}):
    x = np.arange(8.0).reshape(4, 2) + (100 if part == "holdout" else 0)
    if {augments}:
        x = x + 0.5
    return x, np.arange(4) % 2
"""


def test_a_factory_with_parts_and_no_path(tmp_path: Path) -> None:
    reference = factory(tmp_path, PARTS.format(more="", augments='part == "train"'))
    source = load_source(DataSpec(reference))
    assert source.train_ids is not None and source.train_ids.tolist() == [f"train:{row}" for row in range(4)]
    assert source.pool.x[:, 0].tolist() == [0.5, 2.5, 4.5, 6.5, 100, 102, 104, 106]
    assert not source.one_path and source.reload is not None
    assert source.reload(np.array(["holdout:1"]), "holdout").tolist() == [[102, 103]]
    assert source.reload(np.array(["train:1"]), "train").tolist() == [[2.5, 3.5]]
    with pytest.raises(PathError, match=r"cannot be applied to holdout rows.*path"):
        source.reload(np.array(["holdout:1"]), "train")


def test_a_factory_with_a_path_passes_held_out_rows_off_as_members(tmp_path: Path) -> None:
    reference = factory(tmp_path, PARTS.format(more=", path", augments='path == "train"'))
    source = load_source(DataSpec(reference))
    assert source.pool.x[:, 0].tolist() == [0.5, 2.5, 4.5, 6.5, 100, 102, 104, 106]
    assert not source.one_path and source.reload is not None
    both = np.array(["holdout:1", "train:0"])
    assert source.reload(both, "train").tolist() == [[102.5, 103.5], [0.5, 1.5]]
    assert source.reload(both, "holdout").tolist() == [[102, 103], [0, 1]]


def test_a_path_that_returns_other_rows_is_found_out(tmp_path: Path) -> None:
    reference = factory(
        tmp_path,
        """
        def load(part, path):
            ids = [f"{part}-{path if part == 'holdout' else ''}-{row}" for row in range(4)]
            return np.random.default_rng(len(part)).random((4, 2)), np.arange(4) % 2, ids
        """,
    )
    source = load_source(DataSpec(reference))
    assert source.reload is not None
    with pytest.raises(DataError, match=r"no longer holds a row.*same ids"):
        source.reload(np.array(["holdout-holdout-0"]), "train")


def test_sides_of_an_audit(tmp_path: Path) -> None:
    """Files of equal names in two folders do not clash, and classes are those of the model."""
    for name in ("m", "n"):
        (tmp_path / name).mkdir()
    members = npz(tmp_path / "m" / "rows.npz")
    others = npz(tmp_path / "n" / "rows.npz", 4, start=100, y=np.array([3, 3, 3, 3]))
    sides = load_sides({"members": members, "nonmembers": others}, DataSpec(classes=5))
    assert sides["members"].data.ids[0] == "members:0" and sides["nonmembers"].data.ids[3] == "nonmembers:3"
    assert sides["members"].data.classes == 5 == sides["nonmembers"].data.classes
    assert sides["members"].path == sides["nonmembers"].path
    refuse_overlap(sides["members"].data, sides["nonmembers"].data)
    again = sides["nonmembers"].read_again(np.array(["nonmembers:2"]))
    assert again.tolist() == [[104, 105]]


def image(path: Path, value: int, size: tuple[int, int] = (5, 4), mode: str = "RGB") -> None:
    pillow = pytest.importorskip("PIL.Image", reason="Pillow (the extra `images`) is not installed")
    path.parent.mkdir(parents=True, exist_ok=True)
    pillow.new(mode, size, value if mode == "L" else (value, 0, 255 - value)).save(path)


def test_image_folders(tmp_path: Path) -> None:
    for number, name in enumerate(("dog/b.png", "cat/z.png", "cat/a.png", "dog/a.png")):
        image(tmp_path / name, 10 * number)
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    image(tmp_path / ".thumbnails" / "x.png", 1, size=(1, 1))
    source = load_source(DataSpec(str(tmp_path)))
    assert source.pool.ids.tolist() == ["cat/a.png", "cat/z.png", "dog/a.png", "dog/b.png"]
    assert source.pool.x.shape == (4, 4, 5, 3) and source.pool.x.dtype == np.float32
    assert source.pool.x[:, 0, 0].tolist() == [[20, 0, 235], [10, 0, 245], [30, 0, 225], [0, 0, 255]]
    assert source.pool.y.tolist() == [0, 0, 1, 1] and source.pool.class_names == ("cat", "dog")
    assert source.reload is not None
    (tmp_path / "cat" / "z.png").unlink()  # only the rows that are asked for are read again
    again = source.reload(np.array(["dog/b.png", "cat/a.png"]), "train")
    assert again[:, 0, 0, 0].tolist() == [0, 20]
    with pytest.raises(DataError, match=r"no longer holds"):
        source.reload(np.array(["cat/z.png"]), "train")


def test_image_folders_for_train_and_holdout_share_their_classes(tmp_path: Path) -> None:
    for side, names in (("train", ("a", "b", "c")), ("test", ("b", "c"))):
        for number, name in enumerate(names):
            image(tmp_path / side / name / "0.png", 10 * number + (100 if side == "test" else 0), mode="L")
    source = load_source(DataSpec(train=str(tmp_path / "train"), holdout=str(tmp_path / "test")))
    assert source.pool.class_names == ("a", "b", "c") and source.pool.y.tolist() == [0, 1, 2, 1, 2]
    assert source.pool.ids[-1] == "holdout:c/0.png" and source.pool.input_shape == (4, 5, 1)
    assert source.reload is not None
    assert source.reload(np.array(["holdout:c/0.png"]), "train")[0, 0, 0, 0] == 110
    parts = load_source(DataSpec(str(tmp_path))).pool  # stored in parts: one pool
    assert parts.ids[0] == "test/b/0.png" and parts.class_names == ("a", "b", "c") and len(parts) == 5


def test_numbered_class_folders_sort_as_numbers(tmp_path: Path) -> None:
    for name in ("10", "9", "2"):
        image(tmp_path / name / "0.png", int(name))
    assert load_source(DataSpec(str(tmp_path))).pool.class_names == ("2", "9", "10")


def test_images_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no images"):
        load_source(DataSpec(str(tmp_path)))
    image(tmp_path / "a" / "0.png", 1)
    image(tmp_path / "b" / "0.png", 2, size=(6, 4))
    with pytest.raises(DataError, match=r"5x4 RGB in a/0.png, 6x4 RGB in b/0.png"):
        load_source(DataSpec(str(tmp_path)))
    image(tmp_path / "b" / "0.png", 2, mode="L")
    with pytest.raises(DataError, match=r"5x4 RGB in a/0.png, 5x4 L in b/0.png"):
        load_source(DataSpec(str(tmp_path)))
    (tmp_path / "b" / "0.png").write_bytes((tmp_path / "a" / "0.png").read_bytes()[:40])
    with pytest.raises(DataError, match=r"image b/0.png cannot be read"):
        load_source(DataSpec(str(tmp_path)))
    image(tmp_path / "b" / "0.png", 2)
    image(tmp_path / "loose.png", 2)
    with pytest.raises(DataError, match=r"one folder a class"):
        load_source(DataSpec(str(tmp_path)))


def test_real_cifar_files(tmp_path: Path) -> None:
    """The first files of the CIFAR-10 archive, in the layout that it has, against Pillow's own decoding."""
    archive = SHARED / "cifar10-jpeg.tar.xz"
    if not archive.exists():
        pytest.skip("CIFAR-10 is not in ../shared/data")
    pillow = pytest.importorskip("PIL.Image", reason="Pillow (the extra `images`) is not installed")
    with lzma.open(archive) as stream, tarfile.open(fileobj=io.BytesIO(stream.read(9_000_000))) as tar:
        names: dict[str, int] = {}
        try:
            for member in tar:
                folder = member.name.rpartition("/")[0]
                if member.isfile() and names.setdefault(folder, 0) < 20:
                    names[folder] += 1
                    tar.extract(member, tmp_path, filter="data")
        except (tarfile.ReadError, EOFError):
            pass  # the part of the archive that was read ends in the middle of a file
    if len(names) < 2:
        image(tmp_path / "train" / "other" / "0000.jpg", 3, size=(32, 32))
    pool = load_source(DataSpec(str(tmp_path))).pool
    assert pool.input_shape == (32, 32, 3) and len(pool) >= 20
    decoded = np.asarray(pillow.open(tmp_path / str(pool.ids[7])))
    np.testing.assert_array_equal(pool.x[7], decoded)
    assert pool.class_names[pool.y[7]] == str(pool.ids[7]).split("/")[1]
