"""The recipes of examples/ run as they stand, made small by flags. CIFAR's, which takes half an hour, is run
by `make bench`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

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
    table = subprocess.run(
        [sys.executable, "examples/location/table.py", str(tmp_path / "out" / "audit.json")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    head, _, *lines = table.stdout.splitlines()
    assert head.startswith("| defense | accuracy | balanced accuracy")
    shown = {line.split("|")[1].strip(" `"): line.split("|")[2:] for line in lines}
    file = next(artifact for artifact in audit["artifacts"] if artifact["name"] == "prune60-int8.wemem")
    spread = file["utility"]["test_accuracy"]["across_targets"]["mean"]
    assert f"{100 * spread:.1f}" in shown["wemem"][0] and set(shown) >= {"none", "wemem"}


def test_the_table_shows_aucs_and_rates_of_rows_and_of_canaries(tmp_path: Path) -> None:
    def attack(name: str, auc: float, tpr: float) -> dict[str, Any]:
        rates = [{"fpr": 0.001, "value": 0.9}, {"fpr": 0.01, "value": 0.5, "across_targets": {"mean": tpr}}]
        of = {"auc": {"value": auc}, "balanced_accuracy": {"value": 0.6}, "tpr_at_fpr": rates}
        return {"name": name, "metrics": of}

    def audit(canaries: str | None) -> str:
        artifact = {
            **{"role": "candidate", "format": "int8", "defense": "wemem", "backend": "tflite"},
            **{"utility": {"test_accuracy": {"value": 0.7}}, "gzip_bytes": 2048},
            "attacks": [attack("lira.online.global", 0.81, 0.12)],
            "canary_attacks": [attack("lira.online.global", 0.935, 0.41)] if canaries else [],
        }
        recipe = {"audit": {"canaries": canaries}, "formats": ["float32", "int8"], "seed": 0}
        file = tmp_path / f"{bool(canaries)}.json"
        file.write_text(json.dumps({"recipe": recipe, "artifacts": [artifact]}))
        return str(file)

    files = [audit(None), audit("200:mislabelled")]
    done = subprocess.run(
        [sys.executable, "examples/location/table.py", *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    head, _, line = ([cell.strip() for cell in row.split("|")] for row in done.stdout.splitlines())
    shown = dict(zip(head, line, strict=True))
    assert shown["LiRA AUC, mislabelled canaries"] == "93.5" and shown["LiRA, mislabelled canaries"] == "41.0"
    assert (shown["LiRA AUC"], shown["LiRA"], shown["accuracy"]) == ("81.0", "12.0", "70.0")


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
    [
        ("recipe", "prune60-qat-int8.wemem-swmr"),
        ("resnet18", "prune60-qat-int8.none"),
        ("defenses", "prune60-qat-int8.selena"),
    ],
)
def test_cifar_recipes_are_valid(recipe: str, artifact: str) -> None:
    from edgeprivacy.recipe import Recipe

    loaded = Recipe.load(ROOT / "examples" / "cifar" / f"{recipe}.toml")
    assert loaded.artifact_name("qat-int8", loaded.defense.name) == artifact


def test_locations_table_of_defenses_has_all_of_them() -> None:
    from edgeprivacy.defenses import defenses
    from edgeprivacy.recipe import Recipe

    recipe = Recipe.load(ROOT / "examples" / "location" / "defenses.toml")
    assert set(defenses.names()) <= {arm.name for arm in recipe.arms}
    page = (ROOT / "docs" / "defenses.md").read_text()
    missing = [name for name in defenses.names() if f"| `{name}` |" not in page.partition("Three seeds")[0]]
    assert not missing, missing


def test_cifars_table_of_defenses_has_a_network_that_every_arm_can_train() -> None:
    from edgeprivacy.defenses import make_defense
    from edgeprivacy.recipe import Recipe

    recipe = Recipe.load(ROOT / "examples" / "cifar" / "defenses.toml")
    assert any(make_defense(arm.name, arm.settings).private() for arm in recipe.arms)
    assert recipe.model.source == "resnet-no-norm"
    assert make_defense("selena", recipe.defense.settings).groups == 0.9


def test_cifars_loaders_take_the_first_images_of_each_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    from edgeprivacy.data.factories import load_factory
    from edgeprivacy.errors import DataError

    for name in ("cat", "dog"):
        folder = tmp_path / "train" / name
        folder.mkdir(parents=True)
        for number in range(700):
            Image.new("RGB", (2, 2)).save(folder / f"{number:04d}.jpg")
    monkeypatch.setenv("CIFAR10", str(tmp_path))
    source = ROOT / "examples" / "cifar" / "data.py"
    for function, images in (("load", 694), ("load_small", 417), ("load_tiny", 278)):
        x, y, ids = load_factory(f"{source}:{function}", "data", error=DataError)()
        assert x.shape == (2 * images, 2, 2, 3) and x.dtype.name == "float32"
        assert list(y) == [0] * images + [1] * images
        assert len(set(ids)) == len(ids) and ids[-1] == f"dog/{images - 1:04d}.jpg"
