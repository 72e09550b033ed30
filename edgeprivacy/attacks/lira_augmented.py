"""LiRA on several queries a row (Carlini et al., "Membership Inference Attacks From First Principles", S&P
2022, section VI): the row and variations of it, made once and asked of all models.

    s = mean over the queries of  log N(φ; μ_in, σ_in²) - log N(φ; μ_out, σ_out²)

each query with Gaussians of its own, as in the authors' code; their text has one Gaussian over all queries,
whose covariance a few dozen shadows do not tell (on simulated rows it was the worse of the two from 17 to 129
models).

Variations of images are shifts by a pixel (the authors ask the flips and shifts of their training; a file
does not tell how it was trained). Anything else is moved by noise of a tenth of the data's spread, at least a
step of a quantized input (inferred: the authors have images only).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.attacks.base import Calibration, Floats, Needs, Scores, Signals, attacks
from edgeprivacy.attacks.label_only import DISTANCE, shifted, translations
from edgeprivacy.attacks.lira import fit_gaussians, log_density
from edgeprivacy.attacks.queries import Ask, InputSpace, QueryAttack, Rows, moved

VARIATIONS = 4 * DISTANCE
_SHARE = 0.1
_QUANTA = 1.0


def confidence_and_rest(p: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float32]:
    """p_y and the sum of all other probabilities, float32 [rows, 2]: all that φ is made of."""
    rows = np.arange(len(labels))
    rest = p.astype(np.float64)
    rest[rows, labels] = 0.0
    return np.stack([p[rows, labels], rest.sum(axis=1)], axis=1).astype(np.float32)


class LiraAugmented(QueryAttack):
    """Online LiRA, its ratio averaged over five inputs."""

    name = "lira.online.augmented"
    paper = "Carlini et al., S&P 2022"
    threat_model = (
        "confidences of the row and of variations, true label; shadows with the row and shadows without it"
    )
    needs = Needs(shadows=4)
    queries = VARIATIONS

    def gather(
        self, ask: Ask, x: Rows, labels: NDArray[np.int64], inputs: InputSpace, rng: np.random.Generator
    ) -> NDArray[np.float32]:
        """p_y and the sum of the rest for each variation, [rows, 4, 2]."""
        images = x.ndim in (3, 4) and min(x.shape[1:3]) >= 3
        width = inputs.width(_SHARE, _QUANTA)
        answers = []
        for dy, dx in translations(DISTANCE):
            if images:
                varied = shifted(x, dy, dx)
            else:
                varied = moved(x, rng.standard_normal(x.shape, dtype=np.float32) * width)
            answers.append(confidence_and_rest(ask(varied), labels))
        return np.stack(answers, axis=1)

    def looks(self, signals: Signals) -> Floats:
        """φ of every query, float64 [models, rows, 5], the row itself first."""
        parts = np.maximum(self.gathered(signals), signals.log_floor)
        further = np.log(parts[..., 0]) - np.log(parts[..., 1])
        return np.concatenate([signals.logit_confidence[..., None], further], axis=2)

    def score(
        self, signals: Signals, target: int, calibration: Calibration | None, rng: np.random.Generator
    ) -> Scores:
        """Mean log-likelihood ratio, [rows]."""
        values, pooled = self.looks(signals), np.zeros(len(signals.labels), dtype=np.bool_)
        total = np.zeros(len(signals.labels))
        for phi in np.moveaxis(values, 2, 0):
            for inside, sign in ((True, 1.0), (False, -1.0)):
                gaussians = fit_gaussians(phi, signals.of_shadows(target, inside))
                total += sign * log_density(phi[target], gaussians)
                pooled |= gaussians.pooled
        return Scores(total / values.shape[2], pooled_rows=int(pooled.sum()))


attacks.register("lira.online.augmented")(LiraAugmented())
