"""SARIF 2.1.0 for code scanning: what a release must not ship with, and in which file it was found.

One rule a gate and one a null test; one result for each file on which a gate does not hold, and for each null
test that failed. What passes is no result: code scanning shows every result as an alert, and closes an alert
once its result is gone. The verdicts of all gates stand in the run's properties instead.

A finding is known by its rule and its file's name, not by bytes or numbers, so that it stays one alert from
build to build. Nothing of single rows is written.

Format: OASIS, Static Analysis Results Interchange Format 2.1.0 with errata 01.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from edgeprivacy import __version__
from edgeprivacy.errors import UsageError
from edgeprivacy.gate import Case, cases, parse_gate
from edgeprivacy.report import words, writers
from edgeprivacy.report.sarif_help import gate_help, null_help
from edgeprivacy.report.sarif_names import automation_id, file_uri, fingerprint, message, rule_id
from edgeprivacy.results import ArtifactResult, Audit, GateResult, Interval, NullTest

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEVELS = {"fail": "error", "inconclusive": "warning"}
_EXITS = {
    0: "all gates hold, or there is none",
    1: "a gate failed",
    3: "inconclusive: too few rows, or a null test failed",
}


@writers.register("sarif")
def render_sarif(audit: Audit) -> str:
    """A SARIF log with one run; paths in it are relative to the folder of audit.json."""
    rules = [*map(_null_rule, audit.null_tests), *map(_gate_rule, audit.gates)]
    # Two gates may differ in their spelling alone, and are then one rule.
    rules = list({rule["id"]: rule for rule in rules}.values())
    positions = {rule["id"]: position for position, rule in enumerate(rules)}
    results = [*_null_results(audit), *_gate_results(audit)]
    for result in results:
        result["ruleIndex"] = positions[result["ruleId"]]
    run = {
        "tool": {"driver": {"name": "edgeprivacy", "version": _version(audit), "rules": rules}},
        "automationDetails": {"id": automation_id(audit)},
        "invocations": [_invocation(audit)],
        "artifacts": _files(audit),
        "results": results,
        "columnKind": "unicodeCodePoints",
        "properties": {
            "verdict": audit.verdict,
            "recipeId": audit.recipe_id and words.clean(audit.recipe_id),
            "gates": [
                {"expression": words.clean(gate.canonical), "verdict": gate.verdict, **_measured(gate)}
                for gate in audit.gates
            ],
            "nullTests": [
                {"name": words.clean(test.name), "status": words.null_status(test), "pValue": test.p_value}
                for test in audit.null_tests
            ],
        },
    }
    content = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def _rule(rule: str, name: str, short: str, about: str, advice: str) -> dict[str, Any]:
    return {
        "id": rule,
        "name": name,
        "shortDescription": {"text": message(short)},
        "fullDescription": {"text": message(about)},
        "help": {"text": message(about, advice)},
        "defaultConfiguration": {"level": "error"},
        "properties": {"tags": ["privacy", "membership-inference"]},
    }


def _gate_rule(gate: GateResult) -> dict[str, Any]:
    rule = rule_id("gate", gate.canonical)
    return _rule(rule, "ReleaseGate", f"Fails when {words.clean(gate.canonical)}", *gate_help(gate))


def _null_rule(test: NullTest) -> dict[str, Any]:
    rule = rule_id("null-test", test.name)
    return _rule(rule, "NullTest", f"Null test: {words.null_title(test)}", *null_help(test))


def _null_results(audit: Audit) -> Iterator[dict[str, Any]]:
    for test in words.failed_null_tests(audit):
        text = f"Null test failed: {words.null_title(test)}. {test.detail} {words.null_meaning(test)}"
        properties = {"pValue": test.p_value}
        yield _result(rule_id("null-test", test.name), "error", text, _candidates(audit), properties)


def _gate_results(audit: Audit) -> Iterator[dict[str, Any]]:
    for gate in audit.gates:
        rule, told = rule_id("gate", gate.canonical), set()
        for name, found in _deciding(audit, gate).items():
            worst = found[0]
            told.add(worst.verdict)
            where = [artifact for artifact in audit.artifacts if artifact.name == name]
            properties: dict[str, Any] = {**_measured(worst), "attack": _cleaned(worst.attack)}
            if len(found) > 1:
                properties["allAttacks"] = [
                    {"attack": _cleaned(case.attack), **_measured(case)} for case in found
                ]
            device = where[0].device
            if device != "host":
                properties["device"] = words.clean(device)
            text = f"{_sentence(gate, worst.verdict)} on {worst.label}: {_value(worst.value, worst.ci)}."
            if worst.reason:
                text += f" {worst.reason[0].upper()}{worst.reason[1:]}."
            yield _result(rule, _LEVELS[worst.verdict], _doubted(audit, text), where, properties, name)
        if gate.verdict in _LEVELS and gate.verdict not in told:
            # The gate as a whole says more than its cases: a candidate without any measured attack, or an
            # expression of another version, of which only the verdict is known.
            text = f"{_sentence(gate, gate.verdict)}: {_value(gate.observed, gate.ci)}. {gate.detail}"
            level = _LEVELS[gate.verdict]
            yield _result(rule, level, _doubted(audit, text), _candidates(audit), _measured(gate))


def _deciding(audit: Audit, gate: GateResult) -> dict[str, list[Case]]:
    """By file, the cases on which the gate fails, else those that do not decide; the worst first."""
    try:
        parsed = parse_gate(gate.canonical, check_attacks=False)
    except UsageError:
        return {}
    found: dict[str, list[Case]] = {}
    for case in cases(parsed, audit.artifacts, sets=audit.version_sets):
        if case.verdict in _LEVELS:
            found.setdefault(case.artifact, []).append(case)
    upward = parsed.op in (">", ">=")

    def harm(case: Case) -> tuple[bool, float]:
        if case.value is None:
            return case.verdict == "fail", float("-inf")
        return case.verdict == "fail", case.value if upward else -case.value

    ordered = {name: sorted(group, key=harm, reverse=True) for name, group in found.items()}
    return {
        name: [case for case in group if case.verdict == group[0].verdict] for name, group in ordered.items()
    }


def _sentence(gate: GateResult, verdict: str) -> str:
    name = words.clean(gate.canonical)
    return f"Gate failed, {name}" if verdict == "fail" else f"The evidence does not decide {name}"


def _doubted(audit: Audit, text: str) -> str:
    """A finding beside a failed null test must not be read without it."""
    failed = words.failed_null_tests(audit)
    return f"A null test failed, so this may not come from the model. {text}" if failed else text


def _value(value: float | None, ci: Interval | None) -> str:
    if value is None:
        return "nothing was observed"
    return f"observed {value:.4f}" + ("" if ci is None else f", interval {ci[0]:.4f} to {ci[1]:.4f}")


def _measured(found: Case | GateResult) -> dict[str, Any]:
    value = found.value if isinstance(found, Case) else found.observed
    return {"observed": value, "interval": None if found.ci is None else list(found.ci)}


def _cleaned(text: str | None) -> str | None:
    return None if text is None else words.clean(text)


def _candidates(audit: Audit) -> list[ArtifactResult]:
    return [artifact for artifact in audit.artifacts if artifact.role == "candidate"]


def _result(
    rule: str,
    level: str,
    text: str,
    where: Sequence[ArtifactResult],
    properties: dict[str, Any],
    name: str | None = None,
) -> dict[str, Any]:
    identity = fingerprint(rule, name)
    return {
        "ruleId": rule,
        "level": level,
        "message": {"text": message(text)},
        "locations": [_location(artifact) for artifact in where] or [_location(None)],
        # Code scanning reads the second name alone, and would else hash the first line of a model file.
        "partialFingerprints": {
            "edgeprivacyFinding/v1": identity,
            "primaryLocationLineHash": f"{identity}:1",
        },
        "properties": properties,
    }


def _location(artifact: ArtifactResult | None) -> dict[str, Any]:
    """The model file, or audit.json where none is known; its first line, as code scanning asks for a line."""
    uri = "audit.json" if artifact is None or not artifact.file else file_uri(artifact.file)
    location: dict[str, Any] = {
        "physicalLocation": {"artifactLocation": {"uri": uri}, "region": {"startLine": 1, "endLine": 1}}
    }
    if artifact is not None:
        location["logicalLocations"] = [{"name": words.clean(artifact.name), "kind": "module"}]
    return location


def _files(audit: Audit) -> list[dict[str, Any]]:
    """The files, each once: on several devices one file has several results."""
    found: dict[str, dict[str, Any]] = {}
    for artifact in audit.artifacts:
        if not artifact.file:
            continue
        uri = file_uri(artifact.file)
        found.setdefault(
            uri,
            {
                "location": {"uri": uri},
                "length": artifact.size_bytes,
                "roles": ["analysisTarget"],
                "hashes": {"sha-256": words.clean(artifact.sha256)},
                "properties": {
                    "name": words.clean(artifact.name),
                    "role": artifact.role,
                    "backend": words.clean(artifact.backend),
                    "format": words.clean(artifact.format),
                    "defense": words.clean(artifact.defense),
                },
            },
        )
    return list(found.values())


def _version(audit: Audit) -> str:
    """Of the program that measured, which may be older than the one that writes."""
    known = audit.environment.get("edgeprivacy")
    return known if isinstance(known, str) and re.fullmatch(r"[\w.+-]{1,40}", known) else __version__


def _invocation(audit: Audit) -> dict[str, Any]:
    """The audit was carried through, whatever it found: a run that breaks off writes no report."""
    invocation: dict[str, Any] = {"executionSuccessful": True, "exitCode": audit.exit_code}
    if audit.exit_code in _EXITS:
        invocation["exitCodeDescription"] = _EXITS[audit.exit_code]
    finished = audit.environment.get("finished")
    if isinstance(finished, str):
        try:
            moment = datetime.fromisoformat(finished).astimezone(UTC)
        except (ValueError, OverflowError):
            return invocation
        invocation["endTimeUtc"] = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    return invocation
