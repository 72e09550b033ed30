"""The null tests as an audit words and judges them (their mathematics: tests/metrics)."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprivacy import nulls
from edgeprivacy.confidences import Confidences
from edgeprivacy.errors import DataError
from edgeprivacy.results import NullTest

NAMES = ("held-out-as-members", "permuted-labels", "blind-classifier", "queried-twice")


def found(*p_values: float | None) -> list[NullTest]:
    return [NullTest(name, None, p, "detail", name) for name, p in zip(NAMES, p_values, strict=False)]


def confidences(top: np.ndarray, seed: int = 0) -> Confidences:
    """Two classes; `top` is p of the true class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, len(top))
    p = np.empty((len(top), 2), np.float32)
    p[np.arange(len(top)), labels], p[np.arange(len(top)), 1 - labels] = top, 1 - top
    return Confidences(p, np.arange(len(top)).astype(str), labels)


def test_failed_tests_come_first_and_say_what_that_means() -> None:
    judged = nulls.judge(found(0.5, 0.9, 1e-6, 1.0))
    assert [test.name for test in judged] == [NAMES[2], NAMES[0], NAMES[1], NAMES[3]]
    assert [test.passed for test in judged] == [False, True, True, True]
    assert "told apart without the model" in judged[0].detail and judged[0].detail.endswith("(detail)")
    assert [test.detail for test in judged[1:]] == ["detail"] * 3


@pytest.mark.parametrize(
    ("p_values", "failed"),
    [
        # Holm at 1 %: the smallest against .01/4, the next against .01/3, ... until the first that stands
        ((0.0025, 0.0033, 0.005, 0.01), 4),
        ((0.0026, 0.0033, 0.005, 0.01), 0),
        ((0.0025, 0.0034, 0.004, 0.009), 1),
        ((0.0025, 0.0033, 0.0051, 0.0052), 2),
        ((0.02, 0.02, 0.02, 0.02), 0),
        ((0.0, 1.0, 1.0, 1.0), 1),
    ],
)
def test_one_level_for_the_family(p_values, failed) -> None:
    assert sum(test.passed is False for test in nulls.judge(found(*p_values))) == failed
    assert sum(test.passed is False for test in nulls.judge(found(*p_values[::-1]))) == failed


def test_tests_that_did_not_run_are_listed_neither_passed_nor_counted() -> None:
    absent = nulls.not_run("blind-classifier", "only outputs are there")
    judged = nulls.judge([*found(0.004, 0.9), absent])
    # .004 stands against .01/3 but falls against .01/2: only two tests ran
    assert [(test.name, test.passed) for test in judged] == [
        ("held-out-as-members", False),
        ("permuted-labels", True),
        ("blind-classifier", None),
    ]
    assert judged[2].p_value is None
    assert nulls.judge([absent])[0].passed is None and nulls.judge([]) == ()


@pytest.mark.parametrize("name", NAMES)
def test_what_did_not_run_says_why_and_what_stays_unseen(name: str) -> None:
    test = nulls.not_run(name, "the reason")
    assert test.detail.startswith("not run: the reason; ") and test.detail.endswith("unseen")
    assert test.title and (test.passed, test.p_value) == (None, None)


def test_rows_that_cannot_be_loaded_leave_the_test_not_run() -> None:
    def fail() -> NullTest:
        raise DataError("the file is gone")

    assert nulls.tried("queried-twice", fail).detail.startswith("not run: the file is gone")
    passed = found(0.5)[0]
    assert nulls.tried("held-out-as-members", lambda: passed) is passed


