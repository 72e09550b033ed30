"""Bounds, risks and slices in every report: each number is the object's, and nothing where there is none."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from edgeprivacy.bounds_results import (
    Bounds,
    OneRunBound,
    RecordRisk,
    RiskBin,
    SliceRow,
    Slices,
    Strength,
    Vulnerable,
)
from edgeprivacy.report import render
from edgeprivacy.report.bounds_words import bounds_rows, bounds_sentence, slice_p, slice_tpr
from edgeprivacy.results import Audit

from .conftest import HOSTILE

MEASURED = Bounds(
    attack="lira.online",
    one_run=OneRunBound(1.234567, 0.456789, 0.0, 0.95, 1250, 301, 277),
    strength=Strength(2.345678, 0.95, 0.0712, 0.0061, 625, 625, "attack strength, not a bound"),
    risk=RecordRisk(
        prior=0.5,
        calibration="isotonic",
        bins=(RiskBin(0.31, 0.29, (0.2, 0.4), 900), RiskBin(0.97, 0.6, (0.5, 0.7), 90)),
        expected_error=0.0432,
        error_by_chance=0.0123,
        outside=1,
        above=((0.5, 700, 400), (0.9, 120, 9), (0.99, 37, 1)),
    ),
    slices=Slices(
        (
            SliceRow("class", "class 3", 60, 61, 0.61, (0.5, 0.7), p_value=0.2),
            SliceRow("correctness", "wrong", 300, 310, 0.83, (0.75, 0.9), 0.21, (0.1, 0.3), 0.00001, True),
            SliceRow("class", "class 4", 3, 2, not_run="5 rows"),
        ),
        measured=2,
        level=0.95,
        fpr=0.01,
    ),
    vulnerable=Vulnerable(0.4123, (0.35, 0.47), 0.1004, 1250, 17),
)
REFUSED = replace(
    MEASURED,
    attack="rmia.offline",
    one_run=OneRunBound(not_run="membership was not drawn by coins"),
    risk=RecordRisk(not_run="rmia.offline gives no likelihood ratio; lira.online.global does"),
    slices=None,
    vulnerable=Vulnerable(None, None, 0.1, 1250, 2, not_run="needs 4 models"),
)


@pytest.fixture(scope="module")
def bounded(audit: Audit) -> Audit:
    first, second, third, *rest = audit.artifacts
    return replace(
        audit,
        artifacts=(first, replace(second, bounds=MEASURED), replace(third, bounds=REFUSED), *rest),
    )


def test_sentences_hold_the_numbers(bounded: Audit) -> None:
    told, refused = bounds_rows(bounded)
    assert (told.row.number, refused.row.number) == (2, 3)
    assert told.epsilon == "ε ≥ 1.23" and "μ ≥ 0.46" in told.one_run
    assert "277 of 301 guessed coins were right, of 1,250 coins" in told.one_run
    assert told.strength.startswith("2.35, where 7.1% of members and 0.6% of non-members")
    assert told.certain == "37 of 1,250 members, 1 of 1,250 non-members"
    assert [text.split(":")[0] for text in told.risks] == [f"risk {p}% or more" for p in (50, 90, 99)]
    assert told.calibration is not None and "1 of 2 bins" in told.calibration and "4.3%" in told.calibration
    assert (
        told.carried
        == "the most vulnerable 10.0% of the rows carry 41.2% [35.0, 47.0] of the leakage (17 models)."
    )
    assert [row.name for row in told.slices] == ["wrong", "class 3"]
    assert told.slices_told.startswith("2 slices, 1 of them leak") and told.slices_told.endswith(
        "1 more are too small"
    )
    assert (slice_p(told.slices[0]), slice_tpr(told.slices[0])) == ("under 0.0001", "21.0% [10.0, 30.0]")
    assert slice_tpr(told.slices[1]) == "–"
    assert refused.epsilon == "no bound from one run" and refused.one_run.endswith("not drawn by coins")
    assert refused.certain == "–" and refused.calibration is None and refused.slices == ()
    assert bounds_sentence(told).startswith(" by lira.online: ε ≥ 1.23; known with 99% certainty: 37 of")
    assert bounds_sentence(refused) == " by rmia.offline: no bound from one run"


def test_a_bound_of_zero_says_that_nothing_was_shown(bounded: Audit) -> None:
    zero = replace(MEASURED, one_run=replace(MEASURED.one_run, epsilon=0.0))
    changed = replace(bounded, artifacts=(replace(bounded.artifacts[1], bounds=zero),))
    assert bounds_rows(changed)[0].epsilon == "ε ≥ 0 (nothing shown)"


def test_every_report_shows_them(bounded: Audit) -> None:
    page, text, terminal = (render(bounded, name) for name in ("html", "markdown", "terminal"))
    section = page[page.index("<h2>Bounds and records at risk") : page.index("<h2>Null tests")]
    for words in (
        "ε ≥ 1.23",
        "37 of 1,250 members",
        "41.2% [35.0, 47.0]",
        "class 3",
        "0.830",
        "needs 4 models",
    ):
        assert words in section
    pictures = re.findall(r"<svg.*?</svg>", section, re.DOTALL)
    assert len(pictures) == 1, "one file has risks"
    ElementTree.fromstring(pictures[0])
    assert "### Bounds and records at risk" in text and "| ε ≥ 1.23 | 37 of 1,250 members" in text
    # The terminal tells of the candidate that leaks most, and of no other.
    assert terminal.count("ε ≥") + terminal.count("no bound from one run") == 1


@pytest.mark.parametrize("format", ["html", "markdown", "terminal"])
def test_nothing_where_there_is_none(audit: Audit, format: str) -> None:
    assert "ε ≥" not in render(audit, format) and "records at risk" not in render(audit, format)


def test_a_strangers_words_stay_words(bounded: Audit) -> None:
    hostile = replace(
        MEASURED,
        attack=HOSTILE,
        one_run=OneRunBound(not_run=HOSTILE),
        slices=replace(MEASURED.slices, rows=(replace(MEASURED.slices.rows[0], name=HOSTILE),)),
    )
    changed = replace(bounded, artifacts=(replace(bounded.artifacts[1], bounds=hostile),))
    assert "<script>" not in render(changed, "html") and "<script>" not in render(changed, "markdown")
