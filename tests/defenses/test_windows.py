"""RSW's window against the authors' pseudo-code, written out per class; coverage; the controls."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprivacy.defenses import TrainingRows, make_defense
from edgeprivacy.errors import RecipeError, UsageError

DECAY = 5e-4


def rows_of(counts: list[int], seed: int = 0, ties: bool = False) -> TrainingRows:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int64)
    scores = rng.random(len(labels))
    return TrainingRows(labels, len(counts), np.round(scores, 1) if ties else scores)


def epochs_of(name: str, rows: TrainingRows, epochs: int, seed: int = 1, **options) -> list[list[int]]:
    """The rows of each epoch, sorted; the generator starts anew in each, as a backend's does."""
    defense = make_defense(name, options)
    seen = []
    for epoch in range(epochs):
        passes = defense.epoch(rows, epoch, epochs, DECAY, np.random.default_rng(seed))
        assert all(entry.weight_decay == DECAY and entry.optimizer == "general" for entry in passes)
        assert len(passes) <= 1 and all(len(entry.rows) for entry in passes)
        seen.append(sorted(int(row) for entry in passes for row in entry.rows))
    return seen


def pseudo_code(rows: TrainingRows, epoch: int, width: int, step: int, high_first: bool) -> list[int]:
    """D_e = union over c of L_c[step*e : min(step*e + width, |L_c|)], L_c sorted by score."""
    chosen: list[int] = []
    for label in range(rows.classes):
        ranked = [row for row in range(len(rows.labels)) if rows.labels[row] == label]
        ranked.sort(key=lambda row: rows.memorability[row], reverse=high_first)
        end = min(step * epoch + width, len(ranked))
        chosen += [ranked[position] for position in range(step * epoch, end)]
    return sorted(chosen)


@settings(deadline=None, max_examples=60)
@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    width=st.integers(1, 30),
    step=st.integers(1, 12),
    order=st.sampled_from(["low-to-high", "high-to-low"]),
    seed=st.integers(0, 99),
)
def test_windows_are_those_of_the_pseudo_code(counts, width, step, order, seed) -> None:
    rows = rows_of(counts, seed)
    found = epochs_of("wemem", rows, 21, order=order, window=width, step=step)
    for epoch, seen in enumerate(found):
        assert seen == pseudo_code(rows, epoch, width, step, order == "high-to-low")


def test_a_short_class_does_not_clip_the_classes_after_it() -> None:
    """The authors' code kept `end` at the short class's length for all classes that followed."""
    rows = rows_of([4, 50, 50])
    (seen,) = epochs_of("wemem", rows, 1, window=20, step=1)
    assert np.bincount(rows.labels[seen]).tolist() == [4, 20, 20]


def test_an_exhausted_class_drops_out_alone_and_then_the_phase_ends() -> None:
    rows = rows_of([5, 12])
    seen = epochs_of("wemem", rows, 8, window=3, step=2)
    per_class = [np.bincount(rows.labels[part], minlength=2).tolist() if part else [] for part in seen]
    assert per_class == [[3, 3], [3, 3], [1, 3], [0, 3], [0, 3], [0, 2], [], []]


def test_ties_of_memorability_are_broken_the_same_way_every_time() -> None:
    rows = rows_of([40], ties=True)
    once, again = (epochs_of("wemem", rows, 5, window=7, step=3) for _ in range(2))
    assert once == again
    assert all(len(set(seen)) == 7 for seen in once)


@pytest.mark.parametrize(
    ("class_rows", "width", "step", "share", "uses"),
    [
        (2250, 500, 50, 67, 10),
        (2250, 500, 100, 100, 5),
        (225, 50, 5, 67, 10),
        (4050, 900, 100, 72, 9),
        (60, 15, 1, 58, 15),
    ],
)
def test_coverage_of_the_published_settings(class_rows, width, step, share, uses) -> None:
    """The table "what those settings really do": share of a class touched in 21 epochs, uses of a row."""
    seen = epochs_of("wemem", rows_of([class_rows]), 21, window=width, step=step)
    counts = np.bincount([row for part in seen for row in part], minlength=class_rows)
    assert round(100 * np.mean(counts > 0)) == share
    assert counts.max() == uses


