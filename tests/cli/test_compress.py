"""`edgeprivacy compress` as its user meets it: the installed command, start to end, on the embedded data."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

Done = subprocess.CompletedProcess[str]
ARTIFACTS = {
    "original-float32": ("original", "none", "float32"),
    "prune60-float32.wemem": ("candidate", "wemem", "float32"),
    "prune60-int8.wemem": ("candidate", "wemem", "int8"),
    "prune60-float32.none": ("control", "none", "float32"),
    "prune60-int8.none": ("control", "none", "int8"),
}
ATTACKS = ("confidence.global", "loss", "lira.online")
NULL_TESTS = {"held-out-as-members", "permuted-labels", "blind-classifier", "queried-twice"}
MODELS = 3  # the target and two shadows
TRAININGS = MODELS * 3  # each an original, the defended arm and the undefended one


def audit_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "audit.json").read_text())
    return content


def without_environment(audit: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in audit.items() if key != "environment"}


def shipped(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "artifacts").glob("*.tflite"))}


@pytest.fixture(scope="module")
def others(finished: Any, compress: Callable[..., Done]) -> dict[str, Done]:
    """More runs of the finished recipe, two at a time: `fresh` makes everything anew, the others nothing."""
    folder = finished.folder
    shutil.copytree(finished.out, folder / "first")  # as the first run left it
    runs = {
        "fresh": ("--out", "fresh", "--no-cache", "--jobs", "1", "--quiet"),
        "again": ("--out", "out", "--json"),
        "passes": ("--out", "passes", "--fail-if", "auc>0.99", "--fail-if", "accuracy<0.1", "--quiet"),
        "fails": ("--out", "fails", "--fail-if", "auc>=0.1"),
        "few": ("--out", "few", "--fail-if", "tpr@0.01%fpr>0.02", "--json", "--quiet"),
        "other": ("--out", "out", "--seed", "1"),
        "dry": ("--out", "dry", "--dry-run"),
    }

    def call(name: str) -> Done:
        cache = folder / ("untouched" if name in ("fresh", "dry") else "cache")
        return compress("recipe.toml", *runs[name], cwd=folder, cache=cache)

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(runs, pool.map(call, runs), strict=True))


def test_it_ends_with_a_table_and_two_paths(finished: Any) -> None:
    done = finished.done
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert re.match(r"artifact +size \(gzip\) +accuracy +worst attack +TPR at .* AUC", lines[0])
    for line, (name, (role, _, _)) in zip(lines[1:6], ARTIFACTS.items(), strict=True):
        assert line.startswith(name) and (role == "candidate") == (f"({role})" not in line)
        assert re.search(r"KiB \(.* KiB\) .*% \[.*\] .* \[0\.\d+, 0\.\d+\]", line), line
    assert re.match(r"prune60-\S+ by \S+: ε ≥ \d", lines[6]), lines[6]
    assert lines[7].startswith("No gate. On prune60-")
    assert "examples/location/recipe.toml" in " ".join(lines)
    assert lines[-2:] == [str(Path("out/audit.json")), str(Path("out/report.html"))]


def test_plan_and_progress_are_on_stderr(finished: Any) -> None:
    lines = finished.done.stderr.splitlines()
    recipe_id = audit_of(finished.out)["recipe_id"]
    assert lines[0].split() == ["recipe", recipe_id]
    assert "iterative pruning to 60 %, as float32, int8 (tflite)" in lines[2]
    assert "wemem, none" in lines[3] and "2 shadows" in lines[4]
    pattern = r"(releases|attacks): (\d+)/(\d+) steps, \d+ s(, about \d+ s left)?( \(.+\))?"
    steps = [re.fullmatch(pattern, line) for line in lines[7:]]
    assert all(steps), lines
    for part in ("releases", "attacks"):
        counts = [(int(match[2]), int(match[3])) for match in steps if match and match[1] == part]
        assert counts == sorted(counts) and counts[0][0] == 0 and counts[-1][0] == counts[-1][1], part


def test_the_folder_holds_what_was_promised(finished: Any) -> None:
    out = finished.out
    assert {path.name for path in out.iterdir() if not path.name.startswith(".")} == {
        *("recipe.toml", "split.json", "artifacts", "confidences", "audit.json", "report.html")
    }
    names = {path.name for path in (out / "artifacts").iterdir()}
    assert names == {f"{name}.{suffix}" for name in ARTIFACTS for suffix in ("tflite", "json")}
    assert {path.name for path in (out / "confidences").iterdir()} == {f"{name}.npz" for name in ARTIFACTS}


def test_the_recipe_is_the_whole_recipe(finished: Any) -> None:
    from edgeprivacy.recipe import Recipe

    resolved, written = Recipe.load(finished.out / "recipe.toml"), Recipe.load(finished.recipe)
    assert resolved == written and resolved.id == audit_of(finished.out)["recipe_id"]
    text = (finished.out / "recipe.toml").read_text()
    assert "learning_rate = 0.001" in text and "permutations = 200" in text  # defaults are filled in


def test_the_split_is_the_one_that_was_audited(finished: Any) -> None:
    from edgeprivacy.data.splits import Split

    split, told = Split.load(finished.out / "split.json"), audit_of(finished.out)["split"]
    assert told["sha256"] == split.sha256 and told["design"] == "half"
    assert told["counts"]["members"] == split.membership[0].sum()
    assert split.membership.shape == (MODELS, told["counts"]["pool"])
    assert f"trained on half of the pool: {told['counts']['members']} of" in told["text"]


def test_hashes_and_sizes_are_those_of_the_files(finished: Any) -> None:
    for artifact in audit_of(finished.out)["artifacts"]:
        content = (finished.out / artifact["file"]).read_bytes()
        manifest = json.loads((finished.out / artifact["file"]).with_suffix(".json").read_text())
        assert artifact["sha256"] == hashlib.sha256(content).hexdigest() == manifest["facts"]["sha256"]
        assert artifact["sha256"] == artifact["run"]["model_sha256"], "another file was run"
        assert artifact["size_bytes"] == len(content) == manifest["facts"]["size_bytes"]
        assert artifact["name"] == manifest["name"] == Path(artifact["file"]).stem


def _share(value: object) -> bool:
    return isinstance(value, float) and 0 <= value <= 1


def _metric(metric: dict[str, Any], *more: str) -> None:
    assert set(metric) == {"value", "ci", "across_targets", *more}
    low, high = metric["ci"]
    assert all(map(_share, (metric["value"], low, high))) and low <= high
    across = metric["across_targets"]
    assert set(across) == {"mean", "sd", "n"} and across["n"] == MODELS
    assert _share(across["mean"]) and _share(across["sd"])


def test_audit_json_keeps_its_contract(finished: Any) -> None:
    audit = audit_of(finished.out)
    assert set(audit) == {
        *("schema", "verdict", "exit_code", "recipe_id", "split", "null_tests", "artifacts", "gates"),
        *("notes", "recipe", "environment", "version_sets"),
    }
    assert (audit["schema"], audit["verdict"], audit["exit_code"]) == ("edgeprivacy.audit/1", "none", 0)
    assert re.fullmatch("[0-9a-f]{16}", audit["recipe_id"]) and audit["gates"] == []
    assert {test["name"] for test in audit["null_tests"]} == NULL_TESTS
    for test in audit["null_tests"]:
        assert set(test) == {"name", "passed", "p_value", "detail", "title"}
        assert test["passed"] is True and _share(test["p_value"]) and test["detail"] and test["title"]
    assert audit["environment"]["releases"] == {"trained": TRAININGS, "cached": 0}
    found = {a["name"]: (a["role"], a["defense"], a["format"]) for a in audit["artifacts"]}
    assert found == ARTIFACTS and list(found) == list(ARTIFACTS)
    for artifact in audit["artifacts"]:
        assert set(artifact) == {
            *("name", "role", "backend", "format", "defense", "file", "sha256", "size_bytes", "gzip_bytes"),
            *("utility", "parity", "attacks", "facts", "run"),
            *("device", "shadow_device", "performance", "drift", "canary_attacks", "bounds"),
        }
        assert artifact["canary_attacks"] == []
        _bounds(artifact["bounds"], artifact["attacks"][0]["n_members"])
        assert (artifact["device"], artifact["shadow_device"]) == ("host", None)
        assert artifact["performance"] is None and artifact["drift"] == []
        assert artifact["backend"] == "tflite" and not Path(artifact["file"]).is_absolute()
        assert 0 < artifact["gzip_bytes"] < artifact["size_bytes"]
        assert set(artifact["utility"]) == {"test_accuracy", "train_accuracy", "label_accuracy"}
        assert artifact["utility"].pop("label_accuracy") is None  # of one label a row
        for metric in artifact["utility"].values():
            _metric(metric)
        assert set(artifact["parity"]) == {"max_abs", "top1_flips", "rows"}
        assert artifact["parity"]["max_abs"] < (0.2 if artifact["format"] == "int8" else 1e-5)
        assert [attack["name"] for attack in artifact["attacks"]] == list(ATTACKS)
        for attack in artifact["attacks"]:
            _attack(attack, audit["split"]["counts"])


def _bounds(bounds: dict[str, Any], members: int) -> None:
    assert set(bounds) == {"attack", "one_run", "strength", "risk", "slices", "vulnerable"}
    assert bounds["attack"] == "confidence.global"  # LiRA needs more shadows, and nothing else learns nothing
    one_run = bounds["one_run"]
    assert one_run["not_run"] is None and one_run["epsilon"] >= 0 and one_run["mu"] >= 0
    assert 0 <= one_run["correct"] <= one_run["guesses"] <= one_run["canaries"]
    assert "no likelihood ratio" in bounds["risk"]["not_run"]
    assert "not a bound of differential privacy" in bounds["strength"]["meaning"]
    assert 0 < bounds["strength"]["n_members"] <= members
    assert {row["group"] for row in bounds["slices"]["rows"]} == {"class", "confidence", "correctness"}
    assert bounds["vulnerable"]["share"] is None and bounds["vulnerable"]["not_run"]


def _attack(attack: dict[str, Any], counts: dict[str, int]) -> None:
    assert set(attack) == {
        *("name", "version", "paper", "n_members", "n_nonmembers", "skipped", "pooled_rows", "metrics"),
        *("roc", "histogram", "notes", "targets"),
    }
    assert attack["targets"] == 1
    assert attack["version"] and attack["paper"]
    assert (attack["n_members"], attack["n_nonmembers"]) == (counts["members"], counts["nonmembers"])
    metrics = attack["metrics"]
    assert set(metrics) == {"auc", "balanced_accuracy", "tpr_at_fpr"}
    if attack["name"] == "lira.online":
        assert attack["skipped"] == "needs 4 or more shadows, there are 2"
        assert (metrics["auc"], metrics["balanced_accuracy"], metrics["tpr_at_fpr"]) == (None, None, [])
        return
    assert attack["skipped"] is None
    _metric(metrics["auc"])
    _metric(metrics["balanced_accuracy"], "threshold", "tpr", "fpr")
    assert metrics["balanced_accuracy"]["threshold"] == "shadow"
    limits = metrics["tpr_at_fpr"]
    assert [entry["fpr"] for entry in limits] == [0.01, 0.001, 0.0001]
    for entry in limits:
        _metric(entry, "fpr", "definition", "support")
        assert entry["definition"] == "step_le"
        expected = entry["fpr"] * attack["n_nonmembers"]
        assert entry["support"] == ("ok" if expected >= 10 else "low" if expected >= 1 else "none")


def test_the_report_fetches_nothing(finished: Any) -> None:
    page = (finished.out / "report.html").read_text()
    assert page.lstrip().lower().startswith("<!doctype html>") and len(page) > 20_000
    fetched = re.findall(r"""(?:src|href|srcset|data)\s*=\s*["']?\s*([^"'>\s]+)""", page)
    fetched += re.findall(r"""url\(\s*["']?([^"')]+)""", page)
    assert not [link for link in fetched if not link.startswith(("data:", "#"))]
    assert "@import" not in page and "<script src" not in page
    for name in ARTIFACTS:
        assert name in page


@pytest.mark.slow
def test_a_second_run_trains_nothing_and_says_the_same(finished: Any, others: dict[str, Done]) -> None:
    done, before = others["again"], audit_of(finished.folder / "first")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed == audit_of(finished.out)
    assert printed["environment"]["releases"] == {"trained": 0, "cached": TRAININGS}
    assert without_environment(printed) == without_environment(before)
    assert shipped(finished.out) == shipped(finished.folder / "first")
    saved = [(folder / "split.json").read_bytes() for folder in (finished.out, finished.folder / "first")]
    assert saved[0] == saved[1]


@pytest.mark.slow
def test_without_the_cache_and_with_other_jobs_every_byte_is_the_same(
    finished: Any, others: dict[str, Done]
) -> None:
    done, fresh = others["fresh"], finished.folder / "fresh"
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (finished.folder / "untouched" / "edgeprivacy").exists()
    assert len(shipped(fresh)) == len(ARTIFACTS) and shipped(fresh) == shipped(finished.out)
    audit = audit_of(fresh)
    assert audit["environment"]["releases"] == {"trained": TRAININGS, "cached": 0}
    assert without_environment(audit) == without_environment(audit_of(finished.folder / "first"))


@pytest.mark.slow
def test_gates_decide_the_exit_code(finished: Any, others: dict[str, Done]) -> None:
    passes, fails, few = others["passes"], others["fails"], others["few"]
    assert (passes.returncode, passes.stdout, passes.stderr) == (0, "", "")
    audit = audit_of(finished.folder / "passes")
    assert audit["verdict"] == "pass" and [gate["verdict"] for gate in audit["gates"]] == ["pass", "pass"]
    assert set(audit["gates"][0]) == {"expr", "canonical", "observed", "ci", "verdict", "detail"}
    assert fails.returncode == 1 and "FAIL" in fails.stdout and "auc >= 0.1" in fails.stdout
    assert audit_of(finished.folder / "fails")["verdict"] == "fail"
    assert (few.returncode, few.stderr) == (3, "")
    undecided = json.loads(few.stdout)
    assert (undecided["verdict"], undecided["exit_code"]) == ("inconclusive", 3)
    assert "non-members are too few for an FPR of 0.01%" in undecided["gates"][0]["detail"]


@pytest.mark.slow
def test_the_folder_of_another_recipe_is_refused_and_a_dry_run_makes_nothing(
    finished: Any, others: dict[str, Done]
) -> None:
    other, dry = others["other"], others["dry"]
    assert (other.returncode, other.stdout) == (2, "")
    assert other.stderr.startswith("error: the folder out belongs to another recipe")
    assert len(other.stderr.splitlines()) == 1
    assert (dry.returncode, dry.stderr) == (0, "") and "1797 rows" in dry.stdout
    assert f"recipe    {audit_of(finished.out)['recipe_id']}" in dry.stdout
    assert not (finished.folder / "dry").exists()


@pytest.mark.slow
@pytest.mark.parametrize("place", ["out", "cache", "scratch"])
def test_a_full_disk_is_one_line_and_exit_4(
    place: str, finished: Any, compress: Callable[..., Done], full_disk: Path, tmp_path: Path
) -> None:
    folders = {name: tmp_path / name for name in ("out", "cache", "scratch")}
    folders[place] = full_disk / place
    folders["scratch"].mkdir()
    if place == "out":
        folders["cache"] = finished.cache  # so that there is soon something to write
    done = compress(
        finished.recipe,
        *("--out", folders["out"], "--quiet"),
        cwd=tmp_path,
        cache=folders["cache"],
        TMPDIR=str(folders["scratch"]),
    )
    assert (done.returncode, done.stdout) == (4, ""), done.stderr
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("error: "), done.stderr
    assert re.search("free some space|No space left", done.stderr)
    whole = [path for path in full_disk.rglob("*") if path.suffix in (".tflite", ".npz")]
    for path in whole:
        twin = finished.out / path.relative_to(folders["out"]) if place == "out" else None
        assert twin is None or path.read_bytes() == twin.read_bytes()
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".part")]
