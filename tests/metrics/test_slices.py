"""Slices of rows, against sums by hand and simulation of the whole family's level."""

import numpy as np
import pytest

from edgeprivacy.errors import DataError
from edgeprivacy.metrics.slices import class_slices, confidence_slices, correctness_slices, measure_slices


def test_slices_hold_the_rows_they_name():
    labels = np.array([2, 0, 2, 5])
    assert {name: rows.tolist() for name, rows in class_slices(labels).items()} == {
        "class 0": [False, True, False, False],
        "class 2": [True, False, True, False],
        "class 5": [False, False, False, True],
    }
    right = correctness_slices(np.array([True, False]))
    assert (right["right"].tolist(), right["wrong"].tolist()) == ([True, False], [False, True])
    confidence = np.random.default_rng(0).permutation(np.arange(100.0))
    parts = confidence_slices(confidence, (10.0, 90.0))
    assert [(confidence[rows].min(), confidence[rows].max()) for rows in parts.values()] == [
        (0.0, 9.0),
        (10.0, 89.0),
        (90.0, 99.0),
    ]
    assert next(iter(parts)) == "confidence percentile 0-10"
    same = confidence_slices(np.ones(50))
    assert [int(rows.sum()) for rows in same.values()] == [0, 0, 0, 50]


def slices_and_scores(rng, n=400, shift=0.0, parts=5):
    labels, members = rng.integers(0, parts, n), rng.random(n) < 0.5
    return class_slices(labels), rng.normal(size=n) + shift * members * (labels == 1), members


def test_numbers_are_those_of_the_slice_alone():
    slices, scores, members = slices_and_scores(np.random.default_rng(13), 2000, 2.0)
    table = measure_slices(scores, members, slices, fprs=(0.05,))
    assert (table.n_slices, table.refused) == (5, ())
    assert table.interval_level == pytest.approx(0.99)
    for result in table.measured:
        inside, outside = (scores[slices[result.name] & side] for side in (members, ~members))
        assert (result.n_members, result.n_nonmembers) == (len(inside), len(outside))
        wins = sum(1.0 for a in inside for b in outside if a > b) / (len(inside) * len(outside))
        assert result.auc == pytest.approx(wins)
        assert result.auc_low < result.auc < result.auc_high
        barrier = sorted(outside)[-1 - int(0.05 * len(outside))]
        assert result.rates[0].value == pytest.approx(np.mean(inside > barrier))
        assert result.rates[0].low < result.rates[0].value < result.rates[0].high
        assert result.leaks == (result.name == "class 1")


def test_more_slices_widen_the_intervals():
    slices, scores, members = slices_and_scores(np.random.default_rng(4), 2000)
    alone = measure_slices(scores, members, {"class 1": slices["class 1"]}).measured[0]
    among = measure_slices(scores, members, slices).measured[1]
    assert (alone.name, among.auc) == ("class 1", alone.auc)
    assert among.auc_high - among.auc_low > 1.2 * (alone.auc_high - alone.auc_low)


@pytest.mark.parametrize("correction", ["holm", "bonferroni"])
def test_without_leakage_no_slice_leaks_in_most_audits(correction):
    rng, alarms, missed, uncorrected = np.random.default_rng(7), 0, 0, 0
    for index in range(200):
        slices, scores, members = slices_and_scores(rng)
        table = measure_slices(
            scores, members, slices, fprs=(), correction=correction, least_rows=20, resamples=10, seed=index
        )
        alarms += any(result.leaks for result in table.measured)
        missed += any(not result.auc_low <= 0.5 <= result.auc_high for result in table.measured)
        uncorrected += any(result.p_value <= 0.05 for result in table.measured)
    assert alarms <= 18  # 19 or more: 0.5 % at exactly 5 %
    assert missed <= 22  # DeLong's intervals are a little short on 40 rows a side
    assert uncorrected > 30  # what the correction is for


def test_adjusted_values_by_hand():
    slices, scores, members = slices_and_scores(np.random.default_rng(5), 600, 1.0, parts=3)
    holm = measure_slices(scores, members, slices, fprs=())
    plain = measure_slices(scores, members, slices, fprs=(), correction="bonferroni")
    order = sorted(range(3), key=lambda i: holm.measured[i].p_value)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (3 - rank) * holm.measured[index].p_value))
        assert holm.measured[index].adjusted == pytest.approx(highest)
    for result in plain.measured:
        assert result.adjusted == pytest.approx(min(1.0, 3 * result.p_value))


def test_too_few_rows_are_refused_with_the_reason():
    rng = np.random.default_rng(1)
    members = np.arange(200) < 100
    slices = {"all": np.ones(200, bool), "few": np.arange(200) < 110, "none": np.zeros(200, bool)}
    table = measure_slices(rng.normal(size=200), members, slices, fprs=(0.001, 0.05, 0.2))
    assert [result.name for result in table.measured] == ["all"]
    assert table.interval_level == pytest.approx(0.95)
    assert [(r.name, r.n_members, r.n_nonmembers) for r in table.refused] == [
        ("few", 100, 10),
        ("none", 0, 0),
    ]
    assert table.refused[0].reason == "10 non-members, and 30 are needed"
    assert table.refused[1].reason == "0 members and 0 non-members, and 30 are needed"
    assert [rate.support for rate in table.measured[0].rates] == ["none", "low", "ok"]
    assert table.measured[0].rates[0].value is None


def test_equal_scores_leak_nothing():
    table = measure_slices(np.zeros(100), np.arange(100) < 50, {"all": np.ones(100, bool)})
    assert (table.measured[0].p_value, table.measured[0].auc, table.measured[0].leaks) == (1.0, 0.5, False)


def test_what_does_not_fit_is_refused():
    scores, members = np.arange(100.0), np.arange(100) % 2 == 0
    with pytest.raises(DataError, match="no slices"):
        measure_slices(scores, members, {})
    with pytest.raises(DataError, match="'odd' must be"):
        measure_slices(scores, members, {"odd": np.ones(99, bool)})
    with pytest.raises(DataError, match="option"):
        measure_slices(scores, members, {"all": np.ones(100, bool)}, least_rows=1)
    with pytest.raises(DataError, match="rise"):
        confidence_slices(scores, (50.0, 50.0))
    with pytest.raises(DataError, match="finite"):
        confidence_slices(np.array([np.nan, 1.0]))
