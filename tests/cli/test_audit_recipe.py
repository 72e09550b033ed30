"""A file made elsewhere, attacked with shadows of a recipe that comes close; as a user types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.tflite
RECIPE = """
defense = "none"
[training]
epochs = 20
[prune]
sparsity = 0.5
iterations = 2
finetune_epochs = 2
[audit]
shadows = 4
attacks = ["loss", "lira.online", "rmia.offline", "joint.lira"]
"""


@pytest.fixture(scope="module")
def audited(
    edgeprivacy: Any, leaky: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "r.toml").write_text(RECIPE)
    done = edgeprivacy(
        *("audit", leaky.files["int8"], "--recipe", folder / "r.toml", "--train", leaky.members),
        *("--holdout", leaky.nonmembers, "--out", folder / "out", "--json"),
        XDG_CACHE_HOME=str(folder / "cache"),
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), folder / "out"


def test_the_file_is_attacked_by_the_recipe_s_shadows(audited: Any, leaky: Any) -> None:
    audit, out = audited
    found = {a["name"]: a for a in audit["artifacts"]}
    assert {name: a["role"] for name, a in found.items()} == {
        "int8": "candidate",
        "recipe-prune50-int8.none": "control",
    }
    # The very file, not one of the recipe's.
    assert (out / found["int8"]["file"]).read_bytes() == leaky.files["int8"].read_bytes()
    attacks = {attack["name"]: attack for attack in found["int8"]["attacks"]}
    assert (
        attacks["lira.online"]["skipped"] is None and attacks["rmia.offline"]["metrics"]["auc"]["value"] > 0.6
    )
    assert "versions" in attacks["joint.lira"]["skipped"] and audit["version_sets"] == []
    assert attacks["loss"]["n_members"] == len(np.load(leaky.members)["y"])
    assert found["int8"]["parity"] is None and audit["split"]["design"] == "given"


def test_it_says_how_far_the_recipe_is_from_the_file(audited: Any) -> None:
    audit, _ = audited
    (note,) = [note for note in audit["notes"] if note.startswith("How close the recipe comes to int8")]
    by_name = {a["name"]: a["utility"]["test_accuracy"]["value"] for a in audit["artifacts"]}
    assert f"accuracy {100 * by_name['int8']:.1f}% (file)" in note
    assert f"{100 * by_name['recipe-prune50-int8.none']:.1f}% (recipe)" in note


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--recipe", "r.toml"], "give --train and --holdout"),
        (["--recipe", "r.toml", "--members", "m.npz"], "rows are given as --train and --holdout"),
        (["--train", "m.npz", "--holdout", "n.npz"], "belong to --recipe"),
        ([], "give --members and --nonmembers, or --recipe"),
        (["--recipe", "gone.toml", "--train", "m.npz", "--holdout", "n.npz"], "gone.toml does not exist"),
    ],
)
def test_a_mistake_is_one_line(
    edgeprivacy: Any, leaky: Any, tmp_path: Path, arguments: list[str], says: str
) -> None:
    (tmp_path / "r.toml").write_text(RECIPE)
    (tmp_path / "m.npz").symlink_to(leaky.members)
    (tmp_path / "n.npz").symlink_to(leaky.nonmembers)
    done = edgeprivacy("audit", leaky.files["int8"], *arguments, cwd=tmp_path)
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr
