from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from edgeprivacy.data.factories import call_factory, is_factory, load_factory, parameters
from edgeprivacy.errors import DataError, ModelError


def write(folder: Path, code: str, name: str = "own.py") -> Path:
    path = folder / name
    path.write_text(textwrap.dedent(code))
    return path


@pytest.mark.parametrize(
    ("text", "whether"),
    [
        ("own.py:load", True),
        ("../a b/own.py:load", True),
        ("package.module:load", True),
        ("digits", False),
        ("own.py", False),
        ("data.csv", False),
        ("own.py:", False),
        ("a/b:load", False),
    ],
)
def test_what_names_a_function(text: str, whether: bool) -> None:
    assert is_factory(text) == whether


def test_a_function_of_a_file_with_a_neighbour(tmp_path: Path) -> None:
    write(tmp_path, "VALUE = 41", "neighbour_of_own.py")
    path = write(tmp_path, "import neighbour_of_own\ndef load(): return neighbour_of_own.VALUE + 1")
    assert load_factory(f"{path}:load", "data")() == 42


def test_an_edited_file_is_imported_anew_and_equal_stems_do_not_clash(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    path = write(tmp_path, "def load(): return 1")
    other = write(tmp_path / "other", "def load(): return 2")
    assert load_factory(f"{path}:load", "data")() == 1
    assert load_factory(f"{other}:load", "data")() == 2
    write(tmp_path, "def load(): return 3")
    assert load_factory(f"{path}:load", "data")() == 3


def test_a_module_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "def build(keras=None): return 'built'", "module_in_cwd_xyz.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))  # restores sys.path at the end
    function = load_factory("module_in_cwd_xyz:build", "model")
    assert function() == "built" and parameters(function) == {"keras"}


@pytest.mark.parametrize(
    ("code", "reference", "says"),
    [
        ("def load(): pass", "own.py:laod", "no function 'laod'.*did you mean 'load'"),
        ("x = 1", "own.py:load", "no function 'load'.*defines no function"),
        ("load = 1", "own.py:load", "'load' in .* is not a function.*int"),
        ("\n\ndef load(:\n", "own.py:load", "cannot be imported.*SyntaxError.*own.py, line 3"),
        ("import os\nraise ValueError('no\\nluck')", "own.py:load", "ValueError: no luck.*own.py, line 2"),
        ("import no_such_package_xyz", "own.py:load", "ModuleNotFoundError.*own.py, line 1"),
        ("import sys\nsys.exit(5)", "own.py:load", "SystemExit: 5.*own.py, line 2"),
        ("", "other.py:load", "file .*other.py does not exist"),
        ("", "no_such_module_xyz:load", "module 'no_such_module_xyz' is not found"),
        ("", "own.py", "does not name a model factory.*file.py:function"),
    ],
)
def test_what_can_be_wrong_in_one_line(tmp_path: Path, code: str, reference: str, says: str) -> None:
    write(tmp_path, code)
    if "_xyz" not in reference:
        reference = str(tmp_path / reference)
    with pytest.raises(ModelError, match=says) as caught:
        load_factory(reference, "model", error=ModelError)
    assert "\n" not in str(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__  # no chained traceback


def test_a_factory_that_raises_is_told_with_the_line_in_the_users_file(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        import json

        def load():
            text = "{"
            return helper(text)

        def helper(text):
            return json.loads(text)
        """,
    )
    reference = f"{path}:load"
    with pytest.raises(
        DataError, match=r"data factory .*own\.py:load failed.*JSONDecodeError.*own\.py, line 9"
    ):
        call_factory(load_factory(reference, "data"), reference, "data")


def test_an_interrupt_is_not_swallowed(tmp_path: Path) -> None:
    path = write(tmp_path, "def load(): raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        call_factory(load_factory(f"{path}:load", "data"), "own.py:load", "data")


def test_parameters_that_nothing_fills(tmp_path: Path) -> None:
    path = write(tmp_path, "def load(rows, part='train'): pass")
    with pytest.raises(DataError, match=r"parameters that nothing fills.*rows"):
        call_factory(load_factory(f"{path}:load", "data"), "own.py:load", "data", part="train")


def test_what_a_factory_prints_stays_off_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, "print('importing')\ndef load(): print('loading')")
    call_factory(load_factory(f"{path}:load", "data"), "own.py:load", "data")
    said = capsys.readouterr()
    assert said.out == "" and "importing" in said.err and "loading" in said.err
