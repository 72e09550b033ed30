"""The one-run bound of epsilon, against published numbers, a naive sum, and audits whose truth is known."""

import math
from fractions import Fraction

import numpy as np
import pytest

from edgeprivacy.errors import DataError
from edgeprivacy.metrics.epsilon import default_guesses, one_run_audit, one_run_epsilon, one_run_p_value

PUBLISHED = [
    (100, 100, 100, 0.0, 3.493),
    (100, 100, 95, 0.0, 2.172),
    (1000, 1000, 600, 0.0, 0.2975),
    (500, 500, 450, 0.0, 1.947),
    (5000, 500, 450, 1e-5, 1.941),
    (5000, 5000, 3000, 0.0, 0.3576),
    (10000, 200, 200, 1e-5, 3.909),
]


def naive_p_value(m, r, v, q, delta):
    """Every term of the definition, in rationals."""
    mass = [math.comb(r, j) * q**j * (1 - q) ** (r - j) for j in range(r + 1)]
    beta = sum(mass[v:])
    if r > 100:  # sums of long rationals take minutes; these still add every term, exactly rounded
        mass = [float(term) for term in mass]
        beta = math.fsum(mass[v:])
    alpha = max((sum(mass[v - i : v]) / i for i in range(1, v + 1)), default=0)
    return float(min(beta + 2 * m * delta * alpha, 1))


@pytest.mark.parametrize(("m", "r", "v", "delta", "expected"), PUBLISHED)
def test_bounds_known_elsewhere(m, r, v, delta, expected):
    assert one_run_epsilon(m, r, v, delta) == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize("r", [1, 7, 40])
@pytest.mark.parametrize("delta", [Fraction(0), Fraction(1, 1000)])
def test_p_value_is_the_naive_sum(r, delta):
    for v in range(r + 1):
        for odds in (Fraction(1), Fraction(3, 2), Fraction(9)):
            expected = naive_p_value(50, r, v, odds / (1 + odds), delta)
            found = one_run_p_value(50, r, v, math.log(odds), float(delta))
            assert found == pytest.approx(expected, rel=1e-9, abs=1e-14)


@pytest.mark.parametrize("v", [900, 1499, 1620, 1800])
def test_p_value_with_many_guesses_is_the_naive_sum(v):
    expected = naive_p_value(3000, 2000, v, Fraction(3, 4), Fraction(1, 10**4))
    assert one_run_p_value(3000, 2000, v, math.log(3), 1e-4) == pytest.approx(expected, rel=1e-9, abs=1e-14)


@pytest.mark.parametrize("delta", [0.0, 1e-4, 1e-3])
def test_the_bound_is_where_the_p_value_crosses(delta):
    epsilon = one_run_epsilon(300, 200, 170, delta)
    assert epsilon > 0
    assert one_run_p_value(300, 200, 170, epsilon * (1 - 1e-6), delta) <= 0.05
    assert one_run_p_value(300, 200, 170, epsilon * (1 + 1e-6), delta) > 0.05


def test_nothing_shown_is_zero():
    assert one_run_epsilon(100, 100, 50) == 0.0
    assert one_run_epsilon(100, 0, 0) == 0.0
    assert one_run_epsilon(100, 4, 4) == 0.0  # 1/16 is above 5 %
    assert one_run_epsilon(10_000, 100, 90, delta=0.01) == 0.0


def coins_and_scores(rng, m, epsilon):
    """Randomized response: the score is the coin, told truly with probability e^eps / (1 + e^eps)."""
    coins = rng.random(m) < 0.5
    truthful = rng.random(m) < 1 / (1 + math.exp(-epsilon))
    return np.where(truthful, coins, ~coins).astype(np.float64), coins


@pytest.mark.parametrize("search", ["fixed", "split", "bonferroni"])
@pytest.mark.parametrize("delta", [0.0, 1e-5])
def test_randomized_response_is_not_overestimated(search, delta):
    # Delta is 0 in truth, so a bound for any delta must stay below epsilon as well.
    truth, audits, rng = 1.0, 200, np.random.default_rng(11)
    found = []
    for index in range(audits):
        scores, coins = coins_and_scores(rng, 400, truth)
        pairs = [(120, 120)] if search == "fixed" else None
        found.append(
            one_run_audit(
                scores,
                coins,
                drawn="independent_coins",
                candidates=pairs,
                search=search,
                delta=delta,
                seed=index,
            ).epsilon
        )
    # At most 5 % in expectation; 19 of 200 or more has probability 0.5 % at exactly 5 %.
    assert sum(value > truth for value in found) <= 18
    assert np.median(found) > 0.4  # and it does find something


