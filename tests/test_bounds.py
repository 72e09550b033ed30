"""Bounds, risks and slices of an artifact: which attack they are of, and that they say what is true."""

import numpy as np
import pytest

from edgeprivacy.attacks import Population, Signals, attacks, score_target
from edgeprivacy.bounds import LIKELIHOOD_RATIOS, ORDER, chosen_attack, measure_bounds
from edgeprivacy.metrics.epsilon import one_run_epsilon
from edgeprivacy.metrics.risk import posterior, reliability

ROWS, CLASSES = 800, 4


def make(gain, models=9, seed=0, rows=ROWS):
    """Models that are surer of their members by `gain`."""
    rng = np.random.default_rng(seed)
    members = rng.random((models, rows)) < 0.5
    labels = rng.integers(0, CLASSES, rows)
    logits = rng.normal(size=(models, rows, CLASSES)) + rng.normal(size=(1, rows, CLASSES))
    logits[:, np.arange(rows), labels] += 1.0 + gain * members
    shares = np.exp(logits)
    shares = (shares / shares.sum(axis=2, keepdims=True)).astype(np.float32)
    population = Population(shares[:, :50], labels[:50], 1e-7)
    return Signals(shares, labels, members, np.ones_like(members), 1e-7, population)


def bounds_of(
    signals, drawn="independent_coins", names=("loss", "lira.online", "lira.online.global"), seed=0
):
    name = chosen_attack(signals, names)
    return measure_bounds(signals, name, score_target(attacks[name], signals).values, drawn, 200, seed)


def test_the_attack_is_the_first_of_the_order_that_can_run():
    signals = make(1.0)
    assert chosen_attack(signals, ("loss", "lira.online", "nn")) == "lira.online"
    assert chosen_attack(signals, ("loss", "lira.online.global", "lira.online")) == "lira.online.global"
    few = make(1.0, models=2)
    assert chosen_attack(few, ("loss", "lira.online", "rmia.offline")) == "rmia.offline"
    assert chosen_attack(few, ("lira.online",)) is None and chosen_attack(few, ("nn", "confidence")) is None
    assert set(LIKELIHOOD_RATIOS) <= set(ORDER) <= set(attacks.names())
    assert not any(attacks[name].needs.calibration for name in ORDER), (
        "a bound forbids learning from the rows"
    )


def test_a_leaking_model_is_bounded_from_below_and_an_honest_one_hardly_ever():
    leaking, _ = bounds_of(make(3.0))
    assert leaking.one_run.not_run is None
    assert leaking.one_run.epsilon > 1 and leaking.one_run.mu > 0.5 and leaking.strength.epsilon > 1
    found = leaking.one_run
    assert found.epsilon == pytest.approx(
        one_run_epsilon(found.canaries, found.guesses, found.correct), abs=1e-6
    )
    honest = [bounds_of(make(0.0, seed=seed, rows=300), seed=seed)[0].one_run.epsilon for seed in range(60)]
    assert sum(epsilon > 0 for epsilon in honest) <= 8  # level 5 %: more than 8 of 60 once in a hundred


@pytest.mark.parametrize("drawn", ["given_split", "fixed_halves", "unknown"])
def test_membership_that_no_coin_decided_gives_no_bound_and_the_reason(drawn):
    bounds, _ = bounds_of(make(3.0), drawn)
    assert "independent fair coins" in bounds.one_run.not_run and bounds.one_run.epsilon == 0
    assert bounds.strength.epsilon > 0, "attack strength is none of differential privacy's bounds, and stays"


def test_risks_are_probabilities_that_hold():
    bounds, records = bounds_of(make(2.0, rows=4000))
    risk = bounds.risk
    assert risk.calibration == "isotonic" and risk.not_run is None
    assert records.risks.min() >= 0 and records.risks.max() <= 1
    order = np.argsort(records.scores)
    assert (np.diff(records.risks[order]) >= 0).all(), "a risk rises with the score"
    assert sum(entry.records for entry in risk.bins) == 4000
    single, _ = bounds_of(make(2.0, rows=4000), names=("lira.online",))
    raw = posterior(score_target(attacks["lira.online"], make(2.0, rows=4000)).values)
    assert single.risk.expected_error < 0.06 < reliability(raw, records.members).expected_error
    for limit, inside, outside in risk.above:
        assert inside == (records.risks[records.members] >= limit).sum()
        assert outside == (records.risks[~records.members] >= limit).sum()


def test_without_a_likelihood_ratio_or_shadows_there_are_no_risks():
    bounds, records = bounds_of(make(2.0, models=1), names=("loss",))
    assert records.risks is None and "no likelihood ratio" in bounds.risk.not_run
    assert bounds.vulnerable.share is None and bounds.vulnerable.not_run
    assert bounds.slices.measured >= CLASSES


def test_slices_are_of_the_rows_that_they_name():
    signals = make(2.0)
    bounds, records = bounds_of(signals)
    rows = {row.name: row for row in bounds.slices.rows}
    members = signals.members[0]
    for label in range(CLASSES):
        mask = signals.labels == label
        slice_row = rows[f"class {label}"]
        assert (slice_row.n_members, slice_row.n_nonmembers) == (
            (mask & members).sum(),
            (mask & ~members).sum(),
        )
        inside, outside = records.scores[mask & members], records.scores[mask & ~members]
        wins = (inside[:, None] > outside).mean() + 0.5 * (inside[:, None] == outside).mean()
        assert slice_row.auc == pytest.approx(wins, abs=1e-6)
    right = signals.probabilities[0].argmax(axis=1) == signals.labels
    assert rows["right"].n_members == (right & members).sum()
    assert {row.group for row in rows.values()} == {"class", "confidence", "correctness"}


def test_the_same_seed_gives_the_same_bounds():
    signals = make(1.0)
    assert bounds_of(signals)[0] == bounds_of(signals)[0]
    assert bounds_of(signals)[0] != bounds_of(signals, seed=1)[0]
