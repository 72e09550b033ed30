"""The target's loss on a row beside the losses of models that did not train on it.

`attack-r`: Ye et al., "Enhanced Membership Inference Attacks against Machine Learning Models", CCS 2022.
`difficulty`: Watson et al., "On the Importance of Difficulty Calibration in Membership Inference Attacks",
ICLR 2022.
"""

from __future__ import annotations

import numpy as np

from edgeprivacy.attacks.base import Attack, Bools, Calibration, Floats, Needs, Scores, Signals, attacks
from edgeprivacy.errors import DataError

HIGHEST_LOSS = 1000.0
"""Upper anchor of the empirical distribution, as in the authors' code; the lower one is 0."""


def empirical_cdf(values: Floats, samples: Floats, chosen: Bools) -> Floats:
    """Share of each row's samples below its value, equal ones half, linear between samples, [rows] in [0, 1].

    Args:
        values: float64 [rows], from 0.
        samples: float64 [models, rows], from 0.
        chosen: bool [models, rows]; which samples count. The anchors 0 and 1000 always do.
    """
    models, rows = samples.shape
    padded = np.full((models + 2, rows), np.inf)
    padded[0], padded[1] = 0.0, HIGHEST_LOSS
    padded[2:][chosen] = np.minimum(samples, HIGHEST_LOSS)[chosen]
    padded.sort(axis=0)
    steps = chosen.sum(axis=0) + 1
    at = np.minimum(values, HIGHEST_LOSS)
    row = np.arange(rows)
    fewer, most = (padded < at).sum(axis=0), (padded <= at).sum(axis=0) - 1
    below = np.clip(most, 0, steps - 1)
    low, high = padded[below, row], padded[below + 1, row]
    between = below + (at - low) / np.where(high > low, high - low, 1.0)
    return np.asarray(np.where(most >= fewer, 0.5 * (fewer + most), between) / steps)


def _outside(signals: Signals, target: int) -> Bools:
    chosen = signals.of_shadows(target, inside=False)
    if not chosen.any():
        raise DataError("no shadow is without any of the rows: there is nothing to compare with")
    return chosen


class AttackR(Attack):
    """s = 1 - F(ℓ(x; θ)), F the distribution of the losses of shadows that did not train on x.

    With n such shadows scores move in steps of 1/(n + 1) but for the interpolation: a false-positive rate far
    below that is out of reach. A row without such a shadow has the anchors alone.
    """

    name = "attack-r"
    rests_on_truth = True
    paper = "Ye et al., CCS 2022"
    threat_model = "confidences, true label; shadows that did not train on the row"
    needs = Needs(shadows=2)

    def score(
        self, signals: Signals, target: int, calibration: Calibration | None, rng: np.random.Generator
    ) -> Scores:
        """Share of OUT losses above the target's, [rows]."""
        chosen = _outside(signals, target)
        counts = chosen.sum(axis=0)
        return Scores(
            1.0 - empirical_cdf(signals.loss[target], signals.loss, chosen),
            pooled_rows=int((counts == 0).sum()),
            notes=(f"resolution 1/{int(np.median(counts)) + 1}: so many shadows did not train on a row",),
        )


class Difficulty(Attack):
    """s = mean over OUT shadows of ℓ(x; θ') - ℓ(x; θ)."""

    name = "difficulty"
    rests_on_truth = True
    paper = "Watson et al., ICLR 2022"
    threat_model = "confidences, true label; one or more shadows that did not train on the row"
    needs = Needs(shadows=1)

    def score(
        self, signals: Signals, target: int, calibration: Calibration | None, rng: np.random.Generator
    ) -> Scores:
        """How much lower the loss is than elsewhere, [rows]. Rows without an OUT shadow take the mean over
        all OUT losses and are counted."""
        chosen = _outside(signals, target)
        counts = chosen.sum(axis=0)
        sums = np.einsum("mr,mr->r", signals.loss, chosen.astype(np.float64))
        elsewhere = np.where(counts > 0, sums / np.maximum(counts, 1), sums.sum() / counts.sum())
        return Scores(elsewhere - signals.loss[target], pooled_rows=int((counts == 0).sum()))


for _attack in (AttackR(), Difficulty()):
    attacks.register(_attack.name)(_attack)
