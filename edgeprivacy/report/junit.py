"""JUnit XML: one test case per artifact, attack and gate, and one per null test."""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree import ElementTree

from edgeprivacy.errors import UsageError
from edgeprivacy.gate import Case, cases, parse_gate
from edgeprivacy.report import words, writers
from edgeprivacy.results import Audit, GateResult


@writers.register("junit")
def render_junit(audit: Audit) -> str:
    """A failed gate or null test is a failure, an inconclusive one an error, what did not run is skipped.

    Without a gate the measured values stand in test cases that assert nothing.
    """
    root = ElementTree.Element("testsuites", name="edgeprivacy")
    _null_tests(root, audit)
    for gate in audit.gates:
        _gate(root, audit, gate)
    if not audit.gates:
        _attacks(root, audit)
    for suite in root:
        for kind, tag in (
            ("tests", "testcase"),
            ("failures", "failure"),
            ("errors", "error"),
            ("skipped", "skipped"),
        ):
            suite.set(kind, str(len(list(suite.iter(tag)))))
    for kind in ("tests", "failures", "errors", "skipped"):
        root.set(kind, str(sum(int(suite.get(kind, "0")) for suite in root)))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _suite(root: ElementTree.Element, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(root, "testsuite", name=words.clean(name))


def _case(suite: ElementTree.Element, classname: str, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", classname=words.clean(classname), name=words.clean(name))


def _mark(case: ElementTree.Element, tag: str, message: str, text: str = "") -> None:
    ElementTree.SubElement(case, tag, message=words.clean(message)).text = words.clean(text) or None


def _null_tests(root: ElementTree.Element, audit: Audit) -> None:
    suite = _suite(root, "null tests")
    for test in audit.null_tests:
        case = _case(suite, "null tests", test.name)
        if test.passed is None:
            _mark(case, "skipped", test.detail)
        elif test.passed is False:
            _mark(case, "failure", test.detail, words.null_meaning(test))


def _gate(root: ElementTree.Element, audit: Audit, gate: GateResult) -> None:
    suite = _suite(root, f"gate {gate.canonical}")
    found: Iterable[Case] = ()
    try:
        found = cases(
            parse_gate(gate.canonical, check_attacks=False), audit.artifacts, sets=audit.version_sets
        )
    except UsageError:
        pass  # A gate of another version: only its own verdict can be told.
    told = set()
    for one in found:
        case = _case(suite, one.artifact, one.attack or gate.canonical)
        told.add(one.verdict)
        value = "nothing observed" if one.value is None else f"observed {one.value:.4f}"
        interval = "" if one.ci is None else f" [{one.ci[0]:.4f}, {one.ci[1]:.4f}]"
        if one.verdict == "none":
            _mark(case, "skipped", one.reason)
        elif one.verdict != "pass":
            tag = "failure" if one.verdict == "fail" else "error"
            _mark(case, tag, f"{gate.canonical}: {one.verdict}, {value}{interval}", one.reason)
    if gate.verdict not in told:
        # The gate as a whole says more than its cases: a candidate without any measured attack, for instance.
        case = _case(suite, "gate", gate.canonical)
        if gate.verdict != "pass":
            tag = "failure" if gate.verdict == "fail" else "error"
            _mark(case, tag, f"{gate.canonical}: {gate.verdict}", gate.detail)


def _attacks(root: ElementTree.Element, audit: Audit) -> None:
    suite = _suite(root, "attacks (no gate)")
    limit = words.common_limit(audit)
    for artifact in audit.artifacts:
        on_canaries = [(f"{attack.name} (canaries)", attack) for attack in artifact.canary_attacks]
        for name, attack in [*((attack.name, attack) for attack in artifact.attacks), *on_canaries]:
            case = _case(suite, artifact.name, name)
            if attack.skipped is not None:
                _mark(case, "skipped", attack.skipped)
                continue
            told = [f"AUC {words.auc(attack.auc)}"]
            if limit is not None:
                told.append(
                    f"TPR at {words.limit_percent(limit.fpr)} FPR {words.share(attack.tpr(limit.fpr))}"
                )
            ElementTree.SubElement(case, "system-out").text = ", ".join(told)