@pytest.mark.parametrize("order", ["low-to-high", "high-to-low"])
def test_the_rows_never_reached_are_the_far_end_of_the_order(order: str) -> None:
    rows = rows_of([90])
    seen = {
        row for part in epochs_of("wemem", rows, 21, order=order, window=20, step=2) for row in part
    }  # 20 + 20 * 2 of 90
    assert len(seen) == 60
    ranked = np.argsort(rows.memorability)
    assert seen == set((ranked if order == "low-to-high" else ranked[::-1])[:60].tolist())


@pytest.mark.parametrize(
    ("class_rows", "window", "step"),
    [(240, 60, 4), (100, 25, 2), (60, 15, 1), (20, 5, 1), (1, 1, 1), (2, 1, 1)],
)
def test_by_default_a_quarter_wide_and_a_sixtieth_a_step(class_rows, window, step) -> None:
    rows = rows_of([class_rows])
    by_default, as_told = epochs_of("wemem", rows, 21), epochs_of("wemem", rows, 21, window=window, step=step)
    assert by_default == as_told


def test_defaults_are_per_class() -> None:
    (seen,) = epochs_of("wemem", rows := rows_of([40, 200]), 1)
    assert np.bincount(rows.labels[seen]).tolist() == [10, 50]


@pytest.mark.parametrize("name", ["wemem", "wemem:swmr", "wemem:random", "less-data"])
def test_a_window_wider_than_every_class_is_refused(name: str) -> None:
    rows = rows_of([10, 30])
    make_defense(name, {"window": 30}).check(rows)
    with pytest.raises(RecipeError, match=f"'{name}' is wider than every class") as caught:
        make_defense(name, {"window": 31}).check(rows)
    assert caught.value.allowed == "1 to 30"


@pytest.mark.parametrize("name", ["wemem", "wemem:swmr", "wemem:random", "less-data"])
def test_classes_smaller_than_the_window_are_counted(name: str) -> None:
    rows = TrainingRows(np.repeat([0, 1, 2, 4], [10, 30, 5, 12]), 5, np.linspace(0, 0.5, 57))
    told = {size: " ".join(make_defense(name, {"window": size}).notes(rows)) for size in (5, 10, 11, 30)}
    assert not told[5] and "wider than 1 of 4 classes" in told[10]
    assert "wider than 2 of 4 classes" in told[11] and "wider than 3 of 4 classes" in told[30]
    assert f"{name}: the window of 30 rows" in told[30] and not make_defense(name).notes(rows)


@pytest.mark.parametrize("name", ["wemem", "wemem:swmr", "wemem:random", "less-data"])
@pytest.mark.parametrize(
    "options", [{"window": 0}, {"step": 0}, {"window": -2}, {"step": "x"}, {"window": 2.5}]
)
def test_sizes_must_be_whole_positive_numbers(name, options) -> None:
    with pytest.raises(RecipeError, match="whole number of rows, at least 1"):
        make_defense(name, options)


@pytest.mark.parametrize("name", ["wemem", "wemem:swmr", "wemem:random", "less-data"])
def test_true_is_no_number_of_rows(name) -> None:
    with pytest.raises(RecipeError):
        make_defense(name, {"window": True})


def test_orders_by_name() -> None:
    with pytest.raises(RecipeError, match="low-to-high"):
        make_defense("wemem", {"order": "upwards"})
    with pytest.raises(RecipeError, match="no order"):
        make_defense("wemem:random", {"order": "low-to-high"})


def test_unknown_settings_and_names_get_a_hint() -> None:
    with pytest.raises(RecipeError, match="did you mean 'window'"):
        make_defense("wemem", {"windw": 3})
    with pytest.raises(RecipeError, match="no setting 'window'; allowed: none"):
        make_defense("none", {"window": 3})
    with pytest.raises(UsageError, match="did you mean 'wemem"):
        make_defense("wemen")


