"""A cache entry is whole or not there, whoever makes it and however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgeprivacy.cache import Cache, default_cache_folder, read_meta
from edgeprivacy.errors import EXIT_RUNTIME, StorageError
from edgeprivacy.files import write_json
from edgeprivacy.workers import parallel_map


def visible(cache: Cache) -> list[str]:
    return sorted(path.name for path in cache.folder.glob("*/*/*") if not path.name.startswith("."))


def everything(cache: Cache) -> list[Path]:
    return [path for path in cache.folder.rglob("*") if path.is_file()]


def test_an_entry_is_made_once(tmp_path: Path) -> None:
    cache, made = Cache(tmp_path), []

    def make(folder: Path) -> None:
        made.append(folder)
        assert list(folder.iterdir()) == []
        write_json(folder / "meta.json", {"n": len(made)})

    key = cache.key("stage", {"a": 1})
    first, again = cache.entry("stage", key, make), cache.entry("stage", key, make)
    assert (first[1], again[1]) == (True, False) and first[0] == again[0]
    assert len(made) == 1 and read_meta(first[0]) == {"n": 1}
    assert not made[0].exists()  # made elsewhere, and moved


def test_keys_depend_on_the_stage_and_on_all_content() -> None:
    cache = Cache(Path("unused"))
    keys = [
        cache.key("a", {"x": 1, "y": [1, 2]}),
        cache.key("b", {"x": 1, "y": [1, 2]}),
        cache.key("a", {"x": 1, "y": [2, 1]}),
        cache.key("a", {"x": 1}),
    ]
    assert len(set(keys)) == 4
    assert keys[0] == cache.key("a", {"y": [1, 2], "x": 1})


@pytest.mark.parametrize("error", [RuntimeError("no"), OSError(5, "io"), KeyboardInterrupt()])
def test_a_maker_that_fails_leaves_nothing_and_may_try_again(tmp_path: Path, error: BaseException) -> None:
    cache = Cache(tmp_path)

    def fail(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise error

    with pytest.raises(type(error)):
        cache.entry("s", "ab" * 32, fail)
    assert everything(cache) == [] and visible(cache) == []
    folder, new = cache.entry("s", "ab" * 32, lambda folder: write_json(folder / "meta.json", 1))
    assert new and read_meta(folder) == 1


def test_two_processes_that_make_the_same_entry_end_with_one_whole_entry(tmp_path: Path) -> None:
    def slow_entry(folder: str) -> tuple[str, bool, int]:
        def make(work: Path) -> None:
            (work / "part1").write_text(str(os.getpid()))
            time.sleep(0.5)
            (work / "part2").write_text(str(os.getpid()))

        path, _ = Cache(Path(folder)).entry("s", "cd" * 32, make)
        parts = {(path / name).read_text() for name in ("part1", "part2")}
        return str(path), len(parts) == 1, os.getpid()

    results = parallel_map(slow_entry, [str(tmp_path)] * 2, 2)
    assert len({path for path, _, _ in results}) == 1
    assert all(whole for _, whole, _ in results)
    assert len({process for _, _, process in results}) == 2
    assert len(everything(Cache(tmp_path))) == 2  # the loser's copy is gone


def test_killed_in_the_middle_no_entry_is_seen_and_the_rest_is_swept_in_time(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from edgeprivacy.cache import Cache\n"
        "def make(folder):\n"
        "    (folder / 'half').write_text('x'); print('half', flush=True); time.sleep(60)\n"
        "Cache(Path(sys.argv[1])).entry('s', 'ef' * 32, make)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == "half\n"
        child.send_signal(signal.SIGKILL)
    cache = Cache(tmp_path)
    assert visible(cache) == []
    (leftover,) = {path.parent for path in everything(cache)}
    assert cache.sweep() == 0 and leftover.exists()  # another process may still be at it
    os.utime(leftover, (time.time() - 2 * 86400,) * 2)
    assert cache.sweep() == 1 and not leftover.exists()
    folder, new = cache.entry("s", "ef" * 32, lambda folder: write_json(folder / "meta.json", 2))
    assert new and read_meta(folder) == 2
    os.utime(folder, (time.time() - 9 * 86400,) * 2)
    assert cache.sweep() == 0 and read_meta(folder) == 2  # finished work is never swept


def test_a_full_disk_is_a_storage_error_and_leaves_nothing(full_disk: Path) -> None:
    cache = Cache(full_disk / "cache")
    cache.entry("s", "01" * 32, lambda folder: write_json(folder / "meta.json", 1))

    def fill(folder: Path) -> None:
        (folder / "big").write_bytes(bytes(200_000))

    with pytest.raises(StorageError, match="no space left") as caught:
        cache.entry("s", "23" * 32, fill)
    assert caught.value.exit_code == EXIT_RUNTIME == 4
    assert "\n" not in str(caught.value) and "XDG_CACHE_HOME" in str(caught.value)
    assert visible(cache) == ["01" * 32]


def test_a_cache_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="cannot write to the cache"):
        Cache(tmp_path / "file").entry("s", "45" * 32, lambda folder: None)


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_folder() == tmp_path / "edgeprivacy"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_cache_folder() == tmp_path / "home" / ".cache" / "edgeprivacy"
