"""CompLeak's attack on several versions at once; see `compleak`."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import numpy as np

from edgeprivacy.attacks.base import Calibration, Floats, Needs, Signals, Version, attacks
from edgeprivacy.attacks.compleak import (
    PAPER,
    PUBLISHED_TREES,
    TREES,
    Learned,
    label_of,
    posterior,
    sorted_features,
)
from edgeprivacy.attacks.meta import (
    Integers,
    Learner,
    balanced_pairs,
    fitted,
    fold_of_pairs,
    forest,
    out_of_fold,
)

# Four forests a version and fit: with ten versions as many pairs as `compleak.sr` has would take long.
FEWER_PAIRS = 5_000

Reference = Literal["original", "none", "least compressed"]


class ManyVersions(Learned):
    """A network on [first-stage probability, loss] of every compressed version.

    The first stage is `compleak.sr`'s forest against the original, `compleak.nr`'s, or `compleak.sr`'s with
    the first compressed version in the original's place. Its probabilities are out-of-fold on the pairs that
    the network learns from. The network has two hidden layers (128, 64) and stops by held-out pairs of the
    shadows; the released code's two dropout branches are not copied.
    """

    paper = PAPER
    threat_model = "confidences of several versions, true label; calibration pairs to learn from"

    def __init__(self, name: str, reference: Reference, trees: int, most_pairs: int | None) -> None:
        self.name, self.reference, self.most_pairs = name, reference, most_pairs
        self.learner: Learner = forest(trees)
        with_original = reference == "original"
        self.needs = Needs(calibration=True, versions=3 if with_original else 2, original=with_original)

    def missing(self, signals: Signals, calibration: Calibration | None) -> str | None:
        """Two compressed versions, whatever else there is."""
        compressed = len(self._compressed(signals))
        if compressed < 2:
            return f"needs 2 compressed versions of the model together, there is {compressed} here"
        return super().missing(signals, calibration)

    def score_many(
        self, signals: Signals, targets: Integers, calibration: Calibration, rng: np.random.Generator
    ) -> Floats:
        """Both stages fitted on the calibration pairs, then the scores [targets, rows] of all targets."""
        pairs = balanced_pairs(calibration, self.most_pairs, rng)
        fold = fold_of_pairs(pairs, rng)
        first, learned = [], []
        for number in range(len(self._judged(signals))):
            features = self._first_stage(signals, number, pairs.models, pairs.rows)
            first.append(out_of_fold(self.learner, features, pairs.members, fold, rng))
            learned.append(fitted(self.learner, features, pairs.members, rng))
        seen = np.column_stack([*first, *self._losses(signals, pairs.models, pairs.rows)])
        network = fitted(partial(_network, len(pairs.rows)), seen, pairs.members, rng)
        rows, found = np.arange(len(signals.labels)), []
        for target in targets:
            models = np.full_like(rows, target)
            columns = [
                forest.predict_proba(self._first_stage(signals, number, models, rows))[:, 1]
                for number, forest in enumerate(learned)
            ]
            columns += self._losses(signals, models, rows)
            found.append(network.predict_proba(np.column_stack(columns))[:, 1])
        return np.asarray(found, dtype=np.float64)

    def _compressed(self, signals: Signals) -> tuple[Version | Signals, ...]:
        return (*signals.versions[int(signals.has_original) :], signals)

    def _judged(self, signals: Signals) -> tuple[Version | Signals, ...]:
        """The versions that the first stage gives a probability for."""
        every = self._compressed(signals)
        return every[1:] if self.reference == "least compressed" else every

    def _first_stage(self, signals: Signals, number: int, models: Integers, rows: Integers) -> Floats:
        version = self._judged(signals)[number]
        if self.reference == "none":
            return np.concatenate([posterior(version, models, rows), label_of(version, rows)], axis=1)
        against = signals.versions[0] if self.reference == "original" else self._compressed(signals)[0]
        return sorted_features(against, version, models, rows, labelled=True)

    def _losses(self, signals: Signals, models: Integers, rows: Integers) -> list[Floats]:
        return [version.loss[models, rows] for version in self._compressed(signals)]


def _network(pairs: int, rng: np.random.Generator) -> Any:
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(
        StandardScaler(),
        MLPClassifier(
            (128, 64),
            alpha=5e-4,
            batch_size=min(128, pairs),
            max_iter=100,
            early_stopping=pairs >= 200,
            validation_fraction=0.2,
            n_iter_no_change=5,
            random_state=int(rng.integers(2**31)),
        ),
    )


def register_all() -> None:
    """Every variant under its name."""
    variants: tuple[tuple[str, Reference, int, int | None], ...] = (
        ("compleak.mr", "original", TREES, FEWER_PAIRS),
        ("compleak.mr.nr", "none", TREES, FEWER_PAIRS),
        ("compleak.mr.pairs", "least compressed", TREES, FEWER_PAIRS),
        ("compleak.mr.faithful", "original", PUBLISHED_TREES, None),
    )
    for name, reference, trees, most in variants:
        attacks.register(name)(ManyVersions(name, reference, trees, most))


register_all()
