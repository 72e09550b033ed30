"""A small network that learns what confidences of members look like."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.attacks.base import Attack, Bools, Calibration, Floats, Needs, Scores, Signals, attacks
from edgeprivacy.errors import DataError

_PAIRS = 20_000
_EPOCHS = 30
_BATCH = 512
_LEARNING_RATE = 1e-2


class Neural(Attack):
    """One hidden layer of 64 units on the confidence vector and the one-hot label.

    Shokri et al. (S&P 2017) with the label as input instead of one network a class (Nasr et al., S&P 2019).
    Trained on as many member as non-member pairs, at most 20,000 together, for at most 30 epochs (Adam,
    batches of 512), so that a fit takes seconds and the network's own decision lies at one half.
    """

    name = "nn"
    paper = "Shokri et al., S&P 2017; Nasr et al., S&P 2019"
    threat_model = "confidences of one model, true label; calibration pairs to learn from"
    needs = Needs(calibration=True)
    threshold = 0.5
    fit_once_per_half = True
    labelled = True

    def score(
        self, signals: Signals, target: int, calibration: Calibration | None, rng: np.random.Generator
    ) -> Scores:
        """Probability of membership, [rows]."""
        assert calibration is not None
        return Scores(self.score_many(signals, np.array([target]), calibration, rng)[0])

    def score_many(
        self, signals: Signals, targets: NDArray[np.intp], calibration: Calibration, rng: np.random.Generator
    ) -> Floats:
        """One fit on the calibration pairs, then the scores [targets, rows] of all targets."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPClassifier

        chosen = _balanced_sample(calibration.members, rng)
        network = MLPClassifier(
            hidden_layer_sizes=(64,),
            batch_size=min(_BATCH, len(chosen)),
            learning_rate_init=_LEARNING_RATE,
            max_iter=_EPOCHS,
            n_iter_no_change=5,
            random_state=int(rng.integers(2**31)),
        )
        with warnings.catch_warnings():
            # The number of epochs is bounded on purpose.
            warnings.simplefilter("ignore", ConvergenceWarning)
            network.fit(
                self._features(signals, calibration.models[chosen], calibration.rows[chosen]),
                calibration.members[chosen],
            )
        rows = np.arange(len(signals.labels))
        scores = [
            network.predict_proba(self._features(signals, np.full_like(rows, t), rows))[:, 1] for t in targets
        ]
        return np.asarray(scores, dtype=np.float64)

    def _features(
        self, signals: Signals, models: NDArray[np.intp], rows: NDArray[np.intp]
    ) -> NDArray[np.float32]:
        p = signals.probabilities[models, rows]
        if not self.labelled:
            return p
        one_hot = np.zeros_like(p)
        one_hot[np.arange(len(rows)), signals.labels[rows]] = 1.0
        return np.concatenate([p, one_hot], axis=1)


class NeuralUnlabelled(Neural):
    """As `nn`, on the confidence vector alone."""

    name = "nn.unlabelled"
    paper = "Shokri et al., S&P 2017"
    threat_model = "confidences of one model; calibration pairs to learn from"
    labelled = False


def _balanced_sample(members: Bools, rng: np.random.Generator) -> NDArray[np.intp]:
    inside, outside = np.flatnonzero(members), np.flatnonzero(~members)
    size = min(len(inside), len(outside), _PAIRS // 2)
    if size == 0:
        raise DataError("attack 'nn' needs members and non-members among its calibration pairs")
    return np.sort(
        np.concatenate([rng.choice(inside, size, replace=False), rng.choice(outside, size, replace=False)])
    )


for _attack in (Neural(), NeuralUnlabelled()):
    attacks.register(_attack.name)(_attack)
