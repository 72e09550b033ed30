"""Attacks on the sequence of a model's versions, from the first to the attacked one.

`trajectory`: Liu et al., "Membership Inference Attacks by Exploiting Loss Trajectory", CCS 2022.
`seqmia`: Li et al., "SeqMIA: Sequential-Metric Based Membership Inference Attack", CCS 2024.

Both papers distil the target and take the checkpoints as the sequence. Here the shipped versions are the
sequence (our reading): nobody needs to be taught what was shipped. SeqMIA's recurrent network with attention
is replaced by a dense one on the same metrics, since the sequences are short.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeprivacy.attacks.base import Floats, Needs, Signals, Version, attacks
from edgeprivacy.attacks.compleak import Learned
from edgeprivacy.attacks.joint import every_version
from edgeprivacy.attacks.meta import Integers

_MOST_LOSS = 20.0


def dense_network(rng: np.random.Generator) -> Any:
    """Two hidden layers (64, 32) on standardised features, stopped by held-out pairs of the shadows."""
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(
        StandardScaler(),
        MLPClassifier(
            (64, 32),
            learning_rate_init=3e-3,
            alpha=1e-4,
            max_iter=60,
            early_stopping=True,
            n_iter_no_change=5,
            random_state=int(rng.integers(2**31)),
        ),
    )


class Trajectory(Learned):
    """A network on [ℓ(x; version 1), …, ℓ(x; attacked version)]."""

    name = "trajectory"
    rests_on_truth = True
    paper = "after Liu et al., CCS 2022"
    threat_model = "confidences of several versions, true label; calibration pairs to learn from"
    needs = Needs(calibration=True, versions=2)
    learner = staticmethod(dense_network)
    most_pairs = 20_000

    def features(self, signals: Signals, models: Integers, rows: Integers) -> Floats:
        """Losses, at most 20, [pairs, versions]."""
        losses = [version.loss[models, rows] for version in every_version(signals)]
        return np.minimum(np.column_stack(losses), _MOST_LOSS)


class SeqMia(Trajectory):
    """A network on five metrics of every version: loss, largest p, spread of p, entropy, modified entropy."""

    name = "seqmia"
    rests_on_truth = False
    paper = "after Li et al., CCS 2024"

    def features(self, signals: Signals, models: Integers, rows: Integers) -> Floats:
        """[pairs, 5 * versions]."""
        return np.column_stack([_metrics(version, models, rows) for version in every_version(signals)])


def _metrics(version: Signals | Version, models: Integers, rows: Integers) -> Floats:
    p = version.probabilities[models, rows].astype(np.float64)
    return np.column_stack(
        [
            np.minimum(version.loss[models, rows], _MOST_LOSS),
            p.max(axis=1),
            p.std(axis=1),
            version.entropy[models, rows],
            np.minimum(version.modified_entropy[models, rows], _MOST_LOSS),
        ]
    )


for _attack in (Trajectory(), SeqMia()):
    attacks.register(_attack.name)(_attack)
