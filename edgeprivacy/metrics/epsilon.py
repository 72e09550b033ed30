"""A lower bound of differential privacy's epsilon from one trained model.

Steinke, Nasr, Jagielski, "Privacy Auditing with One (1) Training Run", NeurIPS 2023, arXiv 2305.08846. Every
one of m canaries is put into the training data by its own fair coin. An attack that sees the model (and not
the coins) guesses "in" for some canaries, "out" for others, and abstains on the rest. If training is
(epsilon, delta)-DP and r guesses were made, the number V of correct ones obeys

    P[V >= v] <= p(epsilon) = beta + 2 m delta alpha,
    beta = P[Bin(r, q) >= v],  alpha = max_{1 <= i <= v} P[v - i <= Bin(r, q) < v] / i,
    q = exp(epsilon) / (1 + exp(epsilon))

(section 5 there, in the form of the code published with it). The largest epsilon with p(epsilon) not above
1 - level is a lower bound at that level.

The bound rests on the coins: where membership was drawn otherwise it is refused. It rests as well on a number
of guesses that did not look at the answers: it is fixed beforehand, chosen on other canaries, or paid for by
Bonferroni. The largest bound over several numbers of guesses, uncorrected, is not on offer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, betainc, betaincinv, expit, logit

from edgeprivacy.errors import DataError
from edgeprivacy.metrics.roc import Bools, Floats, check_scores

Draw = Literal["independent_coins", "fixed_halves", "given_split", "unknown"]
Search = Literal["fixed", "split", "bonferroni"]
Guesses = tuple[int, int]

REFUSED = {
    "fixed_halves": "a split into sets of fixed size ties the membership of every row to all the others'",
    "given_split": "the split came with the data, and was not drawn by anybody who could say how",
    "unknown": "nobody said how membership was drawn",
}
_UNFAIR = 1e-9  # coins that fall like this once in a thousand million audits were not fair


def one_run_p_value(n_canaries: int, guesses: int, correct: int, epsilon: float, delta: float = 0.0) -> float:
    """Largest probability, under (epsilon, delta)-DP, of as many correct guesses as were seen.

    Args:
        n_canaries: Canaries m, those on which the attack abstained among them.
        guesses: Guesses r made, 0 <= r <= m.
        correct: Correct guesses v, 0 <= v <= r.
        epsilon: The hypothesis, >= 0.
        delta: The hypothesis, in [0, 1).

    Raises:
        DataError: A number is out of its range.
    """
    _check(n_canaries, guesses, correct, delta)
    if not epsilon >= 0:
        raise DataError("epsilon is not negative", got=epsilon, allowed="0 or more")
    return _p_value(n_canaries, guesses, correct, epsilon, delta)


def one_run_epsilon(
    n_canaries: int, guesses: int, correct: int, delta: float = 0.0, level: float = 0.95
) -> float:
    """Lower bound of epsilon, >= 0, at confidence `level`: sup of all epsilon with p(epsilon) <= 1 - level.

    Without delta this is the logit of the one-sided Clopper-Pearson limit of v/r; with delta it is bisected
    below that value to 1e-9. The number of guesses must not depend on the answers (see `one_run_audit`).

    Raises:
        DataError: A number is out of its range.
    """
    _check(n_canaries, guesses, correct, delta)
    _check_level(level)
    error = 1.0 - level
    if correct == 0 or betainc(correct, guesses - correct + 1, 0.5) > error:
        return 0.0
    high = float(logit(betaincinv(correct, guesses - correct + 1, error)))
    if delta == 0.0:
        return max(high, 0.0)
    low = 0.0
    while high - low > 1e-9:
        middle = 0.5 * (low + high)
        if _p_value(n_canaries, guesses, correct, middle, delta) <= error:
            low = middle
        else:
            high = middle
    return low if _p_value(n_canaries, guesses, correct, low, delta) <= error else 0.0


@dataclass(frozen=True)
class OneRunAudit:
    """A lower bound of epsilon and all that it rests on.

    Attributes:
        epsilon: Lower bound, >= 0; 0 says that nothing was shown.
        delta: The delta it holds for.
        level: Confidence, after any correction.
        n_canaries: Canaries that were measured (with a split, those of the second half).
        guessed_in, guessed_out: How many of the highest and of the lowest scores were guessed.
        correct: Correct guesses among them.
        search: How the number of guesses was chosen.
        n_candidates: How many pairs of numbers of guesses were looked at.
    """

    epsilon: float
    delta: float
    level: float
    n_canaries: int
    guessed_in: int
    guessed_out: int
    correct: int
    search: Search
    n_candidates: int


def one_run_audit(
    scores: NDArray[Any],
    members: NDArray[Any],
    *,
    drawn: Draw,
    candidates: Sequence[Guesses] | None = None,
    search: Search = "split",
    delta: float = 0.0,
    level: float = 0.95,
    seed: int = 0,
) -> OneRunAudit:
    """Lower bound of epsilon from the scores of canaries in one model.

    Args:
        scores: float [canaries], higher means member. They may depend on the model, the canaries and models
            trained on other coins; never on these coins.
        members: bool [canaries], how the coins fell.
        drawn: How membership was drawn; only "independent_coins" (fair, one for each canary) is accepted.
        candidates: Pairs (guesses of "in", guesses of "out") to choose from. "fixed" takes exactly one.
            Without any, "split" and "bonferroni" try `default_guesses` of the canaries they measure.
        search: "fixed": the pair was set before anything was seen. "split": the best pair on a random half of
            the canaries is measured on the other half alone, whose coins are still fair given the first's.
            "bonferroni": all candidates on all canaries, each at 1 - (1 - level) / candidates.
        delta: In [0, 1).
        level: Confidence in (0, 1).
        seed: Of the split and of the order of equal scores, which must not follow the order of the rows.

    Raises:
        DataError: Membership was not drawn by coins or does not look so, or what is given does not fit.
    """
    from scipy.stats import binomtest

    if drawn != "independent_coins":
        raise DataError(
            "a one-run bound of epsilon needs membership by independent fair coins: "
            + REFUSED.get(drawn, REFUSED["unknown"]),
            got=drawn,
            allowed="independent_coins",
            hint="put every canary into the training data by its own coin, and audit those rows",
        )
    values, truth = check_scores(scores, members)
    _check_level(level)
    if binomtest(int(truth.sum()), len(truth), 0.5).pvalue < _UNFAIR:
        raise DataError(
            "membership does not look like fair coins", got=f"{int(truth.sum())} members of {len(truth)} rows"
        )
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(values))
    values, truth = values[order], truth[order]
    half = len(values) // 2 if search == "split" else 0
    measured_on = len(values) - half
    pairs = list(candidates) if candidates is not None else list(default_guesses(measured_on))
    if not pairs or (search == "fixed" and (candidates is None or len(pairs) != 1)):
        raise DataError("a fixed number of guesses is one pair", got=f"{len(pairs)} candidates")
    if any(min(pair) < 0 or sum(pair) < 1 or sum(pair) > (half or measured_on) for pair in pairs):
        raise DataError("guesses must fit the canaries", got=pairs, allowed=f"1 to {half or measured_on}")
    if search == "split":
        seen = _correct(values[:half], truth[:half], pairs)
        bounds = [one_run_epsilon(half, sum(p), v, delta, level) for p, v in zip(pairs, seen, strict=True)]
        # Where no candidate shows anything, the one furthest above guessing is still the best bet.
        lifts = [(v - sum(p) / 2) / math.sqrt(sum(p)) for p, v in zip(pairs, seen, strict=True)]
        chosen = [pairs[max(range(len(pairs)), key=lambda i: (bounds[i], lifts[i]))]]
        values, truth, each = values[half:], truth[half:], level
    else:
        chosen, each = pairs, 1.0 - (1.0 - level) / len(pairs)
    counts = _correct(values, truth, chosen)
    m = len(values)
    bounds = [one_run_epsilon(m, sum(p), v, delta, each) for p, v in zip(chosen, counts, strict=True)]
    best = int(np.argmax(bounds))
    return OneRunAudit(
        epsilon=bounds[best],
        delta=delta,
        level=level,
        n_canaries=m,
        guessed_in=chosen[best][0],
        guessed_out=chosen[best][1],
        correct=counts[best],
        search=search,
        n_candidates=len(pairs),
    )


def default_guesses(n_canaries: int, steps: int = 8) -> tuple[Guesses, ...]:
    """Up to `steps` pairs, evenly spaced on a logarithmic axis: as many "in" as "out", to a third of all."""
    largest = max(n_canaries // 3, 1)
    sizes = np.unique(np.geomspace(min(5, largest), largest, steps).astype(np.int64))
    return tuple((int(k), int(k)) for k in sizes if 2 * k <= n_canaries)


def _correct(values: Floats, truth: Bools, pairs: Sequence[Guesses]) -> list[int]:
    found = np.append(0, np.cumsum(truth[np.argsort(-values, kind="stable")]))
    rows = len(values)
    return [int(found[i] + o - (found[rows] - found[rows - o])) for i, o in pairs]


def _p_value(m: int, r: int, v: int, epsilon: float, delta: float) -> float:
    q = float(expit(epsilon))
    beta = float(betainc(v, r - v + 1, q)) if v else 1.0
    if delta == 0.0 or v == 0:
        return min(beta, 1.0)
    return min(beta + 2.0 * m * delta * _largest_mean_mass(r, v, q), 1.0)


def _largest_mean_mass(r: int, v: int, q: float) -> float:
    """max over i of P[v - i <= Bin(r, q) < v] / i.

    The mass rises to its mode and falls after it, so the mean over [v - i, v - 1] grows with i until it is
    past the mode: nothing above the mode need be tried, nor anything twelve deviations below it.
    """
    from scipy.stats import binom

    mode = min(int((r + 1) * q), r)
    if v - 1 <= mode:
        return float(binom.pmf(v - 1, r, q))
    reach = int(12.0 * math.sqrt(r * q * (1.0 - q))) + 12
    lows = np.arange(mode, max(mode - reach, 0) - 1, -1)
    sums = np.cumsum(binom.pmf(lows, r, q)) + float(bdtr(v - 1, r, q) - bdtr(mode, r, q))
    return float((sums / (v - lows)).max())


def _check(m: int, r: int, v: int, delta: float) -> None:
    if not 0 <= v <= r <= m:
        raise DataError(
            "correct guesses, guesses and canaries do not fit",
            got=f"{v}, {r}, {m}",
            allowed="0 <= v <= r <= m",
        )
    if not 0.0 <= delta < 1.0:
        raise DataError("delta is a probability", got=delta, allowed="0 or more, below 1")


def _check_level(level: float) -> None:
    if not 0.0 < level < 1.0:
        raise DataError("a confidence level lies between 0 and 1", got=level, allowed="above 0, below 1")
