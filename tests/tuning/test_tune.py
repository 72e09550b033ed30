"""What a search leaves in its folder: what it may use again, the winner's place, the front's recipes.

`compress` is made up here: a real folder and a real audit.json, and numbers that the tests choose.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprivacy import compressing
from edgeprivacy.defenses.dpsgd import DPSGD
from edgeprivacy.errors import RecipeError, UsageError
from edgeprivacy.folders import output_folder
from edgeprivacy.recipe import Recipe, Run
from edgeprivacy.results import ArtifactResult, AttackResult, Audit, Metric, Utility
from edgeprivacy.tuning.outcome import Tuned
from edgeprivacy.tuning.section import TuneSection

pytest.importorskip("optuna", reason="needs the extra tune")
pytest.importorskip("tensorflow", reason="needs the extra tflite")
pytestmark = pytest.mark.tflite
tuning = import_module("edgeprivacy.tuning.tune")  # the package has a function of that name
MODEL = "def build(shape, classes):\n    return None\n"


class World:
    """One recipe in one working folder, and what `compress` finds: leakage and accuracy by defense and
    sparsity."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.made, self.notes = folder, [], {}
        self.found: dict[tuple[str, float], tuple[float, float]] = {}
        self.pinned: dict[str, Any] = {"prune.sparsity": [0.6]}
        self.more: dict[str, Any] = {}
        (folder / "net.py").write_text(MODEL)
        (folder / "own.py").write_text("def train(model, rows):\n    return None\n")
        self.write_rows(0)

    def write_rows(self, seed: int) -> None:
        """The data file, with other rows for another seed."""
        rng = np.random.default_rng(seed)
        np.savez(self.folder / "rows.npz", x=rng.random((400, 4), np.float32), y=np.arange(400) % 2)

    def tune(self, *defenses: str, trials: int = 1, **section: Any) -> Tuned:
        """A search in out/; `made` then holds the recipes that were made for it."""
        self.made, self.notes = [], {}
        content = {"backend": "tflite", "formats": ["int8"], "data": {"source": "rows.npz"}}
        content |= {"model": {"source": "net.py:build"}, "audit": {"shadows": 2, "attacks": ["loss"]}}
        recipe = Recipe.build(content | self.more)
        asked = {"objective": "auc", "space": self.pinned, "max_accuracy_loss": 5.0, **section}
        chosen = TuneSection.build({"defenses": defenses, "trials": trials, **asked})
        return tuning.tune(recipe, chosen, Run(out="out"))

    def compress(self, recipe: Recipe, run: Run, progress: Any = None, notes: Sequence[str] = ()) -> Audit:
        """What the real one leaves behind."""
        self.made.append(recipe)
        out = Path(str(run.out))
        self.notes[out.name] = tuple(notes)
        with output_folder(out, f"compress {recipe.id} 0123"):
            artifacts = [self._artifact(recipe, arm.name) for arm in recipe.arms]
            audit = Audit("none", 0, recipe.id, {}, (), tuple(artifacts), notes=tuple(notes))
            audit.save(out / "audit.json")
            (out / "report.html").write_text(f"{recipe.defense.name} {recipe.prune.sparsity}")
        return audit

    def _artifact(self, recipe: Recipe, defense: str) -> ArtifactResult:
        leak, accuracy = self.found.get((defense, recipe.prune.sparsity), (0.6, 0.8))
        attack = AttackResult("loss", "1", "", 10, 10, auc=Metric(leak, (leak, leak)))
        utility = Utility(test_accuracy=Metric(accuracy, (accuracy, accuracy)))
        return ArtifactResult(
            *(f"int8.{defense}", "candidate", "tflite", "int8", defense, "a.tflite", "0", 100, 90),
            utility,
            None,
            (attack,),
        )


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tuning, "compress", made.compress)
    monkeypatch.setattr(tuning, "check_networks", lambda space, rows, jobs: None)
    monkeypatch.setattr(tuning, "host_latencies", lambda folder, files, rows: {})
    return made


def reports() -> dict[str, str]:
    return {path.parent.name: path.read_text() for path in Path("out").glob("re-audit*/report.html")}


def of_search(world: World) -> list[Recipe]:
    """What was made for the search itself."""
    return [recipe for recipe in world.made if recipe.seed == 0]


