"""How easily each training row is memorized, by sub-models that saw a fifth of the rows each.

How WeMem (Shang et al., NDSS 2025) scores memorability could not be read; this is the approximation that two
independent re-implementations use: one sub-model a fold.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.defenses.base import TrainingRows
from edgeprivacy.defenses.preparing import Preparation, SubModels

FOLDS = 5
EPOCHS = 30


def fold_memorability(
    true_class_probability: Callable[[int], NDArray[np.float64]], fold: NDArray[np.intp], folds: int
) -> NDArray[np.float64]:
    """Memorability of each row: p under the sub-model of its own fold, minus the mean under the others'.

    Args:
        true_class_probability: Fold number to p_y [rows] under the sub-model trained on that fold.
        fold: int [rows], the fold of each row.
        folds: Number of folds.

    Returns:
        float64 [rows], min-max scaled to 0..1 (all 0 if all equal).

    Source: WeMem's scores in the approximation of its public re-implementations (RADD fork): an inferred
    reconstruction, not the paper's own procedure.
    """
    p = np.stack([true_class_probability(k) for k in range(folds)])
    own = p[fold, np.arange(len(fold))]
    raw = own - (p.sum(axis=0) - own) / (folds - 1)
    spread = raw.max() - raw.min()
    return (raw - raw.min()) / spread if spread > 0 else np.zeros_like(raw)


def assign_folds(labels: NDArray[np.int64], folds: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """A random fold for each row, balanced within classes so that every sub-model sees every class."""
    fold = np.empty(len(labels), dtype=np.intp)
    offset = 0
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        fold[rows] = (np.arange(len(rows)) + offset) % folds
        offset += len(rows)
    return fold


def _score(rows: TrainingRows, models: SubModels) -> NDArray[np.float64]:
    fold = assign_folds(rows.labels, FOLDS, models.rng("folds"))

    def true_class_probability(k: int) -> NDArray[np.float64]:
        probabilities = models.answers(np.flatnonzero(fold == k), "memorability", k, EPOCHS)
        return np.asarray(probabilities[np.arange(len(fold)), rows.labels], dtype=np.float64)

    return fold_memorability(true_class_probability, fold, FOLDS)


MEMORABILITY = Preparation(
    "memorability",
    {"folds": FOLDS, "epochs": EPOCHS},
    _score,
    "memorability scores (sub-models on the release's own training rows)",
    cost=f"{FOLDS} sub-models of {EPOCHS} epochs: 1 to 2 trainings of the original",
)
"""float64 [rows] in 0..1."""
