"""How sure a number is: exact binomial limits, and a bootstrap that never touches the raw scores.

The bootstrap resamples members and non-members apart (stratified) and recomputes the threshold in every
resample. Only what is asked for is drawn:

* TPR at FPR limits, exactly: the j-th largest of n resampled non-members is the original at rank floor(n U),
  U the j-th of n uniform order statistics, which are normalised sums of gamma variates. Given those
  thresholds the resampled members between them are multinomial. A resample costs one draw a limit, not one a
  row.
* AUC: multinomial counts on the tied bins of the ROC. Above 256 bins, neighbours are merged and keep the
  concordance inside the merged bin; what is lost is the resampling noise of pairs inside one bin, a share of
  about 1/256 of all pairs.

A percentile interval collapses where nothing varies between resamples (no true positive at all, perfect
separation). So an interval of TPR is never narrower than the Clopper-Pearson interval at the observed
threshold, and an interval of AUC of zero width is replaced by a binomial one on as many trials as the smaller
side has rows (the largest variance an AUC can have: AUC (1 - AUC) / min(m, n)).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from edgeprivacy.metrics.roc import Floats, Ints, Roc, allowed_false_positives

_AUC_BINS = 256
_SUPPORT_OK, _SUPPORT_LOW = 10, 1


def binomial_limits(k: NDArray[Any], n: int, level: float = 0.95) -> tuple[Floats, Floats]:
    """Clopper-Pearson limits of k successes in n trials, for an array of k."""
    successes = np.asarray(k, dtype=np.float64)
    tail = (1.0 - level) / 2.0
    low = np.where(successes > 0, betaincinv(np.maximum(successes, 1), n - successes + 1, tail), 0.0)
    high = np.where(successes < n, betaincinv(successes + 1, np.maximum(n - successes, 1), 1.0 - tail), 1.0)
    return low, high


def binomial_interval(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Exact (Clopper-Pearson) interval of the share k/n; (0, 1) without trials."""
    if n == 0:
        return 0.0, 1.0
    low, high = binomial_limits(np.asarray(k), n, level)
    return float(low), float(high)


def balanced_accuracy_interval(
    true_positives: int, n_members: int, false_positives: int, n_nonmembers: int, level: float = 0.95
) -> tuple[float, float]:
    """Interval of (TPR + TNR) / 2 at a threshold that was fixed beforehand.

    The Clopper-Pearson limits of the two independent rates are combined by squares (MOVER; Zou & Donner,
    Statistics in Medicine 2008), so it has width even where a rate is 0 or 1.
    """
    hits, rejections = true_positives / n_members, 1.0 - false_positives / n_nonmembers
    low_h, high_h = binomial_interval(true_positives, n_members, level)
    low_r, high_r = binomial_interval(n_nonmembers - false_positives, n_nonmembers, level)
    value = 0.5 * (hits + rejections)
    low = value - 0.5 * float(np.hypot(hits - low_h, rejections - low_r))
    high = value + 0.5 * float(np.hypot(high_h - hits, high_r - rejections))
    return max(low, 0.0), min(high, 1.0)


def support(fpr: float, n_nonmembers: int) -> Literal["ok", "low", "none"]:
    """Whether there are non-members enough for a TPR at this FPR: "ok" from 10 expected false positives,
    "low" from 1, else "none"."""
    expected = int(allowed_false_positives(fpr, n_nonmembers))
    if expected >= _SUPPORT_OK:
        return "ok"
    return "low" if expected >= _SUPPORT_LOW else "none"


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """Resampled metrics of one ROC; ask it for intervals at any level.

    Attributes:
        roc: The curve that was resampled.
        auc_samples: float64 [resamples].
        fprs: float64 [limits], as given.
        tpr_samples: float64 [resamples, limits].
    """

    roc: Roc
    auc_samples: Floats
    fprs: Floats
    tpr_samples: Floats

    def auc_interval(self, level: float = 0.95) -> tuple[float, float]:
        """Percentile interval of the AUC (see the module for perfect separation)."""
        low, high = _percentiles(self.auc_samples, level)
        value = self.roc.auc
        if high - low < 1e-12:
            trials = min(self.roc.n_members, self.roc.n_nonmembers)
            limits = binomial_limits(np.asarray(value * trials), trials, level)
            low, high = limits
        return min(float(low), value), max(float(high), value)

    def tpr_band(self, level: float = 0.95) -> tuple[Floats, Floats]:
        """Lower and upper TPR at every limit of `fprs`, each [limits]."""
        low, high = _percentiles(self.tpr_samples, level)
        vertices = [self.roc.vertex_at_fpr(fpr) for fpr in self.fprs]
        exact_low, exact_high = binomial_limits(self.roc.true_positives[vertices], self.roc.n_members, level)
        return np.minimum(low, exact_low), np.maximum(high, exact_high)

    def tpr_interval(self, fpr: float, level: float = 0.95) -> tuple[float, float]:
        """Interval of the TPR at one of the limits that were resampled.

        Raises:
            KeyError: The limit was not among `fprs`.
        """
        matches = np.flatnonzero(np.isclose(self.fprs, fpr, rtol=1e-9, atol=0.0))
        if not len(matches):
            raise KeyError(fpr)
        low, high = self.tpr_band(level)
        return float(low[matches[0]]), float(high[matches[0]])


