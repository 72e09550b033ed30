"""What `wemem:auto` tries, what it takes, and that a share of a class is so many rows of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprivacy.defenses import TrainingRows, make_defense
from edgeprivacy.defenses.choosing import Choice, Trial, choose, told
from edgeprivacy.errors import RecipeError

PLAIN = Trial(0.80, 0.90)


@pytest.mark.parametrize(
    ("trials", "allowed", "expected"),
    [
        ([(0.79, 0.7), (0.78, 0.6), (0.77, 0.5)], 0.02, Choice(1, 2)),
        ([(0.79, 0.7), (0.78, 0.6), (0.77, 0.5)], 0.03, Choice(2, 3)),
        ([(0.79, 0.7), (0.78, 0.6)], 0.0, Choice(0, 0)),
        ([(0.70, 0.5), (0.75, 0.9), (0.75, 0.6)], 0.02, Choice(1, 0)),
        ([(0.80, 0.6), (0.85, 0.6), (0.81, 0.7)], 0.02, Choice(0, 3)),
    ],
)
def test_the_least_leaking_within_the_budget_or_the_nearest(trials, allowed, expected) -> None:
    assert choose([Trial(*trial) for trial in trials], PLAIN, allowed) == expected


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=12),
    st.floats(0, 1),
    st.floats(0, 0.5),
)
def test_nothing_within_the_budget_leaks_less_than_the_choice(trials, accuracy, allowed) -> None:
    found = choose([Trial(*trial) for trial in trials], Trial(accuracy, 0.9), allowed)
    taken = trials[found.position]
    if found.within:
        assert taken[0] >= accuracy - allowed - 1e-6
        assert not any(a >= accuracy - allowed and leak < taken[1] for a, leak in trials)
    else:
        assert all(a < accuracy - allowed for a, _ in trials) and taken[0] == max(a for a, _ in trials)


def test_the_report_says_why() -> None:
    trials = [Trial(0.79, 0.7), Trial(0.5, 0.6)]
    said = told("wemem:auto", "order low-to-high", trials, PLAIN, Choice(0, 1), 301)
    assert (
        "chose order low-to-high: of 2 settings 1 kept" in said
        and "301 validation rows 79.0 % (no defense 80.0 %)" in said
    )
    assert "none of 2 settings" in told("wemem:auto", "x", trials, PLAIN, Choice(0, 0), 301)


def test_twelve_settings_are_tried_and_a_given_one_stands() -> None:
    found = make_defense("wemem:auto").candidates()
    assert found is not None and len(set(found.defenses)) == 12 and found.max_accuracy_loss == 0.02
    assert all(each.candidates() is None and each.settings_told for each in found.defenses)
    wider = make_defense("wemem:auto", {"max_accuracy_loss": 0.1}).candidates()
    assert wider is not None and wider.defenses == found.defenses, "the budget makes no other releases"
    assert make_defense("wemem:auto", {"order": "high-to-low"}).candidates() is None
    assert make_defense("wemem").candidates() is None


def test_a_composition_tries_its_part() -> None:
    found = make_defense("wemem:auto+relaxloss", {"max_accuracy_loss": 0.1}).candidates()
    assert found is not None and len(found.defenses) == 12 and found.max_accuracy_loss == 0.1
    assert {each.name for each in found.defenses} == {"wemem:auto+relaxloss"}
    assert "window_share" in found.defenses[0].settings_told


@given(
    rows=st.integers(1, 120),
    window=st.floats(0.01, 1),
    step=st.floats(0.01, 1),
    top=st.sampled_from([0.0, 0.1, 0.3]),
    order=st.sampled_from(["low-to-high", "high-to-low"]),
    epoch=st.integers(0, 20),
)
def test_shares_are_so_many_rows_of_each_class(rows, window, step, top, order, epoch) -> None:
    rng = np.random.default_rng(rows)
    labels = np.repeat([0, 1], [rows, 2 * rows])
    known = TrainingRows(labels, 2, rng.random(len(labels)))
    settings = {"order": order, "window_share": window, "step_share": step, "top_share": top}
    passes = make_defense("wemem:auto", settings).epoch(known, epoch, 21, 5e-4, rng)
    expected = set()
    for label, count in ((0, rows), (1, 2 * rows)):
        of = sorted(np.flatnonzero(labels == label), key=lambda row: known.memorability[row])
        if order == "high-to-low":
            of.reverse()
        start = max(1, round(step * count)) * epoch
        expected |= set(of[start : start + max(1, round(window * count))])
    assert set(np.concatenate([p.rows for p in passes] or [[]]).astype(int)) == expected
    limit = np.quantile(known.memorability, 1 - top) if top else np.inf
    for entry in passes:
        risky = known.memorability[entry.rows] >= limit
        assert risky.all() if entry.optimizer == "risky" else not risky.any()
        assert entry.weight_decay == (0.1 if entry.optimizer == "risky" else 5e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_accuracy_loss": 2}, "max_accuracy_loss must be between 0 and 1"),
        ({"order": "random"}, "order must be one of low-to-high, high-to-low"),
        ({"window_share": 0}, "window_share must be above 0 and at most 1"),
        ({"step_share": 1.5}, "step_share must be above 0 and at most 1"),
        ({"top_share": 1}, "top_share must be between 0 and 0.99"),
    ],
)
def test_settings_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        make_defense("wemem:auto", options)
