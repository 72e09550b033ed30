"""`edgeprivacy tune` as a process: a real search, killed and resumed, one more candidate, bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edgeprivacy.cli import cli
from edgeprivacy.errors import RecipeError

pytestmark = [pytest.mark.tflite, pytest.mark.slow]
pytest.importorskip("optuna", reason="needs the extra tune")
RECIPE = """
backend = "tflite"
formats = ["float32", "int8"]

[training]
epochs = 3

[prune]
schedule = "one-shot"
finetune_epochs = 1

[audit]
shadows = 2
attacks = ["confidence", "rmia.offline"]

[tune]
trials = 2
max_accuracy_loss = 40.0

[tune.space]
"prune.sparsity" = [0.6]
"""


class Runs:
    """Runs of one search in one folder with one cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "recipe.toml").write_text(RECIPE)
        self.environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}

    def arguments(self, *more: str) -> list[str]:
        return [str(Path(sys.executable).with_name("edgeprivacy")), "tune", "recipe.toml", *more]

    def __call__(self, *more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.arguments(*more),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def releases(self) -> set[str]:
        """Everything trained, by its key in the cache."""
        kept = self.folder / "cache" / "edgeprivacy"
        return {f"{p.parent.name}/{p.name}" for p in kept.glob("**/compressed/*/*") if p.is_dir()} | {
            f"{p.parent.name}/{p.name}" for p in kept.glob("**/original/*/*") if p.is_dir()
        }


def tune_json(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "tune.json").read_text())
    return content


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A search that is killed once its first setting is measured, then given again."""
    runs = Runs(tmp_path_factory.mktemp("tune"))
    arguments = runs.arguments("--defenses", "relaxloss", "--out", "out", "--quiet")
    begun = subprocess.Popen(arguments, cwd=runs.folder, env=runs.environment, start_new_session=True)
    deadline = time.monotonic() + 300
    while not list(runs.folder.glob("out/trials/*/audit.json")):
        assert begun.poll() is None and time.monotonic() < deadline, "the search ended before it was killed"
        time.sleep(0.2)
    os.killpg(begun.pid, signal.SIGKILL)
    begun.wait()
    assert not (runs.folder / "out" / "tune.json").exists()
    runs.done = runs("--defenses", "relaxloss", "--out", "out")
    return runs


def test_a_killed_search_goes_on_and_ends_with_a_winner(runs: Any) -> None:
    assert runs.done.returncode == 0, runs.done.stderr
    out = runs.folder / "out"
    content = tune_json(out)
    assert content["schema"] == "edgeprivacy.tune/1"
    assert {(p["defense"], p["format"]) for p in content["points"]} == {
        (defense, format) for defense in ("none", "relaxloss") for format in ("float32", "int8")
    }
    (winner,) = [p for p in content["points"] if p["winner"]]
    assert winner["within_budget"] and winner["on_front"]
    assert winner["leakage"]["value"] == min(
        p["leakage"]["value"] for p in content["points"] if p["within_budget"]
    )
    again = content["re_audit"]
    assert again["found"]["leakage"] == winner["leakage"]
    assert again["optimism"] == pytest.approx(
        again["again"]["leakage"]["value"] - winner["leakage"]["value"], abs=1e-5
    )
    audit = json.loads((out / "re-audit" / "audit.json").read_text())
    assert audit["recipe"]["seed"] == again["seed"] != content["recipe"]["seed"]
    assert {a["sha256"] for a in audit["artifacts"]}.isdisjoint(
        artifact["sha256"]
        for trial in out.glob("trials/*/audit.json")
        for artifact in json.loads(trial.read_text())["artifacts"]
    )
    lines = runs.done.stdout.splitlines()
    assert sum(line.rstrip().endswith(("winner", "winner, front")) for line in lines) == 1, lines
    assert lines[-3:] == ["out/tune.json", "out/tune.html", "out/re-audit/report.html"]
    page = (out / "tune.html").read_text()
    assert "made again" in page and "<svg" in page and "://" not in page.replace("http://www.w3.org", "")


def test_the_front_s_recipes_are_ready_for_compress(runs: Any) -> None:
    from edgeprivacy.recipe import Recipe

    content = tune_json(runs.folder / "out")
    files = sorted((runs.folder / "out" / "recipes").glob("*.toml"))
    on_front = [p for p in content["points"] if p["on_front"]]
    assert len(files) == len(on_front)
    for file in files:
        recipe = Recipe.load(file)
        assert len(recipe.formats) == 1 and recipe.defense.name in file.name
        assert tomllib.loads(file.read_text())["audit"]["shadows"] == 2
    before = runs.releases()
    program = runs.arguments()[0]
    done = subprocess.run(
        [program, "compress", str(files[0]), "--out", "again", "--quiet"],
        cwd=runs.folder,
        env=runs.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert runs.releases() == before, "what the search made is in the cache"


def test_one_more_candidate_trains_only_itself(runs: Any) -> None:
    first, before = tune_json(runs.folder / "out"), runs.releases()
    assert before
    done = runs("--defenses", "relaxloss,label-smoothing", "--trials", "1", "--out", "more", "--quiet")
    assert done.returncode == 0, done.stderr
    made = runs.releases() - before
    second = tune_json(runs.folder / "more")
    assert {p["defense"] for p in second["points"]} == {"none", "relaxloss", "label-smoothing"}
    trials = [json.loads(p.read_text()) for p in (runs.folder / "more").glob("trials/*/audit.json")]
    for trial in trials:
        trained = trial["environment"]["releases"]["trained"]
        assert (trained > 0) == (trial["recipe"]["defense"]["name"] == "label-smoothing"), trial["recipe"]
    # Three releases of the new candidate, original and compressed, and what the re-audit needs.
    assert 6 <= len(made) <= 6 + 12
    # The same measurements, but for what depends on the other candidates, and for the time of a row.
    others = ("on_front", "winner", "latency_ms")

    def plain(content: dict[str, Any]) -> list[dict[str, Any]]:
        points = [point for point in content["points"] if point["defense"] == "none"]
        return [{key: value for key, value in point.items() if key not in others} for point in points]

    assert plain(first) == plain(second) and len(plain(first)) == 2
    assert all(point["latency_ms"] > 0 for point in first["points"])


def test_an_impossible_budget_ends_with_the_nearest(runs: Any) -> None:
    done = runs("--defenses", "relaxloss", "--max-size", "1KiB", "--out", "small")
    assert done.returncode == 3, done.stderr
    assert "Nothing keeps the budget." in done.stdout and "The nearest is" in done.stdout
    content = tune_json(runs.folder / "small")
    assert content["re_audit"] is None and not any(p["within_budget"] for p in content["points"])


def test_a_gate_is_decided_on_what_was_made_again(runs: Any) -> None:
    done = runs("--defenses", "relaxloss", "--out", "out", "--fail-if", "auc>0.01", "--quiet")
    assert done.returncode == 1, done.stderr
    audit = json.loads((runs.folder / "out" / "re-audit" / "audit.json").read_text())
    assert audit["verdict"] == "fail"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--defenses", "relax"], "relaxloss"),
        (["--max-size", "much"], "60KiB"),
        (["--objective", "accuracy"], "tpr@1%fpr"),
        (["--shadows", "0"], "a search needs shadows"),
        (["--backends", "coreml"], "tflite"),
        (["--fail-if", "tpr>"], "tpr"),
        (["--trials", "0"], "trials"),
    ],
)
def test_bad_input_is_one_line(runs: Any, arguments: list[str], said: str) -> None:
    done = runs(*arguments, "--out", "bad")
    assert done.returncode == 2 and said in done.stderr and not done.stdout
    assert len(done.stderr.strip().splitlines()) <= 4 and "Traceback" not in done.stderr
    assert not (runs.folder / "bad").exists()


def test_a_recipe_whose_search_is_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recipe.toml").write_text("tune = 3\n")
    done = CliRunner().invoke(cli, ["tune", "recipe.toml", "--trials", "2"], standalone_mode=False)
    assert isinstance(done.exception, RecipeError) and "must be a table" in str(done.exception)


def test_dry_run_plans_and_makes_nothing(runs: Any) -> None:
    done = runs("--dry-run", "--out", "dry")
    assert done.returncode == 0, done.stderr
    assert "relaxloss.alpha" in done.stdout and "made and measured" in done.stdout
    assert "prune.sparsity" not in done.stdout, "the recipe pins it"
    assert not (runs.folder / "dry").exists()


def test_the_plan_of_a_search_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["tune", "--dry-run"])
    assert done.exit_code == 0, done.output
    lines = [" ".join(line.split()) for line in done.output.splitlines()]
    assert "none (tflite) 3 of prune.sparsity" in lines
    assert "hamp (tflite) 6 of prune.sparsity, hamp.gamma, hamp.alpha" in lines
    # No defense in three rounds, and in two more settings of the last; seven defenses with 6, 2 and 2.
    most = 3 + 2 + 7 * 10
    assert f"settings  at most {most} made and measured in all rounds, then the winner again" in done.output
    assert not list(tmp_path.iterdir())
