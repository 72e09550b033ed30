"""The null tests of an audit (design.md 6.7): what must find nothing if the measurement is sound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.confidences import Confidences
from edgeprivacy.errors import DataError
from edgeprivacy.metrics.multiple import holm
from edgeprivacy.metrics.null_tests import (
    NullOutcome,
    blind_classifier_test,
    permuted_labels_test,
    rank_sum_test,
    same_outputs_test,
)
from edgeprivacy.metrics.signals import confidence, entropy
from edgeprivacy.results import NullTest

FAMILY_LEVEL = 0.01
"""Chance that a sound audit fails any of its null tests (Holm)."""

TITLES = {
    "held-out-as-members": "Held-out rows passed off as members, through the members' own path",
    "permuted-labels": "Permuted membership",
    "blind-classifier": "Inputs alone, without the model",
    "queried-twice": "Rows loaded and queried twice",
    "shadow-membership": "What trained the shadows, without any output",
}
UNSEEN = {
    "held-out-as-members": "a difference between the way members and non-members are loaded or queried "
    "would stay unseen",
    "permuted-labels": "a fault of the measurement itself would stay unseen",
    "blind-classifier": "members and non-members that differ already in their inputs would stay unseen",
    "queried-twice": "random transforms on the way to the model would stay unseen",
    "shadow-membership": "shadows whose membership gives the target's away would stay unseen",
}
MEANING = {
    "held-out-as-members": "rows that trained nothing look like members when they come through the members' "
    "path: what the attacks found may be the path, not membership",
    "permuted-labels": "the measurement finds membership where there is none",
    "blind-classifier": "members and non-members can be told apart without the model: they are not alike, "
    "and what the attacks found may be that difference",
    "queried-twice": "the same row gave different inputs or outputs: something on the way is random",
    "shadow-membership": "what trained the shadows tells the target's members without any output: the "
    "shadows' rows were not drawn independently of the target's, and what the attacks found may be that",
}


@dataclass(frozen=True)
class Twice:
    """The same rows loaded and queried twice: inputs and probabilities of both passes."""

    first_inputs: NDArray[np.generic]
    second_inputs: NDArray[np.generic]
    first: NDArray[np.float32]
    second: NDArray[np.float32]


def not_run(name: str, reason: str) -> NullTest:
    """A null test that could not run: the reason, and what that leaves unseen."""
    return NullTest(name, None, None, f"not run: {reason}; {UNSEEN[name]}", TITLES[name])


def held_out_as_members(null: Sequence[Confidences], nonmembers: Sequence[Confidences]) -> NullTest:
    """(a) Confidence and entropy of held-out rows that came through the members' path against the
    non-members', on every candidate. The smallest p-value counts as often as there are comparisons."""
    outcomes = []
    for ours, theirs in zip(null, nonmembers, strict=True):
        floor = ours.log_floor
        outcomes.append(
            rank_sum_test(
                confidence(ours.probabilities, ours.labels), confidence(theirs.probabilities, theirs.labels)
            )
        )
        outcomes.append(
            rank_sum_test(entropy(ours.probabilities, floor), entropy(theirs.probabilities, floor))
        )
    return _smallest("held-out-as-members", outcomes)


def permuted_labels(
    scores: dict[str, NDArray[np.float64]], members: NDArray[np.bool_], permutations: int, seed: int
) -> NullTest:
    """(b) Every attack's scores under permuted membership, through the same metrics."""
    return of_permutations(permute_labels(scores, members, permutations, seed))


def permute_labels(
    scores: dict[str, NDArray[np.float64]], members: NDArray[np.bool_], permutations: int, seed: int
) -> list[NullOutcome]:
    """What (b) finds for each attack: the part that takes time, for workers."""
    return [
        permuted_labels_test(values, members, permutations, seed, max_rows=4000) for values in scores.values()
    ]


def of_permutations(outcomes: Sequence[NullOutcome]) -> NullTest:
    """(b) of all outcomes together."""
    return _smallest("permuted-labels", outcomes)


def blind_classifier(members: NDArray[np.generic], nonmembers: NDArray[np.generic], seed: int) -> NullTest:
    """(c) A classifier on the inputs as the model received them."""
    try:
        return _smallest("blind-classifier", [blind_classifier_test(members, nonmembers, seed)])
    except DataError as error:
        return not_run("blind-classifier", str(error))


def queried_twice(passes: Sequence[Twice]) -> NullTest:
    """(d) The same rows, loaded and queried twice through their side's path."""
    outcomes = [
        same_outputs_test(entry.first, entry.second, entry.first_inputs, entry.second_inputs)
        for entry in passes
    ]
    return _smallest("queried-twice", outcomes)


def shadow_membership(shadows: NDArray[np.bool_], members: NDArray[np.bool_]) -> NullTest:
    """For shadows that were given: the number of shadows that trained on a row, and every shadow's own
    membership, of the target's members against its non-members.

    Args:
        shadows: bool [shadows, rows], what trained the shadows.
        members: bool [rows], what trained the target.
    """
    outcomes = []
    for what, known in [
        ("the number of shadows that trained on a row", shadows.sum(axis=0)),
        *((f"the rows of shadow {number}", trained) for number, trained in enumerate(shadows)),
    ]:
        found = rank_sum_test(known[members], known[~members])
        outcomes.append(found._replace(detail=f"AUC {found.statistic:.3f} from {what} alone"))
    return _smallest("shadow-membership", outcomes)


def tried(name: str, test: Callable[[], NullTest]) -> NullTest:
    """Run a test; one whose rows cannot be loaded is listed as not run."""
    try:
        return test()
    except DataError as error:
        return not_run(name, str(error))


def judge(tests: Sequence[NullTest]) -> tuple[NullTest, ...]:
    """Decide pass or fail at one family-wise level over the tests that ran, failed ones first."""
    ran = [test for test in tests if test.p_value is not None]
    rejected = holm([test.p_value for test in ran if test.p_value is not None], FAMILY_LEVEL).rejected
    judged = {
        test.name: replace(
            test, passed=not failed, detail=f"{MEANING[test.name]} ({test.detail})" if failed else test.detail
        )
        for test, failed in zip(ran, rejected, strict=True)
    }
    every = [judged.get(test.name, test) for test in tests]
    return tuple(sorted(every, key=lambda test: test.passed is not False))


def _smallest(name: str, outcomes: Sequence[NullOutcome]) -> NullTest:
    least = min(outcomes, key=lambda outcome: outcome.p_value)
    p_value = min(1.0, least.p_value * len(outcomes))
    return NullTest(name, None, round(float(p_value), 9), least.detail, TITLES[name])
