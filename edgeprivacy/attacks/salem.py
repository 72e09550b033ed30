"""ML-Leaks: Salem et al., "ML-Leaks: Model and Data Independent Membership Inference Attacks", NDSS 2019.

The paper's three adversaries give up one assumption after another: one shadow of the same distribution, one
shadow of another, none at all.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeprivacy.attacks.base import Attack, Calibration, Floats, Needs, Scores, Signals, attacks
from edgeprivacy.attacks.compleak import Learned
from edgeprivacy.attacks.meta import Integers

_PAPER = "Salem et al., NDSS 2019"
_TOP = 3


def top_three(signals: Signals, models: Integers, rows: Integers) -> Floats:
    """The three largest probabilities of each pair, descending, [pairs, 3 or the number of classes]."""
    p = signals.probabilities[models, rows]
    return np.asarray(-np.sort(-p, axis=1)[:, :_TOP], dtype=np.float64)


def small_network(rng: np.random.Generator) -> Any:
    """64 hidden units, learning rate 0.01, L2 1e-6, at most 50 epochs, as the authors' code.

    Ours: features are standardised, batches hold 200 pairs instead of 10 (so that a fit takes a second), and
    a fit ends after five epochs without progress.
    """
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(
        StandardScaler(),
        MLPClassifier(
            (64,),
            learning_rate_init=0.01,
            alpha=1e-6,
            max_iter=50,
            n_iter_no_change=5,
            random_state=int(rng.integers(2**31)),
        ),
    )


class TopThree(Learned):
    """A network on the three largest probabilities of all calibration pairs."""

    name = "top3-nn"
    paper = f"{_PAPER}; Shokri et al., S&P 2017"
    threat_model = "three largest confidences of one model; calibration pairs to learn from"
    needs = Needs(calibration=True)
    learner = staticmethod(small_network)
    most_pairs = 20_000

    def features(self, signals: Signals, models: Integers, rows: Integers) -> Floats:
        """See `top_three`."""
        return top_three(signals, models, rows)


class Salem1(TopThree):
    """Adversary 1: a network on the three largest probabilities of one shadow's rows."""

    name = "salem1"
    paper = _PAPER
    threat_model = "three largest confidences of one model; one shadow of the same distribution"

    def score_many(
        self, signals: Signals, targets: Integers, calibration: Calibration, rng: np.random.Generator
    ) -> Floats:
        """One fit on one shadow's pairs, then the scores [targets, rows] of all targets."""
        one = calibration.models == calibration.models.min()
        alone = Calibration(calibration.models[one], calibration.rows[one], calibration.members[one])
        return super().score_many(signals, targets, alone, rng)


class Salem2(TopThree):
    """Adversary 2: as the first, but what it learns from is another distribution.

    The paper takes a shadow of another data set, whose classes the three largest probabilities make
    comparable. Here other classes stand for another data set (inferred): of the classes in their order every
    second one is left to a network of its own; each network is learned from one half of the classes of one
    shadow and scores the rows of the other half. The shadow itself trained on all classes, so this attacker
    is stronger than the paper's.
    """

    name = "salem2"
    version = "2"
    paper = f"after {_PAPER}"
    threat_model = "three largest confidences of one model; one shadow, of other classes than the row's"

    def missing(self, signals: Signals, calibration: Calibration | None) -> str | None:
        """As `Attack.missing`; a single class leaves nothing to learn from."""
        if reason := super().missing(signals, calibration):
            return reason
        return "needs rows of two classes or more" if len(np.unique(signals.labels)) < 2 else None

    def score_many(
        self, signals: Signals, targets: Integers, calibration: Calibration, rng: np.random.Generator
    ) -> Floats:
        """Two fits on one shadow's pairs, then the scores [targets, rows] of all targets."""
        scores = np.zeros((len(targets), len(signals.labels)))
        side = np.unique(signals.labels, return_inverse=True)[1].ravel() % 2
        for parity in (0, 1):
            known = (calibration.models == calibration.models.min()) & (side[calibration.rows] != parity)
            other = Calibration(
                calibration.models[known], calibration.rows[known], calibration.members[known]
            )
            scored = super().score_many(signals, targets, other, rng)
            scores[:, side == parity] = scored[:, side == parity]
        return scores


class Salem3(Attack):
    """Adversary 3: s = max p. No shadow, no label.

    The paper's threshold is a percentile of what the model answers to random inputs; here it is chosen as
    for every other score.
    """

    name = "salem3"
    paper = _PAPER
    threat_model = "the largest confidence of one model"

    def score(
        self, signals: Signals, target: int, calibration: Calibration | None, rng: np.random.Generator
    ) -> Scores:
        """Largest probability, [rows]."""
        return Scores(signals.probabilities[target].max(axis=1).astype(np.float64))


for _attack in (TopThree(), Salem1(), Salem2(), Salem3()):
    attacks.register(_attack.name)(_attack)
