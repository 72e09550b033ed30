"""What learned attacks share: which calibration pairs they learn from, in which folds, and their learners."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.attacks.base import Bools, Calibration, Floats
from edgeprivacy.errors import DataError
from edgeprivacy.metrics.thresholds import stratified_folds

Integers = NDArray[np.intp]
Learner = Callable[[np.random.Generator], Any]
"""Makes an unfitted scikit-learn classifier."""

MIN_LEAF = 30
FOLDS = 3


def forest(trees: int) -> Learner:
    """A random forest with leaves of 30 pairs or more, as CompLeak's and Chen et al.'s (CCS 2021) released
    code has it."""

    def make(rng: np.random.Generator) -> Any:
        from sklearn.ensemble import RandomForestClassifier

        return RandomForestClassifier(
            trees, min_samples_leaf=MIN_LEAF, random_state=int(rng.integers(2**31)), n_jobs=1
        )

    return make


def logistic(rng: np.random.Generator) -> Any:
    """Logistic regression on standardised features, L-BFGS with at most 400 steps, as the same code."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=400))


def balanced_pairs(calibration: Calibration, most: int | None, rng: np.random.Generator) -> Calibration:
    """As many member as non-member pairs, at most `most` together (all if None), in their order.

    Raises:
        DataError: One side is missing.
    """
    inside, outside = np.flatnonzero(calibration.members), np.flatnonzero(~calibration.members)
    size = min(len(inside), len(outside))
    if size == 0:
        raise DataError("a learned attack needs members and non-members among its calibration pairs")
    size = size if most is None else min(size, most // 2)
    chosen = np.sort(np.concatenate([rng.choice(side, size, replace=False) for side in (inside, outside)]))
    return Calibration(calibration.models[chosen], calibration.rows[chosen], calibration.members[chosen])


def fold_of_pairs(pairs: Calibration, rng: np.random.Generator) -> Integers:
    """Fold 0.. of each pair: whole models where there are enough, else single rows.

    What one model answered to one row says something of its other rows: a learner that saw them would be
    surer of this model than of the target.
    """
    models = np.unique(pairs.models)
    if len(models) >= FOLDS:
        number = rng.permutation(len(models)) % FOLDS
        return np.asarray(number[np.searchsorted(models, pairs.models)])
    return stratified_folds(pairs.members.astype(np.int64), FOLDS, rng)


def fitted(learner: Learner, features: Floats, members: Bools, rng: np.random.Generator) -> Any:
    """The learner's classifier, fitted. Epochs are bounded on purpose: reaching the bound is no news."""
    from sklearn.exceptions import ConvergenceWarning

    classifier = learner(rng)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return classifier.fit(features, members)


def out_of_fold(
    learner: Learner, features: Floats, members: Bools, fold: Integers, rng: np.random.Generator
) -> Floats:
    """Probability of membership of each pair, by a learner that was fitted without the pair's fold."""
    found = np.full(len(members), 0.5)
    for index in np.unique(fold):
        test = fold == index
        if len(np.unique(members[~test])) == 2:
            learned = fitted(learner, features[~test], members[~test], rng)
            found[test] = learned.predict_proba(features[test])[:, 1]
    return found
