"""What the reports advise: only what was measured, and only where it clearly is better."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgeprivacy.report import render
from edgeprivacy.report.advice import advice
from edgeprivacy.results import ArtifactResult, Audit, Metric, Utility

from .conftest import make_attack


def file_of(
    artifact: ArtifactResult, name: str, shift: float, heavy: float, accuracy: float
) -> ArtifactResult:
    return replace(
        artifact,
        name=name,
        role="candidate",
        backend="tflite",
        format="int8",
        attacks=(make_attack("lira.online", shift, heavy),),
        utility=Utility(Metric(accuracy, (accuracy - 0.03, accuracy + 0.03))),
    )


@pytest.fixture(scope="module")
def audit_of(audit: Audit):
    first = audit.artifacts[0]
    leaky = file_of(first, "leaky", 1.4, 0.5, 0.62)

    def build(*others: ArtifactResult) -> Audit:
        return replace(audit, artifacts=(leaky, *others), gates=())

    return build, first


def test_the_file_that_leaks_least_among_those_as_accurate_is_named(audit_of) -> None:
    build, first = audit_of
    cheap, better = file_of(first, "cheap", 0.1, 0.02, 0.61), file_of(first, "dear", 0.0, 0.0, 0.40)
    (told,) = advice(build(cheap, better))
    assert "cheap gives away less" in told and "at a cost of 1.0 points of test accuracy" in told
    (told,) = advice(build(better))
    assert "dear gives away less" in told and told.endswith("It costs 22.0 points of test accuracy.")
    (told,) = advice(build(file_of(first, "free", 0.1, 0.02, 0.63)))
    assert told.endswith("and is no less accurate.")


def test_overlapping_intervals_and_other_kinds_of_files_are_no_advice(audit_of) -> None:
    build, first = audit_of
    alike = file_of(first, "alike", 1.4, 0.49, 0.62)
    other = replace(file_of(first, "other", 0.0, 0.0, 0.62), backend="executorch")
    original = replace(file_of(first, "original", 0.0, 0.0, 0.62), role="original")
    (told,) = advice(build(alike, other, original))
    assert told.startswith("No other file of this audit clearly gives away less")
    assert advice(replace(build(alike), recipe_id=None)) == []


def test_every_report_says_it_and_none_where_a_null_test_failed(audit_of, confounded: Audit) -> None:
    build, first = audit_of
    told = build(file_of(first, "cheap", 0.1, 0.02, 0.61))
    for format in ("html", "markdown", "terminal"):
        assert "gives away less" in " ".join(render(told, format).split())
    assert advice(confounded) == []
    assert "gives away less" not in render(confounded, "html")
