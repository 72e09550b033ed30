"""The label-only baseline: a row that is classified correctly is called a member."""

from __future__ import annotations

import numpy as np

from edgeprivacy.attacks.base import Attack, Calibration, Scores, Signals, attacks


class Gap(Attack):
    """s = 1[argmax p = y]. Its balanced accuracy is 1/2 + (train accuracy - test accuracy) / 2.

    Equal outputs go to the first class, as an application's argmax does.
    """

    name = "gap"
    paper = "Yeom et al., CSF 2018"
    threat_model = "predicted label of one model, true label"
    threshold = 0.5

    def score(
        self, signals: Signals, target: int, calibration: Calibration | None, rng: np.random.Generator
    ) -> Scores:
        """0 or 1, [rows]."""
        correct = signals.probabilities[target].argmax(axis=-1) == signals.labels
        return Scores(correct.astype(np.float64))


attacks.register(Gap.name)(Gap())
