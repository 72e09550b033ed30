"""A classifier that sees the inputs and no model: what it finds is a fault of the data, not a leak.

Das, Zhang & Tramèr, "Blind baselines beat membership inference attacks" (2024): where members and non-members
come through different loaders, transforms or sources, any attack can look strong.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.metrics.roc import Bools, Floats
from edgeprivacy.metrics.thresholds import stratified_folds

_COMPONENTS = 50


def input_features(x: NDArray[Any], seed: int = 0) -> NDArray[np.float32]:
    """What can be told from inputs without a model, float32 [rows, features].

    Up to 50 principal components of the standardised flat inputs (a function of all rows, blind to
    membership), and per row: mean, standard deviation, smallest, largest, share of zeros, share of whole
    numbers, number of distinct values, mean |difference| between neighbours along every axis, and for images
    mean, share of zeros and spread of the one-pixel border (crops and shifts pad it).

    Args:
        x: [rows, ...] numbers; [rows, height, width, ...] is taken for an image.
        seed: Seed of the randomised principal components.
    """
    from sklearn.decomposition import PCA

    rows = len(x)
    flat = np.ascontiguousarray(x, dtype=np.float32).reshape(rows, -1)
    flat = np.nan_to_num(flat)
    columns = [
        flat.mean(axis=1),
        flat.std(axis=1),
        flat.min(axis=1),
        flat.max(axis=1),
        (flat == 0).mean(axis=1),
        (flat == np.round(flat)).mean(axis=1),
        1.0 + (np.diff(np.sort(flat, axis=1), axis=1) > 0).sum(axis=1),
    ]
    shaped = flat.reshape(x.shape) if x.ndim > 1 else flat
    for axis in range(1, min(shaped.ndim, 4)):
        if shaped.shape[axis] > 1:
            steps = np.abs(np.diff(shaped, axis=axis)).reshape(rows, -1)
            columns.append(steps.mean(axis=1))
    if shaped.ndim >= 3 and min(shaped.shape[1:3]) >= 3:
        border = np.concatenate(
            [
                side.reshape(rows, -1)
                for side in (shaped[:, 0], shaped[:, -1], shaped[:, 1:-1, 0], shaped[:, 1:-1, -1])
            ],
            axis=1,
        )
        columns += [border.mean(axis=1), (border == 0).mean(axis=1), border.std(axis=1)]
    spread = flat.std(axis=0)
    kept = spread > 0
    components = min(_COMPONENTS, int(kept.sum()), rows - 1)
    parts = [np.stack(columns, axis=1)]
    if components > 0:
        standard = (flat[:, kept] - flat[:, kept].mean(axis=0)) / spread[kept]
        solver = "randomized" if components < 0.8 * min(standard.shape) else "full"
        parts.append(
            PCA(components, svd_solver=solver, random_state=seed, iterated_power=2).fit_transform(standard)
        )
    return np.concatenate(parts, axis=1).astype(np.float32)


def blind_scores(
    x: NDArray[Any], members: Bools, folds: int, rng: np.random.Generator, trees: int = 150
) -> tuple[Floats, NDArray[np.intp]]:
    """Cross-fitted scores and the fold of each row, both [rows]; scores compare only within a fold.

    The mean rank of two learners that miss different things: extremely randomised trees (thresholds,
    interactions) and logistic regression (small shifts of many features).
    """
    from scipy.stats import rankdata
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.linear_model import LogisticRegression

    seed = int(rng.integers(2**31))
    features = input_features(x, seed)
    spread = features.std(axis=0)
    features = (features - features.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    fold = stratified_folds(members.astype(np.int64), folds, rng)
    scores = np.empty(len(x))
    for index in range(folds):
        test = fold == index
        learners = (
            ExtraTreesClassifier(
                trees, min_samples_leaf=3, class_weight="balanced", random_state=seed + index, n_jobs=1
            ),
            LogisticRegression(C=0.1, class_weight="balanced", max_iter=300),
        )
        scores[test] = sum(
            rankdata(learner.fit(features[~test], members[~test]).predict_proba(features[test])[:, 1])
            for learner in learners
        )
    return scores, fold
