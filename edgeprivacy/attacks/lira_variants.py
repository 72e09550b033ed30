"""Online LiRA with other variances: one for both sides, or each row's own shrunken towards that of all.

`lira.online.equal` exists to be compared with: results that the literature calls "fixed variance" often come
from a script that takes the IN side's pooled variance for both sides.

`lira.online.shrunk` is for few shadows: a normal-inverse-gamma prior on each row's variance, worth ν0 = 6
shadows, with the Student-t predictive that follows (after Brännvall, "BaVarIA", 2026, of which the abstract
was read; ν0 and the centre are our choice).
"""

from __future__ import annotations

import numpy as np

from edgeprivacy.attacks.base import Bools, Calibration, Floats, Scores, Signals, attacks
from edgeprivacy.attacks.lira import LiraOnline, fit_gaussians
from edgeprivacy.errors import DataError

PRIOR_SHADOWS = 6.0


class LiraOnlineEqual(LiraOnline):
    """s = [(φ - μ_out)² - (φ - μ_in)²] / (2 σ²), σ² the pooled variance of the IN side."""

    name = "lira.online.equal"

    def score(
        self, signals: Signals, target: int, calibration: Calibration | None, rng: np.random.Generator
    ) -> Scores:
        """Log-likelihood ratio, [rows]."""
        inside, outside = self._fit(signals, target, True), self._fit(signals, target, False)
        chosen = signals.of_shadows(target, inside=True)
        shared = fit_gaussians(signals.logit_confidence, chosen, global_variance=True).variance
        phi = signals.logit_confidence[target]
        return Scores(
            ((phi - outside.mean) ** 2 - (phi - inside.mean) ** 2) / (2.0 * shared),
            pooled_rows=int((inside.pooled | outside.pooled).sum()),
        )


class LiraOnlineShrunk(LiraOnline):
    """s = log t_in(φ) - log t_out(φ), t a Student-t with ν0 + n degrees of freedom.

    Centre: the mean m of the row's n shadows. Scale²: (1 + 1/n) (ν0 σ0² + Σ(φ' - m)²) / (ν0 + n), σ0² the
    mean variance within rows.
    """

    name = "lira.online.shrunk"
    paper = "Carlini et al., S&P 2022; after Brännvall, 2026"

    def score(
        self, signals: Signals, target: int, calibration: Calibration | None, rng: np.random.Generator
    ) -> Scores:
        """Log-likelihood ratio, [rows]."""
        phi, sides = signals.logit_confidence, []
        few = np.zeros(len(signals.labels), dtype=np.bool_)
        for inside in (True, False):
            chosen = signals.of_shadows(target, inside)
            density, pooled = student_log_density(phi[target], phi, chosen)
            sides.append(density)
            few |= pooled
        return Scores(sides[0] - sides[1], pooled_rows=int(few.sum()), notes=(f"ν0 = {PRIOR_SHADOWS:g}",))


def student_log_density(values: Floats, samples: Floats, chosen: Bools) -> tuple[Floats, Bools]:
    """Log predictive density of a value a row, and which rows had no sample of their own, each [rows].

    Args:
        values: float64 [rows].
        samples: float64 [models, rows].
        chosen: bool [models, rows]; which samples count.

    Raises:
        DataError: Fewer than two samples are chosen in all.
    """
    from scipy.special import gammaln

    mask = chosen.astype(np.float64)
    counts = mask.sum(axis=0)
    if counts.sum() < 2:
        raise DataError("LiRA needs rows with known membership in the shadows", got=int(counts.sum()))
    some = np.maximum(counts, 1.0)
    mean = (samples * mask).sum(axis=0) / some
    squares = (((samples - mean) * mask) ** 2).sum(axis=0)
    overall = (samples * mask).sum() / counts.sum()
    total = ((samples - overall) ** 2 * mask).sum() / counts.sum()
    freedom = np.maximum(counts - 1.0, 0.0).sum()
    within = squares.sum() / freedom if freedom > 0 else total
    within = max(within, 1e-4 * total, 1e-12)
    none = counts == 0
    degrees = PRIOR_SHADOWS + counts
    scale = (1.0 + 1.0 / some) * (PRIOR_SHADOWS * within + squares) / degrees
    # A row that no shadow shows is known as any row is.
    mean, scale = np.where(none, overall, mean), np.where(none, max(total, within), scale)
    z = (values - mean) ** 2 / scale
    constant = gammaln((degrees + 1) / 2) - gammaln(degrees / 2) - 0.5 * np.log(np.pi * degrees * scale)
    return np.asarray(constant - 0.5 * (degrees + 1) * np.log1p(z / degrees)), none


for _attack in (LiraOnlineEqual(), LiraOnlineShrunk()):
    attacks.register(_attack.name)(_attack)
