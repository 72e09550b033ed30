"""One network a class (Shokri et al., "Membership Inference Attacks Against Machine Learning Models", S&P
2017).

The paper learns each class's network from what up to 100 shadows answered to their own members and
non-members of the class. Ours: the network's size (64 hidden units) and its schedule are those of Salem et
al.'s code, a class's members and non-members count alike, and a class with too few pairs takes a network of
all classes.
"""

from __future__ import annotations

import numpy as np

from edgeprivacy.attacks.base import Attack, Calibration, Floats, Needs, Scores, Signals, attacks
from edgeprivacy.attacks.meta import Integers, balanced_pairs, fitted
from edgeprivacy.attacks.salem import small_network

LEAST_PAIRS = 40
"""Of one class, half of them members: below it the class takes the network of all classes together (our
choice: 20 pairs a side)."""
_MOST_PAIRS = 40_000
"""Of all classes together, so that a fit takes seconds."""


class Shokri(Attack):
    """s = network of class y at p: the probability of membership, learned from the shadows' rows of class y.

    p is the whole confidence vector, standardised; one hidden layer of 64 units a class. A class with fewer
    than 40 pairs, or with one side only, takes a network that learned from the pairs of all classes; rows
    of such classes are counted.
    """

    name = "shokri"
    paper = "Shokri et al., S&P 2017"
    threat_model = "confidences of one model, true label; shadows (or rows of known membership) to learn from"
    needs = Needs(calibration=True)
    version = "2"
    threshold = 0.5
    fit_once_per_half = True

    def score(
        self, signals: Signals, target: int, calibration: Calibration | None, rng: np.random.Generator
    ) -> Scores:
        """Probability of membership, [rows]."""
        assert calibration is not None
        scores, few = self._scores(signals, np.array([target]), calibration, rng)
        notes = (
            (f"classes with too few rows to learn from, which share a network: {len(few)}",) if few else ()
        )
        return Scores(scores[0], pooled_rows=int(np.isin(signals.labels, few).sum()), notes=notes)

    def score_many(
        self, signals: Signals, targets: Integers, calibration: Calibration, rng: np.random.Generator
    ) -> Floats:
        """One fit a class on the calibration pairs, then the scores [targets, rows] of all targets."""
        return self._scores(signals, targets, calibration, rng)[0]

    def _scores(
        self, signals: Signals, targets: Integers, calibration: Calibration, rng: np.random.Generator
    ) -> tuple[Floats, list[int]]:
        """Scores [targets, rows], and the classes that share a network."""
        pairs = balanced_pairs(calibration, _MOST_PAIRS, rng)
        labels = signals.labels[pairs.rows]
        scores = np.full((len(targets), len(signals.labels)), 0.5)
        few: list[int] = []
        for label in np.unique(signals.labels):
            own = Calibration(*(part[labels == label] for part in (pairs.models, pairs.rows, pairs.members)))
            sides = int(own.members.sum()), int((~own.members).sum())
            if 2 * min(sides) < LEAST_PAIRS:
                few.append(int(label))
                continue
            even = balanced_pairs(own, None, rng)
            _fill(scores, signals, targets, even, np.flatnonzero(signals.labels == label), rng)
        rows = np.flatnonzero(np.isin(signals.labels, few))
        if len(rows):
            _fill(scores, signals, targets, pairs, rows, rng)
        return scores, few


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
