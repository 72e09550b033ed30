"""Canaries in every report: side by side with all other rows, and nothing where there are none."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from edgeprivacy.report import render
from edgeprivacy.report.canary_words import canary_rows, canary_tpr_title
from edgeprivacy.results import Audit

from .conftest import HOSTILE, make_attack, skipped_attack


@pytest.fixture(scope="module")
def with_canaries(audit: Audit) -> Audit:
    told = (
        make_attack("confidence", 1.0, seed=5),
        replace(make_attack("lira.online", 2.0, 0.6, seed=7), targets=17),
        skipped_attack("rmia.offline", "needs population rows, there are none"),
    )
    first, second, third, *rest = audit.artifacts
    artifacts = (first, second, replace(third, canary_attacks=told), *rest)
    return replace(audit, artifacts=artifacts)


def test_rows_stand_side_by_side(with_canaries: Audit) -> None:
    rows = canary_rows(with_canaries)
    artifact = with_canaries.artifacts[2]
    assert [row.attack for row in rows] == ["confidence", "lira.online", "rmia.offline"]
    assert [row.strongest for row in rows] == [False, True, False]
    for row, canary in zip(rows[:2], artifact.canary_attacks, strict=False):
        other = artifact.attack(row.attack)
        assert row.canary_auc.startswith(f"{canary.auc.value:.3f} [")
        assert row.population_auc.startswith(f"{other.auc.value:.3f} [")
        assert row.canary_tpr.startswith(f"{100 * canary.tpr(0.01).value:.1f}% [")
        assert row.population_tpr.startswith(f"{100 * other.tpr(0.01).value:.1f}% [")
    assert rows[2].skipped and canary_tpr_title(with_canaries) == "TPR at 1% FPR"


def test_no_limit_that_only_one_side_supports(with_canaries: Audit) -> None:
    artifact = with_canaries.artifacts[2]
    for support, title in (("low", "TPR at 1% FPR"), ("none", None)):
        weak = tuple(
            replace(
                a,
                tpr_at_fpr=tuple(
                    replace(e, support=support if e.fpr == 0.01 else "none") for e in a.tpr_at_fpr
                ),
            )
            for a in artifact.canary_attacks
        )
        changed = replace(with_canaries, artifacts=(replace(artifact, canary_attacks=weak),))
        assert canary_tpr_title(changed) == title
        render(changed, "html"), render(changed, "markdown")


@pytest.mark.parametrize("format", ["html", "markdown", "terminal"])
def test_every_report_shows_both(with_canaries: Audit, audit: Audit, format: str) -> None:
    # As a reader sees it: an interval has an element of its own.
    seen = re.sub("</?small>", "", render(with_canaries, format))
    text, without = " ".join(seen.split()), render(audit, format)
    row = canary_rows(with_canaries)[1]
    escaped = (lambda value: value.replace("[", r"\[").replace("]", r"\]")) if format == "markdown" else str
    for value in (row.canary_auc, row.population_auc, row.canary_tpr, row.population_tpr):
        assert escaped(value) in text
    assert "anaries" in text and "anaries" not in without
    if format != "terminal":
        assert "not the ones to ship" in text and "skipped: needs population rows" in text


def test_junit_has_a_case_for_each(with_canaries: Audit) -> None:
    root = ElementTree.fromstring(render(replace(with_canaries, gates=()), "junit"))
    names = [case.get("name") for case in root.iter("testcase")]
    assert "lira.online (canaries)" in names and names.count("lira.online (canaries)") == 1


def test_a_strangers_words_stay_text(with_canaries: Audit) -> None:
    artifact = with_canaries.artifacts[2]
    bad = replace(artifact.canary_attacks[1], name=f"{HOSTILE}|\x1b[31m")
    hostile = replace(
        with_canaries, artifacts=(replace(artifact, canary_attacks=(bad, skipped_attack("x", HOSTILE))),)
    )
    for format in ("html", "markdown", "terminal"):
        text = render(hostile, format)
        assert "\x1b" not in text
        assert format == "terminal" or "<script>alert" not in text
