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
    Calibration,
    Floats,
    Needs,
    Population,
    Scores,
    Signals,
    Version,
    attacks,
)
from edgeprivacy.attacks.covariances import likeliest_shrinkage, log_densities, shrunken_gaussians
from edgeprivacy.attacks.lira import LiraOnline, fit_gaussians, log_density
from edgeprivacy.attacks.rmia import RmiaOffline


def every_version(signals: Signals) -> tuple[Version | Signals, ...]:
    """All versions, the original first where it is known, the attacked one last."""
    return (*signals.versions, signals)


class JointLira(Attack):
    """s = log N(Φ; μ_in, Σ_in) - log N(Φ; μ_out, Σ_out), Φ the vector of the versions' φ.

    Σ = w Σ_row + (1 - w) Σ_pool with w = n / (n + n0), n the degrees of freedom of the row's shadows, and n0
    from 4 to 1024 the one under which half of the shadows is likeliest given the other half.
    """

    name = "joint.lira"
    rests_on_truth = True
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
    rests_on_truth = True
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
    rests_on_truth = True
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
