"""Non-members shape nothing that ships, members do; and shadows say nothing about the target's members."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2_contingency

BRIEF = """
formats = ["float32", "int8"]
defense = "wemem:swmr"
[training]
epochs = 3
[prune]
iterations = 2
finetune_epochs = 2
[audit]
shadows = 0
bootstrap = 100
attacks = ["confidence.global"]
"""


def _rows() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(11)
    y = np.arange(600) % 3
    x = rng.normal(size=(600, 8)) + 2 * np.eye(8)[y]
    return x.astype(np.float32), y, np.array([f"patient-{row}" for row in range(600)])


@pytest.fixture(scope="module")
def shipped(compress: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The files of four runs: of the data as they are, with one non-member changed, with every row changed
    that trains and calibrates nothing, and with one member changed."""
    from edgeprivacy.data.splits import Split

    folder = tmp_path_factory.mktemp("fairness")
    (folder / "recipe.toml").write_text(BRIEF)

    def run(name: str, x: np.ndarray) -> dict[str, bytes]:
        _, y, ids = _rows()
        np.savez(folder / f"{name}.npz", x=x, y=y, ids=ids)
        given = ("--data", f"{name}.npz", "--out", name, "--no-cache", "--quiet", "--jobs", "1")
        done = compress("recipe.toml", *given, cwd=folder, cache=folder / "cache")
        assert done.returncode in (0, 3), done.stderr  # all hold-outs changed: null tests may see that
        return {path.name: path.read_bytes() for path in (folder / name / "artifacts").glob("*.tflite")}

    x, _, ids = _rows()
    found: dict[str, Any] = {"as it is": run("data", x)}
    split = Split.load(folder / "data" / "split.json")
    pool, members = split.roles["pool"], split.members(0)
    outsiders = np.concatenate([pool[~members], split.roles["test"]])
    changed = {
        "one non-member": pool[~members][:1],
        "every outsider": outsiders,
        "one member": pool[members][:1],
    }
    rng = np.random.default_rng(3)

    def again(name: str) -> dict[str, bytes]:
        other = x.copy()
        where = np.isin(ids, changed[name])
        assert where.sum() == len(changed[name])
        other[where] += rng.normal(size=other[where].shape) + 3
        return run(name.replace(" ", "-"), other)

    with ThreadPoolExecutor(2) as workers:
        found |= dict(zip(changed, workers.map(again, changed), strict=True))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("changed", ["one non-member", "every outsider"])
def test_changing_non_members_changes_no_byte_of_any_file(shipped: dict[str, Any], changed: str) -> None:
    assert len(shipped["as it is"]) == 3  # the original, and the defended model in two formats
    assert shipped[changed] == shipped["as it is"]


@pytest.mark.slow
def test_changing_one_member_changes_every_file(shipped: dict[str, Any]) -> None:
    before, after = shipped["as it is"], shipped["one member"]
    assert set(before) == set(after)
    assert not [name for name in before if before[name] == after[name]]


@pytest.mark.parametrize("shadows", [3, 4, 7, 16])
def test_the_number_of_in_shadows_predicts_nothing_about_membership(shadows: int, tmp_path: Path) -> None:
    from edgeprivacy.compressing import prepare
    from edgeprivacy.recipe import Recipe, Run

    if find_spec("tensorflow") is None:
        pytest.skip("a recipe is checked against the installed backend")
    counts, inside = [], []
    for seed in range(12):
        _, split = prepare(Recipe.build({"seed": seed, "audit": {"shadows": shadows}}), Run())
        counts.append(split.membership[1:].sum(axis=0))
        inside.append(split.membership[0])
    number, member = np.concatenate(counts), np.concatenate(inside)
    assert len(member) > 12_000 and abs(member.mean() - 0.5) < 0.02
    p = _independent(number, member)
    assert p > 0.001, "the target's members have another number of shadows than the others"
    # The same test does see it where shadows are balanced against the target.
    assert _independent(number - member * (np.arange(len(member)) % 20 == 0), member) < 1e-6


def _independent(number: np.ndarray, member: np.ndarray) -> float:
    """p-value of independence; 1 where the number is the same for every row."""
    values = np.unique(number)
    if len(values) == 1:
        return 1.0
    table = [[int(((number == value) & (member == side)).sum()) for value in values] for side in (0, 1)]
    return float(chi2_contingency(table).pvalue)