def bootstrap(
    roc: Roc, fprs: NDArray[Any] | tuple[float, ...] | list[float], resamples: int = 1000, seed: int = 0
) -> Bootstrap:
    """Stratified bootstrap of the AUC and of the TPR at FPR limits (step definition, threshold recomputed).

    Args:
        roc: The curve.
        fprs: Limits in [0, 1], any order; the grid of a drawn band can stand among them.
        resamples: Number of resamples.
        seed: Seed; the same seed gives the same samples.
    """
    limits = np.asarray(fprs, dtype=np.float64)
    auc_rng, tpr_rng = np.random.default_rng(seed).spawn(2)
    return Bootstrap(
        roc=roc,
        auc_samples=_resample_auc(roc, resamples, auc_rng),
        fprs=limits,
        tpr_samples=resample_tpr(roc, limits, resamples, tpr_rng),
    )


def _percentiles(samples: Floats, level: float) -> tuple[Any, Any]:
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(samples, [tail, 1.0 - tail], axis=0)
    return low, high


def resample_tpr(roc: Roc, limits: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    """TPRs at limits of the FPR in bootstrap resamples of members and non-members: [resamples, limits]."""
    m, n = roc.n_members, roc.n_nonmembers
    allowed, position = np.unique(allowed_false_positives(limits, n), return_inverse=True)
    inner = allowed[allowed < n]
    rates = np.ones((resamples, len(allowed)))  # with n or more false positives allowed, everybody is called
    if len(inner):
        # The first non-member that must stay outside is the (allowed + 1)-th largest of the resample.
        steps = np.diff(inner + 1, prepend=0, append=n + 1).astype(np.float64)
        sums = np.cumsum(rng.standard_gamma(steps, size=(resamples, len(steps))), axis=1)
        ranks = np.minimum((n * (sums[:, :-1] / sums[:, -1:])).astype(np.int64), n - 1)
        vertex_of_rank = np.repeat(np.arange(len(roc.thresholds) - 1), np.diff(roc.false_positives))
        above = roc.true_positives[vertex_of_rank[ranks]]  # members strictly above that non-member
        shares = np.diff(above, axis=1, prepend=0, append=m) / m
        counts = rng.multinomial(m, shares)
        rates[:, : len(inner)] = np.cumsum(counts[:, :-1], axis=1) / m
    return np.asarray(rates[:, position.reshape(-1)])


def _resample_auc(roc: Roc, resamples: int, rng: np.random.Generator) -> Floats:
    m, n = roc.n_members, roc.n_nonmembers
    edges = _merged_edges(roc)
    inside, outside = np.diff(roc.true_positives[edges]), np.diff(roc.false_positives[edges])
    # Pairs won inside each merged bin, by the trapezoid over its own vertices.
    area = np.append(
        0.0, np.cumsum(0.5 * np.diff(roc.false_positives) * _sum_of_neighbours(roc.true_positives))
    )
    won = np.diff(area[edges]) - outside * roc.true_positives[edges[:-1]]
    pairs = inside * outside
    concordance = np.where(pairs > 0, won / np.maximum(pairs, 1), 0.5)
    members = rng.multinomial(m, inside / m, size=resamples).astype(np.float64)
    others = rng.multinomial(n, outside / n, size=resamples).astype(np.float64)
    above = np.cumsum(members, axis=1) - members
    return np.asarray(((above + members * concordance) * others).sum(axis=1) / (float(m) * n))


def _sum_of_neighbours(counts: Ints) -> Ints:
    return counts[1:] + counts[:-1]


def _merged_edges(roc: Roc) -> NDArray[np.intp]:
    vertices = len(roc.thresholds)
    if vertices <= _AUC_BINS + 1:
        return np.arange(vertices)
    # Bins of equal share of both sides together, so that neither side is crowded into a few.
    mass = roc.tpr + roc.fpr
    return np.unique(
        np.append(np.searchsorted(mass, np.linspace(0.0, 2.0, _AUC_BINS + 1)[:-1]), vertices - 1)
    )
