"""Attacks on several versions of one model together. They are this project's own.

Somebody who holds an app's old and new release, or the float and the 8-bit file, or the original beside the
compressed one, has several noisy looks at one row. `joint.lira` is LiRA (Carlini et al., S&P 2022) on the
vector of the versions' logit-scaled confidences: its covariance tells how much of the second look is new.
`joint.rmia` is RMIA (Zarifzadeh et al., ICML 2024) with the geometric mean of the versions' confidences in
the place of one. `joint.difference` and `joint.ratio` look at nothing but the change from one version to the
next, as attacks on updated models do (Jagielski et al., SaTML 2023); of more versions `joint.back-front`
takes the change from the first to the last, and `joint.delta` the largest between neighbours. Which direction
speaks for a member, the shadows tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgeprivacy.attacks.base import (
    Attack,
    Bools,
    Calibration,
    Floats,
    Needs,
    Population,
    Scores,
    Signals,
    Version,
    attacks,
)
from edgeprivacy.attacks.lira import LiraOnline, fit_gaussians, log_density
from edgeprivacy.attacks.rmia import RmiaOffline
from edgeprivacy.errors import DataError

SHRINKAGES = (4.0, 16.0, 64.0, 1024.0)
"""Weights that the pooled covariance may have, in shadows: a row's own counts n / (n + weight)."""
_RIDGE = 1e-4
"""Of the pooled variance of each version, added to every covariance: a version that repeats another to the
last bit adds nothing, and must not divide by nothing."""
_LEAST = 2


def every_version(signals: Signals) -> tuple[Version | Signals, ...]:
    """All versions, the original first where it is known, the attacked one last."""
    return (*signals.versions, signals)


def shrunken_gaussians(values: Floats, chosen: Bools, shrinkage: float) -> tuple[Floats, Floats, Bools]:
    """A Gaussian a row over several numbers, its covariance shrunk towards the mean of all rows'.

    Args:
        values: float64 [models, rows, versions].
        chosen: bool [models, rows]; the models that count on each row.
        shrinkage: Weight of that mean, in models.

    Returns:
        Mean [rows, versions], covariance [rows, versions, versions], and which rows took the mean over all
        rows for want of two models [rows].

    Raises:
        DataError: Fewer than two values are chosen in all.
    """
    mask = chosen.astype(np.float64)
    counts = mask.sum(axis=0)
    if counts.sum() < _LEAST:
        raise DataError("joint LiRA needs rows with known membership in the shadows", got=int(counts.sum()))
    some = np.maximum(counts, 1.0)
    mean = np.einsum("mrv,mr->rv", values, mask) / some[:, None]
    apart = (values - mean) * mask[:, :, None]
    scatter = np.einsum("mrv,mrw->rvw", apart, apart)
    freedom = np.maximum(counts - 1.0, 0.0)
    pooled_rows = counts < _LEAST
    overall = np.einsum("mrv,mr->v", values, mask) / counts.sum()
    pool = scatter.sum(axis=0) / max(freedom.sum(), 1.0)
    pool = pool + np.diag(_RIDGE * np.maximum(np.diag(pool), 1e-8))
    weight = freedom / (freedom + shrinkage)
    own = scatter / np.maximum(freedom, 1.0)[:, None, None]
    covariance = weight[:, None, None] * own + (1.0 - weight)[:, None, None] * pool
    covariance = covariance + np.diag(_RIDGE * np.diag(pool))
    if pooled_rows.any():
        # Such a row is known as any row is: by the mean and the spread of all.
        far = (values - overall) * mask[:, :, None]
        mean[pooled_rows] = overall
        covariance[pooled_rows] = np.einsum("mrv,mrw->vw", far, far) / counts.sum() + np.diag(
            _RIDGE * np.diag(pool)
        )
    return mean, covariance, pooled_rows


def log_densities(values: Floats, mean: Floats, covariance: Floats) -> Floats:
    """Log density of each row's vectors [..., rows, versions] but for the constant, [..., rows]."""
    lower = np.linalg.cholesky(covariance)
    identity = np.broadcast_to(np.eye(lower.shape[-1]), lower.shape)
    whitened = np.einsum("rvw,...rw->...rv", np.linalg.solve(lower, identity), values - mean)
    halves = np.log(np.diagonal(lower, axis1=1, axis2=2)).sum(axis=1)
    return np.asarray(-halves - 0.5 * (whitened**2).sum(axis=-1))


def likeliest_shrinkage(values: Floats, chosen: Bools) -> float:
    """The shrinkage under which one half of the models is likeliest, given the other half.

    How much rows differ in their covariance is a matter of the data, and how well a row's own is known one of
    models and versions: no constant fits all. Arguments as `shrunken_gaussians`.
    """
    half = np.arange(len(values)) % 2 == 0
    fitted, judged = chosen & half[:, None], chosen & ~half[:, None]
    if fitted.sum() < _LEAST or not judged.any():
        return SHRINKAGES[-1]

    def likelihood(shrinkage: float) -> float:
        mean, covariance, few = shrunken_gaussians(values, fitted, shrinkage)
        densities = log_densities(values[~half], mean, covariance)
        return float(densities[judged[~half] & ~few].sum())

    return max(SHRINKAGES, key=likelihood)


