"""The likelihood-ratio attack (Carlini et al., "Membership Inference Attacks From First Principles", S&P
2022).

On every row the logit-scaled confidence φ of the target is compared with Gaussians fitted to the φ of shadows
that trained on the row (IN) and of shadows that did not (OUT). Centre: the median, as in the authors' code.
Width: the standard deviation of the row's shadows (divided by their number), or for the variants named
`.global` the standard deviation over all rows and shadows of that side.

Two things the formula leaves open:

* A row with fewer than 2 IN (or OUT) shadows takes the mean and variance over all rows and shadows of that
  side; `Scores.pooled_rows` counts such rows.
* Shadows that agree to the last bit (saturated 8-bit outputs) have no variance. Every variance is at least
  1e-4 of the variance over all rows of that side (a hundredth of its standard deviation), and at least 1e-12.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgeprivacy.attacks.base import Attack, Bools, Calibration, Floats, Needs, Scores, Signals, attacks
from edgeprivacy.errors import DataError

_LEAST = 2
_VARIANCE_SHARE = 1e-4
_VARIANCE_FLOOR = 1e-12
_CHUNK = 2048
_BEYOND = 1e300  # added to values that are not chosen, so that they sort last


@dataclass(frozen=True)
class Gaussians:
    """One Gaussian a row: `mean` and `variance` float64 [rows]; `pooled` bool [rows] marks fallbacks."""

    mean: Floats
    variance: Floats
    pooled: Bools


def fit_gaussians(values: Floats, chosen: Bools, global_variance: bool = False) -> Gaussians:
    """Median and variance over the chosen models of every row.

    Args:
        values: float64 [models, rows], finite.
        chosen: bool [models, rows]; the models that count on each row.
        global_variance: One variance for all rows.

    Raises:
        DataError: Fewer than two values are chosen in all.
    """
    rows = values.shape[1]
    mean, variance = np.zeros(rows), np.zeros(rows)
    counts = np.empty(rows, dtype=np.intp)
    total, squares, number = 0.0, 0.0, 0
    for start in range(0, rows, _CHUNK):
        # Small blocks stay in the processor's cache, and masks are applied by arithmetic: branches on random
        # membership cost several times as much as the sort.
        part = slice(start, min(start + _CHUNK, rows))
        block = np.ascontiguousarray(values[:, part].T)
        mask = np.ascontiguousarray(chosen[:, part].T).astype(np.float64)
        count = mask.sum(axis=1)
        some = np.maximum(count, 1.0)
        ordered = block + (1.0 - mask) * _BEYOND
        ordered.sort(axis=1)
        row, upper = np.arange(len(count)), (some / 2).astype(np.intp)
        lower = ((some - 1) / 2).astype(np.intp)
        median = 0.5 * (ordered[row, lower] + ordered[row, upper])
        sums = np.einsum("ij,ij->i", block, mask)
        apart = (block - (sums / some)[:, None]) * mask
        counts[part] = count
        mean[part] = np.where(count > 0, median, 0.0)
        variance[part] = np.einsum("ij,ij->i", apart, apart) / some
        total += float(sums.sum())
        squares += float(np.einsum("ij,ij,ij->", block, block, mask))
        number += int(count.sum())
    if number < _LEAST:
        raise DataError("LiRA needs rows with known membership in the shadows", got=f"{number} such outputs")
    pooled_mean = total / number
    pooled_variance = max(squares / number - pooled_mean**2, 0.0)
    pooled = counts < _LEAST
    mean[pooled] = pooled_mean
    variance[pooled] = pooled_variance
    if global_variance:
        variance[:] = pooled_variance
    floor = max(_VARIANCE_SHARE * pooled_variance, _VARIANCE_FLOOR)
    return Gaussians(mean, np.maximum(variance, floor), pooled)


def log_density(values: Floats, gaussians: Gaussians) -> Floats:
    """Log density of one value a row but for the constant, [rows]."""
    # The constant of the normal density is the same on both sides of the ratio and left out.
    return np.asarray(
        -0.5 * (np.log(gaussians.variance) + (values - gaussians.mean) ** 2 / gaussians.variance)
    )


class Lira(Attack):
    """What the online and the offline attack share."""

    paper = "Carlini et al., S&P 2022"
    version = "2"
    global_variance: ClassVar[bool] = False

    def _fit(self, signals: Signals, target: int, inside: bool) -> Gaussians:
        chosen = signals.of_shadows(target, inside)
        return fit_gaussians(signals.logit_confidence, chosen, self.global_variance)


class LiraOnline(Lira):
    """s = log N(φ; μ_in, σ_in²) - log N(φ; μ_out, σ_out²)."""

    name = "lira.online"
    rests_on_truth = True
    threat_model = "confidences, true label; shadows that trained on the row and shadows that did not"
    needs = Needs(shadows=4)

    def score(
        self, signals: Signals, target: int, calibration: Calibration | None, rng: np.random.Generator
    ) -> Scores:
        """Log-likelihood ratio, [rows]."""
        inside, outside = self._fit(signals, target, True), self._fit(signals, target, False)
        phi = signals.logit_confidence[target]
        return Scores(
            log_density(phi, inside) - log_density(phi, outside),
            pooled_rows=int((inside.pooled | outside.pooled).sum()),
        )


class LiraOffline(Lira):
    """One-sided test Φ((φ - μ_out) / σ_out), given as its argument z.

    Φ is monotone, so the ROC is that of Φ; in float64 it rounds to 1 from z = 8.3, which would make ties of
    the surest rows.
    """

    name = "lira.offline"
    rests_on_truth = True
    threat_model = "confidences, true label; shadows that did not train on the row"
    needs = Needs(shadows=2)

    def score(
        self, signals: Signals, target: int, calibration: Calibration | None, rng: np.random.Generator
    ) -> Scores:
        """z-value under the OUT Gaussian, [rows]."""
        outside = self._fit(signals, target, False)
        z = (signals.logit_confidence[target] - outside.mean) / np.sqrt(outside.variance)
        return Scores(z, pooled_rows=int(outside.pooled.sum()))


class LiraOnlineGlobal(LiraOnline):
    """Online, with one variance for all rows."""

    name = "lira.online.global"
    global_variance = True


class LiraOfflineGlobal(LiraOffline):
    """Offline, with one variance for all rows."""

    name = "lira.offline.global"
    global_variance = True


_built_in: tuple[Attack, ...] = (LiraOnline(), LiraOnlineGlobal(), LiraOffline(), LiraOfflineGlobal())
for _attack in _built_in:
    attacks.register(_attack.name)(_attack)
