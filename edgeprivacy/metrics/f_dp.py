"""Gaussian differential privacy: what an attack's rates, or one training run, say of its parameter mu.

Training is f-DP if no attack with false-positive rate x has a false-negative rate below f(x); it is mu-GDP
for f(x) = Phi(Phi^-1(1 - x) - mu) (Dong, Roth, Su, JRSS B 2022, arXiv 1905.02383, section 2.2).

One run (Mahloujifar, Melis, Chaudhuri, "Auditing f-Differential Privacy in One Run", ICML 2025, arXiv
2410.22235). m canaries are in or out by independent fair coins; k of them are guessed, V correctly. Write
F(x) = 1 - f(x). Exchange the coin of one canary, drawn at random: given the other coins, "guessed rightly,
and V = i" becomes "guessed wrongly, and V = i - 1". As F is concave, every c then has

    sum_{i >= c} (i / m) P[V = i]  <=  F( sum_{i >= c} ((k - i + 1) / m) P[V = i - 1] ).

If P[V >= v] were tau or more, these inequalities force mass on v - 1, on v - 2 and so on; where it adds up to
more than 1, P[V >= v] < tau is proved and the hypothesis is rejected at level 1 - tau.

What is verified: the inequality above was derived here (the paper's own statement was not compared), the
recursion is that of the code published with the paper, and the tests hold it against a linear program of the
same inequalities. That all of the tail's mass may be taken to lie at v is inferred from that program, which
does not assume it, and not proved here. With many abstentions the bound is loose: it does not use that the
attack guesses at the extremes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, ndtr, ndtri

from edgeprivacy.errors import DataError
from edgeprivacy.metrics.intervals import binomial_limits
from edgeprivacy.metrics.roc import Floats

# For gaussian canaries mu = 40 is no privacy at all: epsilon is above 700 and out of float64.
_LARGEST_MU = 40.0
_GRID, _ROUNDS = 33, 4


def gaussian_mu(tpr: float | NDArray[Any], fpr: float | NDArray[Any]) -> Floats:
    """mu of the Gaussian trade-off curve through (FPR, TPR): Phi^-1(TPR) - Phi^-1(FPR), shaped as they are.

    An estimate of the attack at this point, without any limit; infinite where a rate is 0 or 1 on its good
    side, negative below chance.

    Raises:
        DataError: A rate lies outside [0, 1], or both are 0 or both are 1, where no curve is singled out.
    """
    hits, alarms = np.asarray(tpr, dtype=np.float64), np.asarray(fpr, dtype=np.float64)
    if not ((hits >= 0) & (hits <= 1) & (alarms >= 0) & (alarms <= 1)).all():
        raise DataError("a rate lies between 0 and 1", got=f"TPR {tpr}, FPR {fpr}")
    if ((hits == alarms) & ((hits == 0) | (hits == 1))).any():
        raise DataError("every curve passes through FPR = TPR = 0 and 1", got=f"TPR {tpr}, FPR {fpr}")
    return np.asarray(ndtri(hits) - ndtri(alarms), dtype=np.float64)


def gaussian_mu_of_counts(
    true_positives: int | NDArray[Any],
    n_members: int,
    false_positives: int | NDArray[Any],
    n_nonmembers: int,
    level: float = 0.95,
) -> Floats:
    """`gaussian_mu` at Clopper-Pearson limits, Phi^-1(1 - FPR_high) - Phi^-1(FNR_high), at least 0.

    Like attack strength in epsilon units it is no bound of differential privacy for rows of one model, and
    the threshold must not have looked at the answers (`edgeprivacy.metrics.attack_epsilon`). Each limit fails
    with probability (1 - level) / 2.

    Raises:
        DataError: There are no rows on a side, or a count lies outside its rows.
    """
    found, alarms = np.asarray(true_positives), np.asarray(false_positives)
    if (
        min(n_members, n_nonmembers) < 1
        or np.any((found < 0) | (found > n_members))
        or np.any((alarms < 0) | (alarms > n_nonmembers))
    ):
        raise DataError("counts of positives do not fit their rows", allowed="0 to the number of rows")
    low, high = binomial_limits(found, n_members, level)[0], binomial_limits(alarms, n_nonmembers, level)[1]
    # With no hit, or with nothing but alarms, the limit is the end of the axis and shows nothing.
    mu = np.where((low > 0) & (high < 1), ndtri(np.where(low > 0, low, 0.5)) - ndtri(high), 0.0)
    return np.asarray(np.maximum(mu, 0.0), dtype=np.float64)


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Smallest epsilon >= 0 for which mu-GDP implies (epsilon, delta)-DP (Dong et al. 2022, section 2.4).

    delta(epsilon) = Phi(-epsilon/mu + mu/2) - e^epsilon Phi(-epsilon/mu - mu/2), solved by bisection to 1e-9.

    Raises:
        DataError: mu is not in [0, 40], or delta is not inside (0, 1).
    """
    if not 0.0 <= mu <= _LARGEST_MU or not 0.0 < delta < 1.0:
        raise DataError("mu or delta is out of range", got=f"{mu}, {delta}", allowed="0 to 40, inside 0 to 1")

    def spent(epsilon: float) -> float:
        left = ndtr(-epsilon / mu + mu / 2)
        return float(left - np.exp(epsilon + log_ndtr(-epsilon / mu - mu / 2)))

    if mu == 0.0 or spent(0.0) <= delta:
        return 0.0
    low, high = 0.0, 1.0
    while spent(high) > delta:
        low, high = high, 2.0 * high
    while high - low > 1e-9 * max(high, 1.0):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if spent(middle) > delta else (low, middle)
    return high


