"""The recipes of examples/ run as they stand, made small by flags. CIFAR's, which takes half an hour, is run
by `make bench`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
SMALL = ["--epochs", "4", "--finetune-epochs", "1", "--prune-iterations", "2", "--shadows", "2"]


def run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "edgeprivacy"), "compress", *arguments, *SMALL]
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    return subprocess.run(
        [*command, "--out", str(folder / "out"), "--attacks", "loss,confidence"],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_digits(tmp_path: Path) -> None:
    done = run(["examples/digits/recipe.toml"], tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    audit = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert {artifact["name"] for artifact in audit["artifacts"]} >= {
        "prune60-int8.wemem",
        "prune60-int8.none",
    }


@pytest.mark.slow
def test_location(tmp_path: Path) -> None:
    archive = DATA / "location30.tgz"
    if not archive.is_file():
        pytest.skip("the Location data set is not beside the project")
    with tarfile.open(archive) as stream:
        stream.extractall(tmp_path, filter="data")
    done = run(["examples/location/recipe.toml", "--data", str(tmp_path / "bangkok")], tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    audit = json.loads((tmp_path / "out" / "audit.json").read_text())
    roles = {artifact["name"]: artifact["role"] for artifact in audit["artifacts"]}
    assert [name for name, role in roles.items() if role == "candidate"] == [
        "prune60-float32.wemem",
        "prune60-int8.wemem",
    ]
    assert audit["split"]["counts"]["pool"] == 3607


@pytest.mark.parametrize(
    ("recipe", "artifact"),
    [("recipe", "prune60-qat-int8.wemem-swmr"), ("resnet18", "prune60-qat-int8.none")],
)
def test_cifar_recipes_are_valid(recipe: str, artifact: str) -> None:
    from edgeprivacy.recipe import Recipe

    loaded = Recipe.load(ROOT / "examples" / "cifar" / f"{recipe}.toml")
    assert loaded.artifact_name("qat-int8", loaded.defense.name) == artifact
