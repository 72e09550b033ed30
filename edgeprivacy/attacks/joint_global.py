"""Attacks on several versions that estimate little a row: what few shadows can carry.

`joint.lira` fits every row a covariance of its own. With a dozen shadows and many versions that is more than
they can tell: nearly equal versions (a float file and its 8-bit form) differ by rounding, whose direction is
then trusted as if it were known. The two attacks here take the means alone from a row, as
`lira.online.global` does for one version: `joint.mean` averages the versions' logit-scaled confidences and
goes on as LiRA, and `joint.lira.global` has one covariance for all rows, its correlations halved. (On
Location-30, 20 files of one release, 17 models as the target in turn, TPR at 1 % FPR: `joint.lira` 11 %, the
best single file 54 %, `joint.mean` and `joint.lira.global` 64 %. That correlations are halved, not left as
they are, was chosen there.)
"""

from __future__ import annotations

import numpy as np

from edgeprivacy.attacks.base import Attack, Bools, Calibration, Floats, Needs, Scores, Signals, attacks
from edgeprivacy.attacks.joint import every_version
from edgeprivacy.attacks.lira import fit_gaussians, log_density
from edgeprivacy.errors import DataError

_LEAST = 2


class JointMean(Attack):
    """LiRA with one variance for all rows on the mean of the versions' φ."""

    name = "joint.mean"
    rests_on_truth = True
    paper = "this project, after Carlini et al., S&P 2022"
    threat_model = "confidences of several versions, true label; shadows compressed in the same ways"
    needs = Needs(shadows=4, versions=2)

    def score(
        self, signals: Signals, target: int, calibration: Calibration | None, rng: np.random.Generator
    ) -> Scores:
        """Log-likelihood ratio of the mean, [rows]."""
        mean = np.mean([version.logit_confidence for version in every_version(signals)], axis=0)
        fits = [
            fit_gaussians(mean, signals.of_shadows(target, inside), global_variance=True)
            for inside in (True, False)
        ]
        ratio = log_density(mean[target], fits[0]) - log_density(mean[target], fits[1])
        return Scores(ratio, pooled_rows=int((fits[0].pooled | fits[1].pooled).sum()))


class JointLiraGlobal(JointMean):
    """s = log N(Φ; μ_in, Σ_in) - log N(Φ; μ_out, Σ_out), Σ one for all rows of a side: the covariance within
    rows, plus its own diagonal (which halves the correlations)."""

    name = "joint.lira.global"
    rests_on_truth = True

    def score(
        self, signals: Signals, target: int, calibration: Calibration | None, rng: np.random.Generator
    ) -> Scores:
        """Log-likelihood ratio, [rows]."""
        values = np.stack([version.logit_confidence for version in every_version(signals)], axis=2)
        sides, pooled = [], np.zeros(len(signals.labels), dtype=np.bool_)
        for inside in (True, False):
            mean, covariance, few = common_covariance(values, signals.of_shadows(target, inside))
            lower = np.linalg.cholesky(covariance + np.diag(np.diag(covariance)))
            whitened = np.linalg.solve(lower, (values[target] - mean).T)
            sides.append(-np.log(np.diag(lower)).sum() - 0.5 * (whitened**2).sum(axis=0))
            pooled |= few
        return Scores(sides[0] - sides[1], pooled_rows=int(pooled.sum()))


def common_covariance(values: Floats, chosen: Bools) -> tuple[Floats, Floats, Bools]:
    """Means a row, and one covariance within rows.

    Args:
        values: float64 [models, rows, versions].
        chosen: bool [models, rows]; the models that count on each row.

    Returns:
        Mean [rows, versions], covariance [versions, versions] with a floor that keeps it positive, and which
        rows took the mean over all rows for want of two models [rows].

    Raises:
        DataError: No row has two models.
    """
    mask = chosen.astype(np.float64)
    counts = mask.sum(axis=0)
    freedom = np.maximum(counts - 1.0, 0.0).sum()
    if freedom == 0:
        raise DataError("joint LiRA needs rows with known membership in the shadows", got=int(counts.sum()))
    mean = np.einsum("mrv,mr->rv", values, mask) / np.maximum(counts, 1.0)[:, None]
    apart = ((values - mean) * mask[:, :, None]).reshape(-1, values.shape[2])
    covariance = apart.T @ apart / freedom
    few = counts < _LEAST
    mean[few] = np.einsum("mrv,mr->v", values, mask) / counts.sum()
    # Versions that answer every row alike in every model have no spread; nothing is divided by it.
    return mean, covariance + 1e-12 * np.eye(len(covariance)), few


for _attack in (JointMean(), JointLiraGlobal()):
    attacks.register(_attack.name)(_attack)
