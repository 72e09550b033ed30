import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score, roc_curve

from edgeprivacy.errors import DataError
from edgeprivacy.metrics.roc import Roc, auc

# Scores of a coarse grid, so that ties within and across the sides are common.
cases = (
    st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=40)
    .filter(lambda rows: 0 < sum(member for _, member in rows) < len(rows))
    .map(lambda rows: (np.array([s for s, _ in rows], dtype=float), np.array([m for _, m in rows])))
)


@settings(deadline=None, max_examples=60)
@given(cases)
def test_agrees_with_scikit_learn(case):
    scores, members = case
    roc = Roc.from_scores(scores, members)
    fpr, tpr, thresholds = roc_curve(members, scores, drop_intermediate=False)
    np.testing.assert_allclose(roc.fpr, fpr)
    np.testing.assert_allclose(roc.tpr, tpr)
    np.testing.assert_array_equal(roc.thresholds, thresholds)
    assert roc.auc == pytest.approx(roc_auc_score(members, scores))
    assert auc(scores, members) == pytest.approx(roc_auc_score(members, scores))
    assert roc.oracle_balanced_accuracy == pytest.approx(0.5 * (1 + (tpr - fpr).max()))


@settings(deadline=None, max_examples=60)
@given(cases, st.sampled_from([0.0, 0.001, 0.1, 0.25, 0.5, 0.99, 1.0]), st.randoms(use_true_random=False))
def test_step_definition_order_and_monotone_transforms(case, limit, random):
    scores, members = case
    roc = Roc.from_scores(scores, members)
    inside, outside = scores[members], scores[~members]
    allowed = [t for t in [*scores, np.inf] if np.mean(outside >= t) <= limit + 1e-12]
    assert roc.tpr_at_fpr(limit) == max(np.mean(inside >= t) for t in allowed)
    order = list(range(len(scores)))
    random.shuffle(order)
    moved = Roc.from_scores(np.exp(scores[order]) * 3 - 1, members[order])
    assert np.array_equal(moved.true_positives, roc.true_positives)
    assert np.array_equal(moved.false_positives, roc.false_positives)


@settings(deadline=None, max_examples=40)
@given(cases, st.floats(-5, 5))
def test_balanced_accuracy_at_a_threshold(case, threshold):
    scores, members = case
    expected = 0.5 * (np.mean(scores[members] >= threshold) + np.mean(scores[~members] < threshold))
    assert Roc.from_scores(scores, members).balanced_accuracy(threshold) == pytest.approx(expected)


def test_equal_scores_are_one_vertex():
    roc = Roc.from_scores(np.zeros(10), np.arange(10) < 4)
    assert roc.fpr.tolist() == roc.tpr.tolist() == [0.0, 1.0]
    assert roc.auc == 0.5 and roc.tpr_at_fpr(0.999) == 0.0 and roc.tpr_at_fpr(1.0) == 1.0


def test_decimal_limits_are_not_lost_to_rounding():
    scores = np.arange(200, dtype=float)
    roc = Roc.from_scores(scores, np.arange(200) >= 100)
    mixed = Roc.from_scores(-scores, np.arange(200) >= 100)  # every non-member above every member
    assert roc.tpr_at_fpr(0.29) == 1.0
    assert mixed.vertex_at_fpr(0.29) == 29  # 0.29 * 100 is 28.999999999999996 in binary
    assert mixed.vertex_at_fpr(0.2899) == 28


def test_gaussian_closed_form():
    rng = np.random.default_rng(0)
    n = 100_000
    roc = Roc.from_scores(np.append(rng.normal(1, 1, n), rng.normal(0, 1, n)), np.arange(2 * n) < n)
    assert roc.auc == pytest.approx(norm.cdf(1 / np.sqrt(2)), abs=0.005)
    for fpr in (0.1, 0.01):
        assert roc.tpr_at_fpr(fpr) == pytest.approx(norm.sf(norm.isf(fpr) - 1), abs=0.012)


@pytest.mark.parametrize(
    ("scores", "members"),
    [([1.0, np.nan], [True, False]), ([1.0, 2.0], [True, True]), ([1.0], [True, False]), ([], [])],
)
def test_bad_scores_are_refused(scores, members):
    with pytest.raises(DataError):
        Roc.from_scores(np.array(scores), np.array(members, dtype=bool))


@pytest.mark.parametrize("rows", [30, 20_000])
def test_thinned_points_lie_on_the_curve(rows):
    rng = np.random.default_rng(1)
    members = rng.random(rows) < 0.5
    roc = Roc.from_scores(rng.normal(members, 1.0), members)
    fpr, tpr = roc.thinned(100)
    assert len(fpr) <= 102 and fpr[0] == 0 and fpr[-1] == tpr[-1] == 1
    assert (np.diff(fpr) > 0).all() and (np.diff(tpr) >= 0).all()
    assert [roc.tpr_at_fpr(f) for f in fpr] == tpr.tolist()
    if rows > 1000:
        assert fpr[1] == pytest.approx(1 / roc.n_nonmembers)
