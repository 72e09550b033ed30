"""RMR and SWMR: which rows get which decay, by which optimizer, in which order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprivacy.defenses import TrainingRows, make_defense
from edgeprivacy.errors import RecipeError

DECAY = 5e-4


def rows_of(scores: list[float], labels: list[int] | None = None) -> TrainingRows:
    labels = [0] * len(scores) if labels is None else labels
    return TrainingRows(np.array(labels), max(labels) + 1, np.array(scores))


def passes_of(name: str, rows: TrainingRows, epoch: int = 0, **options):
    return make_defense(name, options).epoch(rows, epoch, 21, DECAY, np.random.default_rng(0))


def test_risky_rows_come_first_with_their_own_optimizer_and_decay() -> None:
    risky, general = passes_of("wemem:rmr", rows_of([0.1, 0.6, 0.59, 1.0, 0.0]))
    assert (risky.rows.tolist(), risky.weight_decay, risky.optimizer) == ([1, 3], 0.1, "risky")
    assert (general.rows.tolist(), general.weight_decay, general.optimizer) == ([0, 2, 4], DECAY, "general")


def test_every_epoch_of_rmr_is_the_same_and_settings_count() -> None:
    rows = rows_of([0.1, 0.6, 0.3, 1.0, 0.0])
    for epoch in (0, 20):
        risky, general = passes_of("wemem:rmr", rows, epoch, threshold=0.3, weight_decay_risky=0.02)
        assert risky.rows.tolist() == [1, 2, 3] and risky.weight_decay == 0.02
        assert general.rows.tolist() == [0, 4]


@pytest.mark.parametrize("name", ["wemem:rmr", "wemem:swmr"])
def test_an_empty_part_is_left_out(name: str) -> None:
    (only,) = passes_of(name, rows_of([0.1, 0.2]), threshold=0.9)
    assert only.optimizer == "general" and only.weight_decay == DECAY
    (only,) = passes_of(name, rows_of([0.95, 0.99]), threshold=0.9)
    assert only.optimizer == "risky" and only.weight_decay == 0.1


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_a_top_share_wins_over_the_threshold(share: float) -> None:
    scores = np.random.default_rng(0).permutation(200) / 200
    risky, _ = passes_of("wemem:rmr", rows_of(scores.tolist()), top_share=share, threshold=0.99)
    assert abs(len(risky.rows) - 200 * share) <= 1
    assert set(risky.rows.tolist()) == set(np.argsort(-scores)[: len(risky.rows)].tolist())


def naive_swmr(rows, epoch, width, step, high_first, threshold):
    risky, general = [], []
    for label in range(rows.classes):
        ranked = [row for row in range(len(rows.labels)) if rows.labels[row] == label]
        ranked.sort(key=lambda row: rows.memorability[row], reverse=high_first)
        for row in ranked[step * epoch : min(step * epoch + width, len(ranked))]:
            (risky if rows.memorability[row] >= threshold else general).append(row)
    return sorted(risky), sorted(general)


@settings(deadline=None, max_examples=40)
@given(
    counts=st.lists(st.integers(1, 25), min_size=1, max_size=4),
    width=st.integers(1, 15),
    step=st.integers(1, 6),
    order=st.sampled_from(["low-to-high", "high-to-low"]),
    threshold=st.floats(0, 1),
    epoch=st.integers(0, 20),
)
def test_swmr_parts_the_window(counts, width, step, order, threshold, epoch) -> None:
    rng = np.random.default_rng(len(counts))
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    rows = TrainingRows(labels, len(counts), rng.random(len(labels)))
    found = passes_of("wemem:swmr", rows, epoch, window=width, step=step, order=order, threshold=threshold)
    by_name = {entry.optimizer: entry for entry in found}
    wanted = naive_swmr(rows, epoch, width, step, order == "high-to-low", threshold)
    for name, decay, expected in zip(("risky", "general"), (0.1, DECAY), wanted, strict=True):
        assert (name in by_name) == bool(expected)
        if expected:
            assert sorted(by_name[name].rows.tolist()) == expected
            assert by_name[name].weight_decay == decay
    assert [entry.optimizer for entry in found] == [n for n in ("risky", "general") if n in by_name]


def test_swmr_goes_from_high_to_low_by_default_and_ends() -> None:
    rows = rows_of([k / 100 for k in range(100)])
    (first,) = passes_of("wemem:swmr", rows, 0)
    assert sorted(first.rows.tolist()) == list(range(75, 100)) and first.optimizer == "risky"
    assert passes_of("wemem:swmr", rows, 50) == []  # 50 steps of 2 rows: the class is exhausted


@pytest.mark.parametrize("name", ["wemem:rmr", "wemem:swmr"])
@pytest.mark.parametrize(
    "options",
    [
        {"threshold": 1.1},
        {"threshold": -0.1},
        {"weight_decay_risky": -1.0},
        {"top_share": 0},
        {"top_share": 1.0},
        {"threshold": "high"},
        {"top_share": "x"},
        {"threshold": float("nan")},
    ],
)
def test_settings_out_of_range(name, options) -> None:
    with pytest.raises(RecipeError, match=name):
        make_defense(name, options)


def test_a_note_says_how_many_rows_a_threshold_makes_risky() -> None:
    half = rows_of([0.0, 0.1, 0.7, 0.8])
    (note,) = make_defense("wemem:rmr").notes(half)
    assert "50 %" in note and "0.6" in note and "top_share" in note
    assert make_defense("wemem:rmr").notes(rows_of([0.0, 0.1, 0.2, 0.3, 0.8])) == ()
    # Who set the share knows it, and the threshold plays no part.
    assert make_defense("wemem:rmr", {"top_share": 0.5}).notes(half) == ()
