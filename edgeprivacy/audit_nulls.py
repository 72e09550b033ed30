"""The null tests of an audit without training code: those of files, and those of outputs alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgeprivacy import nulls
from edgeprivacy.audit_data import AuditData
from edgeprivacy.confidences import Confidences
from edgeprivacy.device_runner import Queries
from edgeprivacy.results import NullTest
from edgeprivacy.sides import PERMUTATIONS

QUERIED_TWICE_ROWS = 100

Scores = Mapping[str, NDArray[np.float64]]
Collect = Callable[[Queries], Sequence[Confidences]]
"""Runs all files of the audit on rows."""


def file_null_tests(
    data: AuditData,
    answers: Sequence[Mapping[str, Confidences]],
    scores: Scores,
    collect: Collect,
    seed: int,
    more: Sequence[NullTest] = (),
) -> tuple[NullTest, ...]:
    """All four null tests, judged together; those whose rows are not there are listed as not run.

    Args:
        data: The rows.
        answers: What each file answered, by side.
        scores: Every attack's scores [rows], members first.
        collect: To query rows again.
        seed: Of permutations, folds and samples.
        more: Further tests of the same family, not judged yet.
    """
    tests = [
        _held_out_as_members(data, answers),
        _permuted_labels(scores, len(data.members.data), len(data.scored), seed),
        nulls.blind_classifier(data.members.data.x, data.scored.x, seed),
        nulls.tried("queried-twice", lambda: _queried_twice(data, answers, collect, seed)),
        *more,
    ]
    return nulls.judge(tests)


def output_null_tests(
    scores: Scores, members: int, nonmembers: int, seed: int, more: Sequence[NullTest] = ()
) -> tuple[NullTest, ...]:
    """The one null test that needs outputs only, and `more`; the others are listed as not run."""
    reason = "only outputs are there, no inputs and no file"
    tests = [
        nulls.not_run("held-out-as-members", reason),
        _permuted_labels(scores, members, nonmembers, seed),
        nulls.not_run("blind-classifier", reason),
        nulls.not_run("queried-twice", reason),
        *more,
    ]
    return nulls.judge(tests)


def _held_out_as_members(data: AuditData, answers: Sequence[Mapping[str, Confidences]]) -> NullTest:
    if data.null_members is None:
        return nulls.not_run("held-out-as-members", data.no_null_members)
    return nulls.held_out_as_members(
        [sides["null_members"] for sides in answers], [sides["nonmembers"] for sides in answers]
    )


def _permuted_labels(scores: Scores, members: int, nonmembers: int, seed: int) -> NullTest:
    if not scores:
        return nulls.not_run("permuted-labels", "every attack was skipped")
    truth = np.repeat([True, False], [members, nonmembers])
    return nulls.permuted_labels(dict(scores), truth, PERMUTATIONS, seed)


def _queried_twice(
    data: AuditData, answers: Sequence[Mapping[str, Confidences]], collect: Collect, seed: int
) -> NullTest:
    passes, loaded = [], True
    for name, rows, side in (
        ("members", data.members.data, data.members),
        ("nonmembers", data.scored, data.nonmembers),
    ):
        some = np.random.default_rng(seed).permutation(len(rows))[:QUERIED_TWICE_ROWS]
        first = rows.x[some]
        loaded &= side.read_again is not None
        again = first if side.read_again is None else side.read_again(rows.ids[some])
        second = collect(Queries(again, rows.ids[some], rows.y[some]))
        for sides, confidences in zip(answers, second, strict=True):
            before = sides[name].take(some).probabilities
            passes.append(nulls.Twice(first, again, before, confidences.probabilities))
    test = nulls.queried_twice(passes)
    if not loaded:
        return replace(test, detail=f"{test.detail}; rows given as arrays cannot be loaded twice")
    return test
