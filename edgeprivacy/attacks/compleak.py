"""CompLeak (Li et al., USENIX Security 2026): one version, the original beside one version, several versions.

Features and learners are those of the paper's released code (its text could not be read); SR's sorted
features are those of Chen et al., CCS 2021. Left out is what inflates its numbers: every version is asked
with the same input, once; losses are those of the right model; the second stage learns from out-of-fold
probabilities; nothing is chosen on the target.

    compleak.nr...   one version: the posterior and the label (`.unlabelled`: the posterior alone)
    compleak.sr...   SR2: the original's sorted posterior, the version's and the label in the same order
                     (`.unlabelled`: SR1, without the label)
    compleak.mr...   a network on SR's probability and the loss of every version; `.nr` and `.pairs` are two
                     readings of "without the original" (ours: the code has none)

Random forests where a name says nothing, logistic regression with `.lr`. `.faithful` has the published sizes
(500 trees, all pairs), which take minutes.
"""

from __future__ import annotations

import numpy as np

from edgeprivacy.attacks.base import Attack, Calibration, Floats, Needs, Scores, Signals, Version, attacks
from edgeprivacy.attacks.meta import Integers, Learner, balanced_pairs, fitted, forest, logistic

PAPER = "Li et al., USENIX Security 2026"
# Of the published 500 trees: on Location-30 files 100 trees find 0.002 more AUC than 50, at twice the time.
TREES, PAIRS = 50, 10_000
PUBLISHED_TREES = 500


def posterior(version: Signals | Version, models: Integers, rows: Integers) -> Floats:
    """p, [pairs, classes]."""
    return np.asarray(version.probabilities[models, rows], dtype=np.float64)


def label_of(version: Signals | Version, rows: Integers) -> Floats:
    """One-hot label, [pairs, classes]."""
    encoded = np.zeros((len(rows), version.probabilities.shape[2]))
    encoded[np.arange(len(rows)), version.labels[rows]] = 1.0
    return encoded


def sorted_features(
    original: Signals | Version, version: Signals | Version, models: Integers, rows: Integers, labelled: bool
) -> Floats:
    """[p of the original, ascending; p of the version in the same order; the label in the same order].

    Equal probabilities keep the order of their classes.
    """
    before = posterior(original, models, rows)
    order = np.argsort(before, axis=1, kind="stable")
    parts = [before, posterior(version, models, rows)]
    if labelled:
        parts.append(label_of(version, rows))
    return np.concatenate([np.take_along_axis(part, order, axis=1) for part in parts], axis=1)


class Learned(Attack):
    """A classifier of members on features of single (model, row) pairs."""

    threshold = 0.5
    fit_once_per_half = True
    learner: Learner
    most_pairs: int | None = PAIRS

    def features(self, signals: Signals, models: Integers, rows: Integers) -> Floats:
        """[pairs, features]."""
        raise NotImplementedError

    def score(
        self, signals: Signals, target: int, calibration: Calibration | None, rng: np.random.Generator
    ) -> Scores:
        """Probability of membership, [rows]."""
        assert calibration is not None
        return Scores(self.score_many(signals, np.array([target]), calibration, rng)[0])

    def score_many(
        self, signals: Signals, targets: Integers, calibration: Calibration, rng: np.random.Generator
    ) -> Floats:
        """One fit on the calibration pairs, then the scores [targets, rows] of all targets."""
        pairs = balanced_pairs(calibration, self.most_pairs, rng)
        features = self.features(signals, pairs.models, pairs.rows)
        learned = fitted(self.learner, features, pairs.members, rng)
        rows = np.arange(len(signals.labels))
        return np.stack(
            [
                learned.predict_proba(self.features(signals, np.full_like(rows, target), rows))[:, 1]
                for target in targets
            ]
        )


class NotReferenced(Learned):
    """Random forest or logistic regression on p, or on p and the one-hot label."""

    paper = f"{PAPER}; Shokri et al., S&P 2017; Nasr et al., CCS 2018"
    threat_model = "confidences of one version, true label; calibration pairs to learn from"
    needs = Needs(calibration=True)

    def __init__(self, name: str, learner: Learner, labelled: bool, most_pairs: int | None = PAIRS) -> None:
        self.name, self.learner, self.labelled, self.most_pairs = name, learner, labelled, most_pairs

    def features(self, signals: Signals, models: Integers, rows: Integers) -> Floats:
        """p, and the label where the attack looks at it, [pairs, classes or twice as many]."""
        p = posterior(signals, models, rows)
        return np.concatenate([p, label_of(signals, rows)], axis=1) if self.labelled else p


class Referenced(Learned):
    """Random forest or logistic regression on p_o sorted, p_c in the same order, the label in the same order.

    p_o is the original's posterior, p_c the attacked version's: SR2; without the label it is SR1.
    """

    paper = f"{PAPER}; Chen et al., CCS 2021"
    threat_model = "confidences of the original and of one version, true label; calibration pairs"
    needs = Needs(calibration=True, versions=2, original=True)
    pairwise = True

    def __init__(self, name: str, learner: Learner, labelled: bool, most_pairs: int | None = PAIRS) -> None:
        self.name, self.learner, self.labelled, self.most_pairs = name, learner, labelled, most_pairs

    def features(self, signals: Signals, models: Integers, rows: Integers) -> Floats:
        """[pairs, 2 or 3 times classes]."""
        return sorted_features(signals.versions[0], signals, models, rows, self.labelled)


def register_all() -> None:
    """Every variant under its name."""
    small, published = forest(TREES), forest(PUBLISHED_TREES)
    for kind, family in ((NotReferenced, "compleak.nr"), (Referenced, "compleak.sr")):
        variants = (
            (family, small, True, PAIRS),
            (f"{family}.lr", logistic, True, PAIRS),
            (f"{family}.unlabelled", small, False, PAIRS),
            (f"{family}.unlabelled.lr", logistic, False, PAIRS),
            (f"{family}.faithful", published, True, None),
        )
        for name, learner, labelled, most in variants:
            attacks.register(name)(kind(name, learner, labelled, most))


register_all()
