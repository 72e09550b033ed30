"""Quantile regression (Bertran et al., "Scalable Membership Inference Attacks via Quantile Regression",
NeurIPS 2023): what score a non-member of this kind would have, learned from non-members alone.

The paper regresses on the input itself with a large image network. Here the regressors are what every audit
has: the label and, where there are shadows, the mean and spread of the shadows' scores on the row. That is
our choice; without shadows the label alone is left, and the attack becomes a class-wise one.
"""

from __future__ import annotations

import numpy as np

from edgeprivacy.attacks.base import (
    Attack,
    Calibration,
    Floats,
    Needs,
    Population,
    Scores,
    Signals,
    attacks,
)

_LEAST_SPREAD = 0.05


class Quantile(Attack):
    """s = (h - μ(x)) / σ(x), h = log p_y - max over other classes of log p.

    μ and log σ are ridge regressions on the population's rows, which trained nothing: the paper's Gaussian
    head, whose quantiles are all monotone in s.
    """

    name = "quantile"
    rests_on_truth = True
    paper = "after Bertran et al., NeurIPS 2023"
    threat_model = "confidences, true label; population rows that did not train it; shadows help"
    needs = Needs(population=True)

    def score(
        self, signals: Signals, target: int, calibration: Calibration | None, rng: np.random.Generator
    ) -> Scores:
        """Standardised hinge score, [rows]."""
        from sklearn.linear_model import RidgeCV

        population = signals.population
        assert population is not None
        shadows = signals.shadows(target)
        classes = signals.probabilities.shape[2]
        known = _regressors(population, population.labels, shadows, classes)
        asked = _regressors(signals, signals.labels, shadows, classes, ~signals.members)
        h_known = hinge(population.probabilities[target], population.labels, signals.log_floor)
        h = hinge(signals.probabilities[target], signals.labels, signals.log_floor)
        penalties = np.logspace(-2, 3, 6)
        centre = RidgeCV(penalties).fit(known, h_known)
        apart = np.abs(h_known - centre.predict(known))
        least = max(_LEAST_SPREAD * float(apart.mean()), 1e-9)
        spread = RidgeCV(penalties).fit(known, np.log(np.maximum(apart, least)))
        sigma = np.exp(np.clip(spread.predict(asked), np.log(least), np.log(apart.max() + least)))
        return Scores(
            (h - centre.predict(asked)) / sigma, notes=(f"learned from {len(h_known)} population rows",)
        )


def hinge(probabilities: np.ndarray, labels: np.ndarray, log_floor: float) -> Floats:
    """log p_y - max_{k≠y} log p_k, [rows]."""
    logs = np.log(np.maximum(probabilities.astype(np.float64), log_floor))
    rows = np.arange(len(labels))
    own = logs[rows, labels]
    logs[rows, labels] = -np.inf
    return np.asarray(own - logs.max(axis=1))


def _regressors(
    of: Signals | Population,
    labels: np.ndarray,
    shadows: np.ndarray,
    classes: int,
    outside: np.ndarray | None = None,
) -> Floats:
    """One-hot label; mean and spread of the hinge score over shadows that did not train on the row."""
    encoded: Floats = np.eye(classes)[labels]
    if not len(shadows):
        return encoded
    scores = np.stack([hinge(of.probabilities[model], labels, of.log_floor) for model in shadows])
    mask = np.ones(scores.shape) if outside is None else outside[shadows].astype(np.float64)
    count = np.maximum(mask.sum(axis=0), 1.0)
    mean = np.where(mask.sum(axis=0) > 0, (scores * mask).sum(axis=0) / count, scores.mean(axis=0))
    spread = np.sqrt((((scores - mean) * mask) ** 2).sum(axis=0) / count)
    return np.column_stack([encoded, mean, mean**2 / (1 + np.abs(mean)), spread])


attacks.register(Quantile.name)(Quantile())
