"""One network a class (Shokri et al., "Membership Inference Attacks Against Machine Learning Models", S&P
2017)."""

from __future__ import annotations

import numpy as np

from edgeprivacy.attacks.base import Attack, Calibration, Floats, Needs, Scores, Signals, attacks
from edgeprivacy.attacks.meta import Integers, balanced_pairs, fitted
from edgeprivacy.attacks.salem import small_network
from edgeprivacy.errors import DataError

LEAST_PAIRS = 40
"""Of one class: below it the class takes the network of all classes together."""
_MOST_PAIRS = 40_000


class Shokri(Attack):
    """The confidence vector into a network of the row's own class, learned from the shadows' rows of it.

    One hidden layer of 64 units. Classes with too few pairs share a network; their rows are counted.
    """

    name = "shokri"
    paper = "Shokri et al., S&P 2017"
    threat_model = "confidences of one model, true label; shadows (or rows of known membership) to learn from"
    needs = Needs(calibration=True)
    threshold = 0.5
    fit_once_per_half = True

    def score(
        self, signals: Signals, target: int, calibration: Calibration | None, rng: np.random.Generator
    ) -> Scores:
        """Probability of membership, [rows]."""
        assert calibration is not None
        scores, pooled = self._scores(signals, np.array([target]), calibration, rng)
        return Scores(scores[0], pooled_rows=pooled)

    def score_many(
        self, signals: Signals, targets: Integers, calibration: Calibration, rng: np.random.Generator
    ) -> Floats:
        """One fit a class on the calibration pairs, then the scores [targets, rows] of all targets."""
        return self._scores(signals, targets, calibration, rng)[0]

    def _scores(
        self, signals: Signals, targets: Integers, calibration: Calibration, rng: np.random.Generator
    ) -> tuple[Floats, int]:
        pairs = balanced_pairs(calibration, _MOST_PAIRS, rng)
        labels = signals.labels[pairs.rows]
        scores = np.full((len(targets), len(signals.labels)), 0.5)
        few = []
        for label in np.unique(signals.labels):
            own = Calibration(*(part[labels == label] for part in (pairs.models, pairs.rows, pairs.members)))
            try:
                even = balanced_pairs(own, None, rng) if len(own.rows) else own
            except DataError:
                even = own
            if len(even.rows) < LEAST_PAIRS or len(np.unique(even.members)) < 2:
                few.append(label)
                continue
            _fill(scores, signals, targets, even, np.flatnonzero(signals.labels == label), rng)
        rows = np.flatnonzero(np.isin(signals.labels, few))
        if len(rows):
            _fill(scores, signals, targets, pairs, rows, rng)
        return scores, len(rows)


def _fill(
    scores: Floats,
    signals: Signals,
    targets: Integers,
    pairs: Calibration,
    rows: Integers,
    rng: np.random.Generator,
) -> None:
    seen = signals.probabilities[pairs.models, pairs.rows].astype(np.float64)
    network = fitted(small_network, seen, pairs.members, rng)
    for number, target in enumerate(targets):
        p = signals.probabilities[target, rows].astype(np.float64)
        scores[number, rows] = network.predict_proba(p)[:, 1]


attacks.register(Shokri.name)(Shokri())
