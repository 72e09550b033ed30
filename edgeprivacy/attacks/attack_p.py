"""Attack-P: how the target's loss on a row stands among its losses on rows that nobody trained on."""

from __future__ import annotations

import numpy as np

from edgeprivacy.attacks.base import Attack, Calibration, Needs, Scores, Signals, attacks


class AttackP(Attack):
    """s = share of population rows whose loss under the same model is larger; equal losses count one half.

    The half makes the score the mid-rank, so that rows tied with a pile of saturated outputs are neither
    favoured nor punished. With |Z| population rows the score moves in steps of 1/(2|Z|).
    """

    name = "attack-p"
    rests_on_truth = True
    paper = "Ye et al., CCS 2022"
    threat_model = "confidences of one model, true label, population rows of the same distribution"
    needs = Needs(population=True)

    def score(
        self, signals: Signals, target: int, calibration: Calibration | None, rng: np.random.Generator
    ) -> Scores:
        """Mid-rank in [0, 1], [rows]."""
        assert signals.population is not None
        population = np.sort(signals.population.loss[target])
        loss = signals.loss[target]
        not_above = np.searchsorted(population, loss, "right") + np.searchsorted(population, loss, "left")
        return Scores(1.0 - not_above / (2.0 * len(population)))


attacks.register(AttackP.name)(AttackP())