def test_none_sees_every_row_in_every_epoch() -> None:
    rows = rows_of([4, 9])
    assert epochs_of("none", rows, 3) == [list(range(13))] * 3


def test_the_random_window_has_rsws_sizes_in_one_fixed_order_that_ignores_memorability() -> None:
    rows = rows_of([5, 40, 90])
    unscored = TrainingRows(rows.labels, rows.classes)
    sizes = {"window": 12, "step": 4}
    seen = epochs_of("wemem:random", unscored, 21, **sizes)
    sorted_ = epochs_of("wemem", rows, 21, **sizes)
    for ours, theirs in zip(seen, sorted_, strict=True):
        assert np.array_equal(
            np.bincount(rows.labels[ours], minlength=3), np.bincount(rows.labels[theirs], minlength=3)
        )
    # One order behind all windows: neighbours share what RSW's neighbours share, and a row returns no more.
    for one, next_ in itertools.pairwise(seen):
        shared = np.bincount(rows.labels[sorted(set(one) & set(next_))], minlength=3) if next_ else [0]
        assert max(shared) <= 8
    counts = np.bincount([row for part in seen for row in part], minlength=135)
    assert counts.max() == 3
    assert seen == epochs_of("wemem:random", rows, 21, **sizes)
    assert seen != epochs_of("wemem:random", rows, 21, seed=2, **sizes)
    assert seen != sorted_


@settings(deadline=None, max_examples=30)
@given(
    counts=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    width=st.one_of(st.none(), st.integers(1, 40)),
    step=st.one_of(st.none(), st.integers(1, 9)),
    epochs=st.integers(1, 21),
    seed=st.integers(0, 99),
)
def test_less_data_has_rsws_numbers_and_no_more_of_its_rows(counts, width, step, epochs, seed) -> None:
    rows = rows_of(counts, seed)
    options = {key: value for key, value in (("window", width), ("step", step)) if value is not None}
    ours = epochs_of("less-data", TrainingRows(rows.labels, rows.classes), epochs, **options)
    theirs = epochs_of("wemem", rows, epochs, **options)
    union, limit = set(), set()
    for drawn, window in zip(ours, theirs, strict=True):
        assert len(set(drawn)) == len(drawn)
        expected = np.bincount(rows.labels[window], minlength=len(counts)) if window else [0] * len(counts)
        assert np.array_equal(
            np.bincount(rows.labels[drawn], minlength=len(counts)) if drawn else expected, expected
        )
        assert len(drawn) == len(window)
        union |= set(drawn)
        limit |= set(window)
    for label in range(len(counts)):
        of_class = set(np.flatnonzero(rows.labels == label).tolist())
        assert len(union & of_class) <= len(limit & of_class)


def test_less_data_keeps_its_subset_over_phases_and_draws_anew_each_epoch() -> None:
    rows = rows_of([300])
    options = {"window": 60, "step": 5}
    first, second = (epochs_of("less-data", rows, 21, **options) for _ in range(2))
    assert first == second  # each phase starts the generator anew
    assert len({row for part in first for row in part}) == 160  # 60 + 20 * 5: all of the subset in 21 draws
    assert len({tuple(part) for part in first}) == 21
    shorter = epochs_of("less-data", rows, 6, **options)
    assert {row for part in shorter for row in part} <= {row for part in first for row in part}
    other = epochs_of("less-data", rows, 21, seed=5, **options)
    assert {row for part in other for row in part} != {row for part in first for row in part}


def test_roles_and_needs() -> None:
    for name, role, scores in [
        ("none", "candidate", False),
        ("wemem", "candidate", True),
        ("wemem:rmr", "candidate", True),
        ("wemem:swmr", "candidate", True),
        ("wemem:random", "control", False),
        ("less-data", "control", False),
    ]:
        defense = make_defense(name)
        assert (defense.name, defense.role, bool(defense.preparations())) == (name, role, scores)
        assert ("memorability" in defense.needs) == scores
