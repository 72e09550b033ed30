"""Memorability scores against a loop over rows, and the folds behind them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprivacy.defenses.memorability import assign_folds, fold_memorability


def naive(p: np.ndarray, fold: np.ndarray) -> list[float]:
    """p under the row's own fold's model, minus the mean of the others; min-max over the rows."""
    raw = []
    for row, own in enumerate(fold):
        others = [p[k, row] for k in range(len(p)) if k != own]
        raw.append(p[own, row] - sum(others) / len(others))
    low, high = min(raw), max(raw)
    return [(value - low) / (high - low) for value in raw]


@settings(deadline=None, max_examples=40)
@given(rows=st.integers(2, 40), folds=st.integers(2, 6), seed=st.integers(0, 99))
def test_scores_are_those_of_the_loop(rows: int, folds: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    p, fold = rng.random((folds, rows)), rng.integers(0, folds, rows)
    scores = fold_memorability(lambda k: p[k], fold, folds)
    np.testing.assert_allclose(scores, naive(p, fold), atol=1e-12)
    assert scores.min() == 0 and scores.max() == 1


def test_a_row_that_only_its_own_fold_knows_is_the_most_memorable() -> None:
    p = np.full((5, 20), 0.5)
    fold = np.arange(20) % 5
    p[fold[7], 7] = 1.0
    scores = fold_memorability(lambda k: p[k], fold, 5)
    assert scores.argmax() == 7 and scores[7] == 1 and np.sum(scores == 0) == 19


def test_rows_that_are_all_alike_score_zero() -> None:
    assert fold_memorability(lambda k: np.full(6, 0.3), np.arange(6) % 2, 2).tolist() == [0.0] * 6


@settings(deadline=None, max_examples=40)
@given(counts=st.lists(st.integers(5, 30), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_folds_are_balanced_in_every_class(counts: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int64)
    fold = assign_folds(labels, 5, np.random.default_rng(seed))
    for label in range(len(counts)):
        sizes = np.bincount(fold[labels == label], minlength=5)
        assert sizes.max() - sizes.min() <= 1 and sizes.min() >= 1
    whole = np.bincount(fold, minlength=5)
    assert whole.max() - whole.min() <= 1
    assert np.array_equal(fold, assign_folds(labels, 5, np.random.default_rng(seed)))


def test_folds_are_drawn_not_cut_in_order() -> None:
    labels = np.zeros(100, dtype=np.int64)
    one, other = (assign_folds(labels, 5, np.random.default_rng(seed)) for seed in (0, 1))
    assert not np.array_equal(one, other)
    assert len(set(one[:20].tolist())) == 5


def test_a_class_smaller_than_the_folds_is_spread() -> None:
    fold = assign_folds(np.array([0, 0, 0, 1, 1, 1]), 5, np.random.default_rng(0))
    assert len(set(fold[:3].tolist())) == 3 and len(set(fold[3:].tolist())) == 3


@pytest.mark.parametrize("folds", [2, 5])
def test_each_sub_model_is_asked_once(folds: int) -> None:
    asked = []

    def probability(k: int) -> np.ndarray:
        asked.append(k)
        return np.random.default_rng(k).random(10)

    fold_memorability(probability, np.arange(10) % folds, folds)
    assert asked == list(range(folds))
