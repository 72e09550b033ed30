"""An interval of the AUC without resampling (DeLong, DeLong, Clarke-Pearson, Biometrics 1988).

For many slices at once: a corrected interval lies so far out in the tails that a percentile bootstrap would
need tens of thousands of resamples a slice. Limits are taken on the log odds of the AUC, which keeps them
inside 0 and 1 and their coverage close to nominal for high AUCs (Pepe, "The Statistical Evaluation of Medical
Tests for Classification and Prediction", 2003).
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit, logit, ndtri

from edgeprivacy.metrics.intervals import binomial_limits
from edgeprivacy.metrics.roc import Floats, Ints, Roc


def auc_variance(roc: Roc) -> float:
    """DeLong's variance of the AUC: that of the members' placements among non-members and vice versa.

    0 where every placement is the same (perfect separation, or all scores equal) and with a single row on a
    side, where there is no estimate of it.
    """
    members, others = np.diff(roc.true_positives), np.diff(roc.false_positives)
    # Placement: the share of the other side that is beaten, ties one half; equal for rows of equal score.
    of_members = 1.0 - 0.5 * (roc.fpr[1:] + roc.fpr[:-1])
    of_others = 0.5 * (roc.tpr[1:] + roc.tpr[:-1])
    return _variance_of_mean(of_members, members) + _variance_of_mean(of_others, others)


def auc_limits(roc: Roc, level: float = 0.95) -> tuple[float, float]:
    """Interval of the AUC, inside [0, 1] and around the observed value.

    Where the variance is 0, the limits are binomial on as many trials as the smaller side has rows (see
    `edgeprivacy.metrics.intervals`).
    """
    value, deviation = roc.auc, float(np.sqrt(auc_variance(roc)))
    if deviation < 1e-12 or not 0.0 < value < 1.0:
        trials = min(roc.n_members, roc.n_nonmembers)
        low, high = binomial_limits(np.asarray(value * trials), trials, level)
        return min(float(low), value), max(float(high), value)
    reach = float(ndtri(0.5 + level / 2.0)) * deviation / (value * (1.0 - value))
    return float(expit(logit(value) - reach)), float(expit(logit(value) + reach))


def _variance_of_mean(placements: Floats, counts: Ints) -> float:
    n = int(counts.sum())
    if n < 2:
        return 0.0
    mean = float((placements * counts).sum()) / n
    return float((counts * (placements - mean) ** 2).sum()) / (n - 1) / n