class JointLira(Attack):
    """s = log N(Φ; μ_in, Σ_in) - log N(Φ; μ_out, Σ_out), Φ the vector of the versions' φ.

    Σ = w Σ_row + (1 - w) Σ_pool with w = n / (n + n0), n the degrees of freedom of the row's shadows, and n0
    from 4 to 1024 the one under which half of the shadows is likeliest given the other half.
    """

    name = "joint.lira"
    paper = "this project, after Carlini et al., S&P 2022"
    threat_model = "confidences of several versions, true label; shadows compressed in the same ways"
    needs = Needs(shadows=4, versions=2)

    def score(
        self, signals: Signals, target: int, calibration: Calibration | None, rng: np.random.Generator
    ) -> Scores:
        """Log-likelihood ratio, [rows]."""
        values = np.stack([version.logit_confidence for version in every_version(signals)], axis=2)
        sides, notes, pooled = [], [], np.zeros(len(signals.labels), dtype=np.bool_)
        for inside in (True, False):
            chosen = signals.of_shadows(target, inside)
            shrinkage = likeliest_shrinkage(values, chosen)
            mean, covariance, few = shrunken_gaussians(values, chosen, shrinkage)
            sides.append(log_densities(values[target], mean, covariance))
            notes.append(f"{'IN' if inside else 'OUT'} covariance: weight of the pool {shrinkage:g} shadows")
            pooled |= few
        return Scores(sides[0] - sides[1], pooled_rows=int(pooled.sum()), notes=tuple(notes))


class JointRmia(RmiaOffline):
    """RMIA with Pr(x|θ) the geometric mean of the versions' p_y."""

    name = "joint.rmia"
    paper = "this project, after Zarifzadeh et al., ICML 2024"
    threat_model = "confidences of several versions, true label; shadows, population rows"
    needs = Needs(shadows=1, population=True, versions=2)

    def score(
        self, signals: Signals, target: int, calibration: Calibration | None, rng: np.random.Generator
    ) -> Scores:
        """Share of dominated population rows, [rows]."""
        versions = every_version(signals)
        populations = [version.population for version in versions]
        assert signals.population is not None
        together = replace(signals, versions=(), has_original=False, population=replace(signals.population))
        # The attack itself reads nothing else of either.
        together.__dict__["confidence"] = _geometric_mean(versions)
        together.population.__dict__["confidence"] = _geometric_mean(
            [p for p in populations if p is not None]
        )
        return super().score(together, target, calibration, rng)


class JointDifference(LiraOnline):
    """LiRA on φ of the attacked version less φ of the first (the original, where it is known)."""

    name = "joint.difference"
    paper = "this project, after Jagielski et al., SaTML 2023"
    threat_model = "confidences of two versions, true label; shadows compressed in the same way"
    needs = Needs(shadows=4, versions=2)
    pairwise = True

    def score(
        self, signals: Signals, target: int, calibration: Calibration | None, rng: np.random.Generator
    ) -> Scores:
        """Log-likelihood ratio of the change, [rows]."""
        change = self.change(signals)
        fits = []
        for inside in (True, False):
            chosen = signals.of_shadows(target, inside)
            fits.append(fit_gaussians(change, chosen))
        return Scores(
            log_density(change[target], fits[0]) - log_density(change[target], fits[1]),
            pooled_rows=int((fits[0].pooled | fits[1].pooled).sum()),
        )

    def change(self, signals: Signals) -> Floats:
        """From the first version to the attacked one, [models, rows]."""
        return signals.logit_confidence - signals.versions[0].logit_confidence


class JointRatio(JointDifference):
    """LiRA on log(p_y of the attacked version / p_y of the first)."""

    name = "joint.ratio"

    def change(self, signals: Signals) -> Floats:
        """From the first version to the attacked one, [models, rows]."""
        return signals.versions[0].loss - signals.loss


class JointBackFront(JointDifference):
    """LiRA on φ of the last version less φ of the first, of three or more."""

    name = "joint.back-front"
    threat_model = "confidences of three or more versions, true label; shadows compressed in the same ways"
    needs = Needs(shadows=4, versions=3)
    pairwise = False


class JointDelta(JointBackFront):
    """LiRA on the largest rise of φ from one version to the next, of three or more."""

    name = "joint.delta"

    def change(self, signals: Signals) -> Floats:
        """The largest step, [models, rows]; below zero where every step falls."""
        values = np.stack([version.logit_confidence for version in every_version(signals)])
        return np.asarray(np.diff(values, axis=0).max(axis=0))


def _geometric_mean(versions: Sequence[Signals | Version | Population]) -> Floats:
    """Of p_y over versions, [models, rows]."""
    return np.asarray(np.exp(-np.mean([version.loss for version in versions], axis=0)))


_built_in: tuple[Attack, ...] = (
    *(JointLira(), JointRmia(), JointDifference(), JointRatio(), JointBackFront(), JointDelta()),
)
for _attack in _built_in:
    attacks.register(_attack.name)(_attack)

__all__: list[str] = [
    *("JointBackFront", "JointDelta", "JointDifference", "JointLira", "JointRatio", "JointRmia"),
    "every_version",
]