def test_privacy_that_fails_with_probability_delta_is_not_overestimated():
    # Randomized response that gives one canary in fifty away: (1, 0.02)-DP, and the attack goes for these.
    truth, delta, rng, found, without = 1.0, 0.02, np.random.default_rng(12), [], []
    for _ in range(200):
        scores, coins = coins_and_scores(rng, 300, truth)
        given = rng.random(300) < delta
        scores[given] = np.where(coins[given], 2.0, -1.0)
        options = {"drawn": "independent_coins", "candidates": [(5, 5)], "search": "fixed"}
        found.append(one_run_audit(scores, coins, delta=delta, **options).epsilon)
        without.append(one_run_audit(scores, coins, **options).epsilon)
    assert sum(value > truth for value in found) <= 18
    assert sum(value > truth for value in without) > 18  # what delta is for


def test_the_bound_is_nearly_tight_for_randomized_response():
    scores, coins = coins_and_scores(np.random.default_rng(3), 20_000, 1.0)
    audit = one_run_audit(
        scores, coins, drawn="independent_coins", candidates=[(8000, 8000)], search="fixed", delta=0.0
    )
    assert 0.9 < audit.epsilon < 1.0


@pytest.mark.parametrize("search", ["split", "bonferroni"])
def test_the_search_is_paid_for(search):
    rng, above = np.random.default_rng(5), 0
    for index in range(200):
        coins = rng.random(60) < 0.5
        audit = one_run_audit(
            rng.normal(size=60),
            coins,
            drawn="independent_coins",
            candidates=[(k, k) for k in range(3, 15)],
            search=search,
            seed=index,
        )
        assert audit.n_candidates == 12
        assert audit.n_canaries == (30 if search == "split" else 60)
        above += audit.epsilon > 0
    assert above <= 18


def test_equal_scores_do_not_tell_the_order_of_the_rows():
    coins = np.arange(1000) < 500
    audit = one_run_audit(
        np.zeros(1000), coins, drawn="independent_coins", candidates=[(200, 200)], search="fixed"
    )
    assert 150 < audit.correct < 250
    assert audit.epsilon < 0.3


def test_guesses_are_the_extremes():
    coins = np.array([True, False, True, False, True, True])
    audit = one_run_audit(
        [6.0, 5.0, 4.0, 3.0, 2.0, 1.0], coins, drawn="independent_coins", candidates=[(2, 3)], search="fixed"
    )
    assert (audit.guessed_in, audit.guessed_out, audit.correct) == (2, 3, 2)


@pytest.mark.parametrize("drawn", ["fixed_halves", "given_split", "unknown", "of course"])
def test_other_than_coins_is_refused(drawn):
    with pytest.raises(DataError, match="independent fair coins"):
        one_run_audit([1.0, 2.0], [True, False], drawn=drawn)


def test_what_does_not_fit_is_refused():
    scores, coins = np.arange(200.0), np.arange(200) % 2 == 0
    with pytest.raises(DataError, match="fair coins"):
        one_run_audit(scores, scores < 20, drawn="independent_coins")
    with pytest.raises(DataError, match="one pair"):
        one_run_audit(scores, coins, drawn="independent_coins", search="fixed")
    with pytest.raises(DataError, match="fit the canaries"):
        one_run_audit(scores, coins, drawn="independent_coins", candidates=[(60, 60)], search="split")
    with pytest.raises(DataError, match="level"):
        one_run_audit(scores, coins, drawn="independent_coins", level=1.0)
    with pytest.raises(DataError, match="delta"):
        one_run_epsilon(10, 10, 10, delta=1.0)
    with pytest.raises(DataError, match="do not fit"):
        one_run_p_value(10, 11, 5, 1.0)


def test_default_guesses_fit():
    for m in (2, 3, 9, 100, 50_000):
        assert all(0 < i + o <= m for i, o in default_guesses(m))
        assert default_guesses(m)