@pytest.mark.parametrize("file", ["net.py", "own.py"])
def test_code_that_changed_is_measured_anew(world: World, file: str) -> None:
    world.more = {"training": {"function": "own.py:train"}}
    world.tune("ppb")
    assert len(of_search(world)) == 2
    world.tune("ppb")
    assert of_search(world) == [], "all of it was there"
    (world.folder / file).write_text((world.folder / file).read_text() + "# another\n")
    world.tune("ppb")
    assert len(of_search(world)) == 2


def test_another_edgeprivacy_measures_anew(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.tune("hamp")
    with monkeypatch.context() as patch:
        patch.setattr(tuning, "__version__", "999")
        world.tune("hamp")
        assert len(of_search(world)) == 2
    monkeypatch.setitem(tuning.RELEASE_VERSION, "tflite", 999)
    world.tune("hamp")
    assert len(of_search(world)) == 2


def test_rows_that_changed_do_not_meet_what_was_measured_on_others(world: World) -> None:
    world.tune("hamp")
    before = {path.name for path in Path("out/trials").iterdir()}
    world.write_rows(1)
    with pytest.raises(UsageError, match="belongs to another recipe"):
        world.tune("hamp")
    Path("out/.edgeprivacy").write_text("")  # as if it were its own
    world.tune("hamp")
    assert len(of_search(world)) == 2
    assert len({path.name for path in Path("out/trials").iterdir()} - before) == 2


def test_another_winner_takes_the_place_and_the_one_before_stays(world: World) -> None:
    world.found = {("hamp", 0.6): (0.55, 0.8), ("relaxloss", 0.6): (0.51, 0.8)}
    world.tune("hamp")
    (world.folder / "out" / "re-audit" / "mine.txt").write_text("half a thought")
    assert reports() == {"re-audit": "hamp 0.6"}
    made = world.tune("hamp", "relaxloss")
    assert [recipe.defense.name for recipe in of_search(world)] == ["relaxloss"]
    assert made.winner is not None and made.winner.setting.candidate.defense == "relaxloss"
    found = reports()
    assert found.pop("re-audit") == "relaxloss 0.6" and list(found.values()) == ["hamp 0.6"]
    aside = Path("out", *found)
    assert (aside / "mine.txt").read_text() == "half a thought"
    # There and back: each has one folder, and its own things in it.
    world.tune("hamp")
    assert reports()["re-audit"] == "hamp 0.6" and len(reports()) == 2
    assert Path("out/re-audit/mine.txt").exists()
    # Nothing keeps the budget: nothing is shown as its winner.
    world.tune("hamp", max_size="10")
    assert sorted(reports().values()) == ["hamp 0.6", "relaxloss 0.6"] and "re-audit" not in reports()
    world.tune("hamp")
    assert reports()["re-audit"] == "hamp 0.6" and len(reports()) == 2


def test_a_search_that_ends_before_its_winner_leaves_the_one_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.found = {("hamp", 0.6): (0.55, 0.8), ("relaxloss", 0.6): (0.51, 0.8)}
    world.tune("hamp")
    told = Path("out/tune.json").read_text()

    def killed(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tuning, "_timed", lambda folder, *more: killed() if "re-audit" in folder.name else {})
        with pytest.raises(KeyboardInterrupt):
            world.tune("hamp", "relaxloss")
    assert reports()["re-audit"] == "hamp 0.6" and Path("out/tune.json").read_text() == told
    world.tune("hamp", "relaxloss")
    assert reports()["re-audit"] == "relaxloss 0.6" and len(reports()) == 2


def test_the_recipes_are_those_of_the_last_search(world: World) -> None:
    world.found = {("hamp", 0.6): (0.55, 0.7), ("relaxloss", 0.6): (0.51, 0.6)}
    made = world.tune("hamp", "relaxloss")
    recipes = Path("out/recipes")
    assert len(list(recipes.iterdir())) == len(made.front) == 3
    for path in recipes.iterdir():
        told = next(line for line in path.read_text().splitlines() if line.startswith("# recipe "))
        assert told == f"# recipe {Recipe.load(path).id}"
    (recipes / "mine.toml").write_text('backend = "tflite"\n')
    edited = recipes / "02-hamp-int8-tflite.toml"
    edited.write_text(edited.read_text().replace("seed = 0", "seed = 7"))
    made = world.tune("relaxloss")
    names = {path.name for path in recipes.iterdir()}
    assert names == {
        *("01-relaxloss-int8-tflite.toml", "02-none-int8-tflite.toml"),
        *("mine.toml", "02-hamp-int8-tflite.toml"),
    }
    assert Recipe.load(edited).seed == 7


def test_accuracy_is_lost_against_no_defense_as_little_pruned_as_the_recipe_says(world: World) -> None:
    world.pinned = {}  # the three of an iterative schedule; the defense has nothing to search
    world.found = {
        **{("none", 0.6): (0.60, 0.80), ("none", 0.8): (0.60, 0.70), ("none", 0.9): (0.58, 0.78)},
        **{
            ("less-data", 0.6): (0.57, 0.79),
            ("less-data", 0.8): (0.50, 0.69),
            ("less-data", 0.9): (0.55, 0.76),
        },
    }
    made = world.tune("less-data", trials=3)
    found = {(p.setting.candidate.defense, p.setting.recipe.prune.sparsity) for _, p in made.points}
    assert {entry for entry in found if entry[0] == "none"} == {("none", 0.6), ("none", 0.8), ("none", 0.9)}
    winner = made.winner
    # At 0.8 it leaks least, and loses 11 points; only 1 against no defense at 0.8.
    assert winner is not None and winner.setting.changes == {"prune.sparsity": 0.9}
    assert made.loss(winner) == pytest.approx(4)
    assert made.re_audit is not None and made.re_audit.loss == pytest.approx(4)
    (base,) = [r for r in world.made if r.seed and r.defense.name == "none"]
    assert base.prune.sparsity == 0.6 and base.seed == made.re_audit.point.setting.recipe.seed
    assert made.evaluations == len(of_search(world)) <= tuning.plan(made.base, made.section, Run()).total


def test_the_winner_s_own_report_says_that_a_guarantee_does_not_cover_the_choice(world: World) -> None:
    pytest.importorskip("dp_accounting", reason="needs the extra dp")
    assert DPSGD().private() is not None
    world.found = {("dpsgd", 0.6): (0.5, 0.8)}
    world.tune("dpsgd")
    assert any("does not cover that choice" in note for note in world.notes["re-audit"])
    assert all(notes == () for name, notes in world.notes.items() if name != "re-audit")
    written = json.loads(Path("out/re-audit/audit.json").read_text())["notes"]
    assert list(world.notes["re-audit"]) == written
    world.tune("hamp")
    assert not any(world.notes.values())


def test_compress_passes_notes_on_to_the_audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Enough(Exception):
        """The audit was asked for."""

    told: dict[str, Any] = {}

    def audit_releases(*arguments: Any, **named: Any) -> Any:
        told.update(named)
        raise Enough

    monkeypatch.setattr(compressing, "make_releases", lambda *arguments: [None])
    monkeypatch.setattr(compressing, "_publish", lambda *arguments: None)
    monkeypatch.setattr(compressing, "ask_files", lambda *arguments: {})
    monkeypatch.setattr(compressing, "audit_releases", audit_releases)
    recipe = Recipe.build({"backend": "tflite", "audit": {"shadows": 0}})
    with pytest.raises(Enough):
        compressing.compress(recipe, Run(out=str(tmp_path / "out"), cache=False), notes=("a note",))
    assert told["notes"] == ("a note",)


def test_settings_that_cannot_be_are_told_before_the_search() -> None:
    recipe = Recipe.build({"backend": "tflite", "formats": ["int8", "qat-int8"], "audit": {"shadows": 4}})
    section = TuneSection.build({"defenses": ["relaxloss"], "space": {"quantize.weight_bits": [4, 8]}})
    with pytest.raises(RecipeError, match=r"what follows would move them off it; given: formats qat-int8"):
        tuning.plan(recipe, section, Run())


def test_too_few_rows_for_what_is_wanted_are_told_before_the_search() -> None:
    recipe = Recipe.build({"backend": "tflite", "formats": ["int8"], "audit": {"shadows": 4}})
    section = TuneSection.build({"defenses": ["relaxloss"], "objective": "tpr@0.1%fpr"})
    with pytest.raises(UsageError, match=r"too few rows for tpr@0.1%fpr.*allowed: 1,000 or more"):
        tuning.plan(recipe, section, Run())
