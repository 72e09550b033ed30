"""Files that are whole or not there, and hashes that see every change."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from edgeprivacy.errors import EXIT_RUNTIME, EXIT_USAGE, DataError, StorageError
from edgeprivacy.files import (
    atomic_path,
    read_npz,
    sha256_arrays,
    sha256_file,
    sha256_json,
    write_bytes,
    write_json,
    write_npz,
    write_text,
)


def test_a_file_appears_whole_and_leaves_no_other(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "a.bin"
    write_bytes(path, b"one")
    write_bytes(path, b"two")
    assert path.read_bytes() == b"two"
    assert [entry.name for entry in path.parent.iterdir()] == ["a.bin"]


def test_while_it_is_written_the_old_file_stands(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        assert path.read_text() == "old" and temporary.parent == path.parent
    assert path.read_text() == "half"


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(ValueError, match="broken"), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise ValueError("broken")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_without_nan_and_the_old_file_kept(tmp_path: Path, value: float) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"ü": [1, None]})
    with pytest.raises(ValueError):
        write_json(path, {"x": value})
    assert json.loads(path.read_text(encoding="utf-8")) == {"ü": [1, None]}


def test_arrays_come_back_as_they_were(tmp_path: Path) -> None:
    arrays = {
        "x": np.arange(6, dtype=np.float32).reshape(2, 3),
        "ids": np.array(["ä", "b"]),
        "zero": np.array(3),
    }
    write_npz(tmp_path / "a.npz", **arrays)
    found = read_npz(tmp_path / "a.npz")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_the_same_arrays_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        write_npz(tmp_path / name, x=np.arange(5))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_python_objects_are_neither_written_nor_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"[Oo]bject"):
        write_npz(tmp_path / "a.npz", x=np.array([{}], dtype=object))
    assert list(tmp_path.iterdir()) == []
    np.savez(tmp_path / "evil.npz", x=np.array([{}], dtype=object))
    with pytest.raises(DataError, match="Python objects"):
        read_npz(tmp_path / "evil.npz")


def test_missing_truncated_and_foreign_files_are_one_line(tmp_path: Path) -> None:
    good = tmp_path / "good.npz"
    write_npz(good, x=np.arange(1000))
    (tmp_path / "cut.npz").write_bytes(good.read_bytes()[:500])
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps([1]))
    (tmp_path / "empty.npz").write_bytes(b"")
    damaged = bytearray(good.read_bytes())
    damaged[200] ^= 1
    (tmp_path / "bit.npz").write_bytes(damaged)
    for name in ("cut", "text", "pickle", "empty", "bit", "none"):
        with pytest.raises(DataError) as caught:
            read_npz(tmp_path / f"{name}.npz")
        assert caught.value.exit_code == EXIT_USAGE
        assert name in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(DataError):
        read_npz(tmp_path)


@pytest.mark.parametrize("what", ["bytes", "npz", "text"])
def test_a_full_disk_is_a_storage_error_and_the_old_file_stays(full_disk: Path, what: str) -> None:
    path = full_disk / "a.file"
    path.write_text("old")
    with pytest.raises(StorageError, match="No space left") as caught:
        if what == "bytes":
            write_bytes(path, bytes(100_000))
        elif what == "npz":
            write_npz(path, x=np.arange(100_000))
        else:
            write_text(path, "x" * 100_000)
    assert caught.value.exit_code == EXIT_RUNTIME == 4
    assert path.read_text() == "old"
    assert [entry.name for entry in full_disk.iterdir()] == ["a.file"]
    write_bytes(path, bytes(10_000))  # nothing half-written fills the disk


def test_a_place_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file" / "a.txt", tmp_path / ("x" * 300), tmp_path):
        with pytest.raises(StorageError, match="cannot write") as caught:
            write_text(path, "x")
        assert "\n" not in str(caught.value)


def test_file_hash_is_sha256(tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(3_000_000)
    (tmp_path / "a").write_bytes(content)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_array_hash_sees_dtype_shape_order_and_content_not_memory_layout() -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    same = sha256_arrays(x)
    assert sha256_arrays(np.asfortranarray(x)) == sha256_arrays(x[:, ::-1][:, ::-1]) == same
    different = [x.reshape(4, 3), x.astype(np.float64), x.view(np.int32), x + np.eye(3, 4), x.T]
    assert len({same, *(sha256_arrays(array) for array in different)}) == 6
    a, b = np.array([1, 2]), np.array([3])
    assert len({sha256_arrays(a, b), sha256_arrays(b, a), sha256_arrays(np.array([1, 2, 3]))}) == 3
    assert sha256_arrays(np.array(["a", "b"])) != sha256_arrays(np.array(["a", "c"]))
    assert sha256_arrays(np.empty((0, 3))) != sha256_arrays(np.empty((0, 2)))


def test_json_hash_ignores_the_order_of_keys_and_refuses_nan() -> None:
    assert sha256_json({"a": 1, "b": [2, 3]}) == sha256_json({"b": [2, 3], "a": 1})
    assert sha256_json({"a": 1}) == hashlib.sha256(b'{"a":1}').hexdigest()
    assert sha256_json([2, 3]) != sha256_json([3, 2])
    with pytest.raises(ValueError):
        sha256_json({"a": float("nan")})
