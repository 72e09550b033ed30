"""The two top-level folders are inside the package, in this editable install and in a built wheel."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = ("edgeprivacy.converters.facts", "edgeprivacy.device_runner.host", "edgeprivacy.report.html")


def origins(arguments: list[str], folder: Path, path: str | None = None) -> list[Path]:
    code = (
        "import importlib.util as u, sys\n"
        f"for name in {MODULES!r}: print(u.find_spec(name).origin)\n"
        "assert u.find_spec('converters') is None and u.find_spec('device_runner') is None\n"
    )
    environment = {"PYTHONPATH": path} if path else {}
    done = subprocess.run(
        [sys.executable, *arguments, "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return [Path(line) for line in done.stdout.splitlines()]


def test_editable_install(tmp_path: Path) -> None:
    found = origins([], tmp_path)
    assert [path.relative_to(ROOT).parts[0] for path in found] == [
        "converters",
        "device_runner",
        "edgeprivacy",
    ]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(source)], check=True)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)],
        check=True,
        capture_output=True,
    )
    return next(folder.glob("*.whl"))


def test_wheel(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
        names = archive.namelist()
    assert not [name for name in names if name.startswith(("converters/", "device_runner/", "tests/"))]
    assert "edgeprivacy/report/report.html.j2" in names
    assert "edgeprivacy/report/report.css" in names
    assert "edgeprivacy/py.typed" in names
    found = origins(["-P"], tmp_path, path=str(tmp_path))
    assert all(path.is_relative_to(tmp_path) for path in found)


def test_every_package_is_listed() -> None:
    import tomllib

    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    there = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for top in ("edgeprivacy", "converters", "device_runner")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert {name if name.startswith("edgeprivacy") else f"edgeprivacy.{name}" for name in there} == set(
        listed
    )
