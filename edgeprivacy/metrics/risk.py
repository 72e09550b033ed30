"""A record's risk: how probable it is, given what the attack saw, that the record was a member.

An attack's log-likelihood ratio and a prior give the posterior log odds, llr + logit(prior). Song & Mittal
(USENIX Security 2021) call this probability the privacy risk score and take it from histograms. It must be
checked before anybody is told it: `reliability` compares it with how often records were members, and
`Recalibration`, fitted on shadow models, mends it. LiRA's ratios need that: Gaussians fitted to few shadows
are too sure of themselves in the tails.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from edgeprivacy.errors import DataError
from edgeprivacy.metrics.intervals import binomial_limits
from edgeprivacy.metrics.roc import Bools, Floats, Ints, check_scores

_METHODS = ("logistic", "isotonic")


def posterior(log_ratios: NDArray[Any], prior: float = 0.5) -> Floats:
    """P(member | what the attack saw) = sigmoid(llr + logit(prior)), float64 shaped as `log_ratios`.

    Args:
        log_ratios: log p(seen | member) - log p(seen | not a member), natural logarithm; may be infinite.
        prior: Probability that a record is a member before anything is seen, inside (0, 1).

    Raises:
        DataError: A ratio is no number, or the prior is 0, 1 or no probability.
    """
    values = np.asarray(log_ratios, dtype=np.float64)
    _check_prior(prior)
    if np.isnan(values).any():
        raise DataError("a log ratio is not a number", got=f"{int(np.isnan(values).sum())} of them")
    return np.asarray(expit(values + logit(prior)), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Reliability:
    """Predicted and observed shares of members, bin by bin; only bins with records stand here.

    Attributes:
        predicted: float64 [bins], mean risk of the bin's records, rising.
        observed: float64 [bins], share of members among them.
        low, high: float64 [bins], Clopper-Pearson limits of the observed share, each bin at `bin_level`.
        records: int64 [bins].
        level: Confidence that all bins hold together, were records independent.
        bin_level: 1 - (1 - level) / bins.
        expected_error: Expected calibration error: mean of |predicted - observed| weighted by records. It is
            above 0 for a perfect predictor too, by noise; see `error_by_chance`.
        error_by_chance: Mean expected calibration error that a perfect predictor with these risks would show
            on so many records, by simulation.
        outside: Bins whose predicted mean lies outside their limits.
    """

    predicted: Floats
    observed: Floats
    low: Floats
    high: Floats
    records: Ints
    level: float
    bin_level: float
    expected_error: float
    error_by_chance: float
    outside: int


def reliability(
    risks: NDArray[Any], members: NDArray[Any], bins: int = 10, level: float = 0.95, seed: int = 0
) -> Reliability:
    """Compares risks with membership in bins of equal numbers of records.

    Equal numbers, because risks crowd at 0, at 1 and at the prior: bins of equal width would leave most of
    them empty. Records of equal risk share a bin, so bins can be fewer and larger than asked for. The risks
    hold for one prior; the share of members in `members` must be that prior.

    Args:
        risks: float [records] in [0, 1].
        members: bool [records], both kinds present.
        bins: Number of bins, at least 1.
        level: Confidence in (0, 1).
        seed: Of the simulation behind `error_by_chance`.

    Raises:
        DataError: A risk lies outside [0, 1], shapes differ, members or non-members are missing, or there are
            no bins.
    """
    values, truth = check_scores(risks, members)
    if (values < 0).any() or (values > 1).any():
        raise DataError("a risk is a probability", got=f"{values.min()} to {values.max()}", allowed="0 to 1")
    if bins < 1 or not 0.0 < level < 1.0:
        raise DataError("bins or level out of range", got=f"{bins}, {level}")
    ordered = np.sort(values)
    edges = np.unique(ordered[(np.arange(1, bins) * len(ordered)) // bins])
    _, which, records = np.unique(
        np.searchsorted(edges, values, "right"), return_inverse=True, return_counts=True
    )
    predicted = np.bincount(which, weights=values) / records
    found = np.bincount(which, weights=truth)
    bin_level = 1.0 - (1.0 - level) / len(records)
    limits = [binomial_limits(np.asarray(k), int(n), bin_level) for k, n in zip(found, records, strict=True)]
    low, high = np.array([limit[0] for limit in limits]), np.array([limit[1] for limit in limits])
    rng = np.random.default_rng(seed)
    chance = [
        _error(predicted, np.bincount(which, rng.random(len(values)) < values), records) for _ in range(50)
    ]
    return Reliability(
        predicted=predicted,
        observed=found / records,
        low=low,
        high=high,
        records=records.astype(np.int64),
        level=level,
        bin_level=bin_level,
        expected_error=_error(predicted, found, records),
        error_by_chance=float(np.mean(chance)),
        outside=int(((predicted < low) | (predicted > high)).sum()),
    )


class Recalibration:
    """A monotone map from log-likelihood ratios to risks, fitted where membership is known: on shadow models.

    "logistic" is Platt's a * llr + b without a penalty and with a >= 0; "isotonic" is the map of pooled
    adjacent violators, which needs hundreds of pairs and is flat beyond those it saw. Both are kept as log
    odds at equal prior, so any prior can be asked for. Isotonic risks of exactly 0 and 1 are moved to half a
    pair's share: no number of pairs shows impossibility.
    """

    def __init__(
        self,
        log_ratios: NDArray[Any],
        members: NDArray[Any],
        method: Literal["logistic", "isotonic"] = "logistic",
    ) -> None:
        """Fits the map.

        Args:
            log_ratios: float [pairs], finite, of (shadow model, record) pairs. They must come from the way
                the target is scored: each shadow scored by the *other* shadows.
            members: bool [pairs], both kinds present.
            method: "logistic" or "isotonic".

        Raises:
            DataError: Pairs do not fit, or the method is unknown.
        """
        from sklearn.isotonic import IsotonicRegression

        values, truth = check_scores(log_ratios, members)
        if method not in _METHODS:
            raise DataError("unknown method of recalibration", got=method, allowed=" or ".join(_METHODS))
        self.method = method
        self.pairs = len(values)
        # Both kinds weigh the same in all, so that the fitted odds are those at prior one half.
        weights = np.where(truth, 0.5 / truth.sum(), 0.5 / (~truth).sum()) * len(truth)
        if method == "logistic":
            self._fit_logistic(values, truth, weights)
        else:
            fitted = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
            self._isotonic = fitted.fit(values, truth.astype(np.float64), sample_weight=weights)

    def _fit_logistic(self, values: Floats, truth: Bools, weights: Floats) -> None:
        # Standardised, since ratios run from tenths to millions and the solver is not free of scale.
        from sklearn.linear_model import LogisticRegression

        self._centre, self._scale = float(np.median(values)), float(values.std()) or 1.0
        scaled = (values - self._centre) / self._scale
        fitted = LogisticRegression(C=1e9, max_iter=1000).fit(scaled[:, None], truth, sample_weight=weights)
        slope = float(fitted.coef_[0, 0])
        # A falling map says that the ratios carry nothing (or are upside down): then all risks are the prior.
        self._slope, self._offset = (slope, float(fitted.intercept_[0])) if slope > 0 else (0.0, 0.0)

    def __call__(self, log_ratios: NDArray[Any], prior: float = 0.5) -> Floats:
        """Risks float64 [records] of ratios [records], for a share `prior` of members.

        Raises:
            DataError: A ratio is no number, or the prior is out of range.
        """
        values = np.asarray(log_ratios, dtype=np.float64)
        if np.isnan(values).any():
            raise DataError("a log ratio is not a number", got=f"{int(np.isnan(values).sum())} of them")
        if self.method == "logistic":
            # Nothing infinite is multiplied by a slope of zero.
            odds = (
                self._slope * ((np.clip(values, -1e300, 1e300) - self._centre) / self._scale) + self._offset
            )
        else:
            least = 0.5 / self.pairs
            odds = logit(np.clip(self._isotonic.predict(np.clip(values, -1e300, 1e300)), least, 1.0 - least))
        return posterior(odds, prior)


def _error(predicted: Floats, found: NDArray[Any], records: Ints) -> float:
    return float(np.abs(predicted * records - found).sum() / records.sum())


def _check_prior(prior: float) -> None:
    if not 0.0 < prior < 1.0:
        raise DataError("a prior lies inside 0 and 1", got=prior, allowed="above 0, below 1")
