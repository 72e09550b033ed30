import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprivacy.metrics.thresholds import (
    balanced_accuracy,
    best_threshold,
    class_thresholds,
    cross_fit_decisions,
    stratified_folds,
)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=40).filter(
        lambda rows: 0 < sum(member for _, member in rows) < len(rows)
    )
)
def test_best_threshold_by_exhaustive_search(rows):
    scores, members = np.array([s for s, _ in rows], dtype=float), np.array([m for _, m in rows])
    gains = {t: np.mean(scores[members] >= t) - np.mean(scores[~members] >= t) for t in scores}
    highest = max(gains.values())
    assert best_threshold(scores, members) == max(t for t, g in gains.items() if g > highest - 1e-12)


def test_class_thresholds_fall_back_where_a_side_is_missing():
    scores = np.array([1.0, 2.0, 3.0, 4.0, 9.0])
    labels = np.array([0, 0, 1, 1, 3])
    members = np.array([False, True, False, True, True])
    thresholds, fallback = class_thresholds(scores, labels, members, 4)
    assert fallback.tolist() == [False, False, True, True]
    assert thresholds[:2].tolist() == [2.0, 4.0]
    assert (thresholds[2:] == best_threshold(scores, members)).all()


def test_folds_are_even_in_every_stratum():
    strata = np.repeat([0, 1, 2], [11, 200, 4])
    fold = stratified_folds(strata, 3, np.random.default_rng(0))
    for stratum in range(3):
        counts = np.bincount(fold[strata == stratum], minlength=3)
        assert np.ptp(counts) <= 1


def test_cross_fitted_threshold_finds_nothing_in_noise_and_members_in_a_signal():
    rng = np.random.default_rng(0)
    members = rng.random(10_000) < 0.3
    noise = [
        balanced_accuracy(cross_fit_decisions(rng.normal(size=200), part, rng=rng), part)
        for part in np.split(members, 50)
    ]
    assert np.mean(noise) == pytest.approx(0.5, abs=4 * 0.036 / np.sqrt(50))
    found = cross_fit_decisions(rng.normal(2.0 * members, 1.0), members, rng=rng)
    assert balanced_accuracy(found, members) == pytest.approx(0.841, abs=0.02)  # Φ(1)
