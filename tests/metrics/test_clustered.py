"""Pooled metrics: against scikit-learn on repeated rows, and against what a known model gives."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score, roc_curve

from edgeprivacy.errors import DataError
from edgeprivacy.metrics.clustered import _Curve, pooled_metrics

LIMITS = (0.3, 0.1, 0.01)


def drawn(targets: int, rows: int, seed: int, shared: float = 1.0, shift: float = 1.0, steps: int = 0):
    """Scores with a part that all targets share on a row, members shifted."""
    rng = np.random.default_rng(seed)
    members = rng.random((targets, rows)) < 0.5
    scores = shared * rng.normal(size=rows) + rng.normal(size=(targets, rows)) + shift * members
    return (np.round(scores * steps) / steps if steps else scores), members


@pytest.mark.parametrize("steps", [0, 2])
def test_a_resample_is_scikit_learn_on_rows_repeated_as_drawn(steps: int) -> None:
    scores, members = drawn(5, 40, 1, steps=steps)
    rng = np.random.default_rng(0)
    for _ in range(30):
        weights = rng.multinomial(40, np.full(40, 1 / 40))
        many, truth = (np.repeat(array, weights, axis=1).ravel() for array in (scores, members))
        fpr, tpr, _ = roc_curve(truth, many, drop_intermediate=False)
        expected = [roc_auc_score(truth, many), *(tpr[fpr <= limit + 1e-12].max() for limit in LIMITS)]
        np.testing.assert_allclose(_Curve(scores, members).metrics(weights, LIMITS), expected, atol=1e-12)


def test_the_values_are_those_of_all_pairs() -> None:
    scores, members = drawn(7, 90, 2)
    found = pooled_metrics(scores, members, scores > 0.5, LIMITS, 200)
    assert found.roc.auc == pytest.approx(roc_auc_score(members.ravel(), scores.ravel()))
    hits = ((scores > 0.5) & members).sum() / members.sum()
    rejections = ((scores <= 0.5) & ~members).sum() / (~members).sum()
    assert found.balanced_accuracy == pytest.approx((hits + rejections) / 2)
    for low, value, high in [
        (found.auc[0], found.roc.auc, found.auc[1]),
        (found.balanced_accuracy_ci[0], found.balanced_accuracy, found.balanced_accuracy_ci[1]),
        *((low, found.roc.tpr_at_fpr(fpr), high) for fpr, (low, high) in zip(LIMITS, found.tpr, strict=True)),
    ]:
        assert 0 <= low < value < high <= 1


def test_intervals_cover_where_pairs_taken_for_independent_would_not() -> None:
    """Scores that share a row's part: the true AUC is Φ(shift / sqrt(2 (1 + shared²)))."""
    shared, shift, covered, naive = 3.0, 1.0, 0, 0
    truth = norm.cdf(shift / np.sqrt(2 * (1 + shared**2)))
    for seed in range(120):
        scores, members = drawn(9, 60, 100 + seed, shared, shift)
        # Membership goes with the row, as in the worst case: all models hold the same rows.
        same = np.broadcast_to(members[0], members.shape)
        scores = scores - shift * members + shift * same
        found = pooled_metrics(scores, same, scores > 0, LIMITS, 200, seed)
        covered += found.auc[0] <= truth <= found.auc[1]
        alone = pooled_metrics(scores.reshape(1, -1), same.reshape(1, -1), scores.reshape(1, -1) > 0, (), 200)
        naive += alone.auc[0] <= truth <= alone.auc[1]
    assert covered >= 106 and naive < 75  # 114 expected of 120


def test_without_any_variation_a_share_keeps_the_width_of_its_rows() -> None:
    members = np.tile(np.arange(50) < 25, (8, 1))
    apart = np.where(members, 1.0, -1.0)
    found = pooled_metrics(apart, members, members, LIMITS, 100)
    assert found.auc[1] == 1 and found.auc[0] == pytest.approx(0.025 ** (1 / 50))
    assert found.tpr[2][0] == pytest.approx(0.025 ** (1 / 50)) and found.balanced_accuracy_ci[0] < 0.95
    none = pooled_metrics(-apart, members, ~members, LIMITS, 100)
    assert none.tpr[2] == (0.0, pytest.approx(1 - 0.025 ** (1 / 50)))


def test_the_seed_decides_and_shapes_must_fit() -> None:
    scores, members = drawn(3, 40, 3)
    first, again, other = (
        pooled_metrics(scores, members, members, LIMITS, 100, seed).auc for seed in (0, 0, 1)
    )
    assert first == again != other
    with pytest.raises(DataError, match="alike"):
        pooled_metrics(scores, members[:2], members, LIMITS)
    with pytest.raises(DataError, match="members and non-members"):
        pooled_metrics(scores, np.ones_like(members), members, LIMITS)