def one_run_rejects(
    n_canaries: int,
    guesses: int,
    correct: int,
    inverse: Callable[[Floats], Floats],
    level: float = 0.95,
    hypotheses: int = 1,
) -> NDArray[np.bool_]:
    """Whether as many correct guesses reject f-DP at confidence `level`, for several f at once.

    Args:
        n_canaries: Canaries m by independent fair coins.
        guesses: Guesses k made, chosen without looking at the coins, 0 <= k <= m.
        correct: Correct guesses v, 0 <= v <= k.
        inverse: F^-1, the inverse of 1 - f, from float64 [hypotheses] to the same; F must be concave and f
            symmetric.
        level: Confidence in (0, 1).
        hypotheses: How many f `inverse` treats at once.

    Returns:
        bool [hypotheses]

    Raises:
        DataError: Counts do not fit, or the level is out of its range.
    """
    if not 0 <= correct <= guesses <= n_canaries or n_canaries < 1:
        raise DataError(
            "correct guesses, guesses and canaries do not fit", got=f"{correct}, {guesses}, {n_canaries}"
        )
    if not 0.0 < level < 1.0:
        raise DataError("a confidence level lies between 0 and 1", got=level)
    tau, available = 1.0 - level, guesses / n_canaries
    # Mass of right guesses and of wrong guesses where i or more are correct, as a share of all canaries.
    right = np.full(hypotheses, tau * correct / n_canaries)
    wrong = np.full(hypotheses, tau * (guesses - correct) / n_canaries)
    if correct == 0:
        return np.zeros(hypotheses, dtype=np.bool_)  # P[V >= 0] is 1
    for i in range(correct - 1, -1, -1):
        # Once it is more than there is it stays so; the cap only keeps the argument of F^-1 a probability.
        needed = np.maximum(wrong, inverse(np.minimum(right, 1.0)))
        right = right + i / (guesses - i) * (needed - wrong)
        wrong = needed
        if i % 64 == 0 and bool((right + wrong > available).all()):
            break
    return np.asarray(right + wrong > available)


def one_run_gaussian_mu(n_canaries: int, guesses: int, correct: int, level: float = 0.95) -> float:
    """Lower bound of mu, >= 0, from one run: the largest mu below which every mu-GDP is rejected, to 4e-5.

    Needs independent coins and a number of guesses that did not look at them, as
    `edgeprivacy.metrics.epsilon.one_run_audit` does. Time is linear in `correct` (25 000: about a second).

    Raises:
        DataError: Counts do not fit, or the level is out of its range.
    """
    low, high = 0.0, _LARGEST_MU
    for _ in range(_ROUNDS):
        grid = np.linspace(low, high, _GRID)
        rejected = one_run_rejects(
            n_canaries, guesses, correct, _gaussian_inverse(grid), level, hypotheses=len(grid)
        )
        kept = int(np.argmin(rejected)) if not rejected.all() else len(grid) - 1
        if kept == 0:
            return 0.0
        low, high = float(grid[kept - 1]), float(grid[kept])
    return low


def _gaussian_inverse(mu: Floats) -> Callable[[Floats], Floats]:
    def inverse(mass: Floats) -> Floats:
        return np.asarray(ndtr(ndtri(mass) - mu), dtype=np.float64)

    return inverse