def test_held_out_rows_that_score_like_non_members_pass_and_others_fail() -> None:
    rng = np.random.default_rng(0)
    alike = nulls.held_out_as_members([confidences(rng.random(300))], [confidences(rng.random(400), 1)])
    assert alike.p_value is not None and alike.p_value > 0.01
    odd = nulls.held_out_as_members(
        [confidences(rng.random(300)), confidences(rng.random(300) ** 0.3)],
        [confidences(rng.random(400), 1), confidences(rng.random(400), 1)],
    )
    assert odd.p_value is not None and odd.p_value < 1e-6
    assert "300 held-out rows against 400" in odd.detail
    assert nulls.judge([odd])[0].passed is False


def test_two_signals_and_every_candidate_count_against_the_p_value() -> None:
    from scipy.stats import mannwhitneyu

    rng = np.random.default_rng(3)
    ours, theirs = rng.random(200) ** 0.9, rng.random(200)
    null, real = confidences(ours), confidences(theirs, 1)
    one = nulls.held_out_as_members([null], [real]).p_value
    three = nulls.held_out_as_members([null] * 3, [real] * 3).p_value
    assert one is not None and three == pytest.approx(min(1, 3 * one), abs=1e-8)
    by_confidence = mannwhitneyu(ours.astype(np.float32), theirs.astype(np.float32)).pvalue
    entropies = [-(p * np.log(p) + (1 - p) * np.log(1 - p)) for p in (ours, theirs)]
    by_entropy = mannwhitneyu(*entropies).pvalue
    assert one == pytest.approx(min(1, 2 * min(by_confidence, by_entropy)), rel=1e-3)


def test_permuted_labels_take_the_worst_attack_times_their_number() -> None:
    rng = np.random.default_rng(0)
    scores, members = rng.normal(size=400), rng.random(400) < 0.5
    single = nulls.permuted_labels({"a": scores}, members, 200, 0).p_value
    both = nulls.permuted_labels({"a": scores, "b": scores}, members, 200, 0).p_value
    assert single is not None and single > 0.001
    assert both == pytest.approx(min(1, 2 * single), abs=1e-8)
    leaky = nulls.permuted_labels({"a": scores + 9 * members}, members, 200, 0).p_value
    assert leaky is not None and leaky > 0.001  # a real leak is no fault of the measurement


def test_a_blind_classifier_sees_confounded_inputs_and_only_those() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 8))
    clean = nulls.blind_classifier(x[:300], x[300:], 0)
    assert nulls.judge([clean])[0].passed is True
    dirty = nulls.blind_classifier(x[:300] + 1.0, x[300:], 0)
    assert nulls.judge([dirty])[0].passed is False
    few = nulls.blind_classifier(x[:2], x[300:], 0)
    assert few.passed is None and "not run" in few.detail and "4 or more rows" in few.detail


def test_one_bit_in_one_of_two_passes_fails() -> None:
    x, p = np.ones((5, 3)), np.full((5, 2), 0.5, np.float32)
    same = nulls.Twice(x, x.copy(), p, p.copy())
    assert nulls.queried_twice([same, same]).p_value == 1
    other = p.copy()
    other[3, 1] = np.nextafter(other[3, 1], 1, dtype=np.float32)
    for changed in (nulls.Twice(x, x, p, other), nulls.Twice(x, x + 1e-9, p, p)):
        test = nulls.queried_twice([same, changed])
        assert test.p_value == 0 and "rows differ" in test.detail
        assert nulls.judge([test])[0].passed is False


@settings(deadline=None, max_examples=40)
@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=0, max_size=4))
def test_judging_keeps_every_test_and_is_json(p_values) -> None:
    judged = nulls.judge(found(*p_values))
    assert sorted(test.name for test in judged) == sorted(NAMES[: len(p_values)])
    ran = [p for p in p_values if p is not None]
    failed = [test.p_value for test in judged if test.passed is False]
    if failed:
        assert min(ran) <= nulls.FAMILY_LEVEL / len(ran)
        assert max(failed) <= nulls.FAMILY_LEVEL
    order = [test.passed is False for test in judged]
    assert order == sorted(order, reverse=True)
    json.dumps([asdict(test) for test in judged], allow_nan=False)
