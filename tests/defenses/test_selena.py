"""Exclusion, soft labels and groups, each against a count or a loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprivacy.defenses import TrainingRows, make_defense
from edgeprivacy.defenses.groups import near_duplicates
from edgeprivacy.defenses.selena import at_temperature, draw_exclusions, held_out_answers
from edgeprivacy.errors import RecipeError


class Recorder:
    """Sub-models that answer with numbers of their own, and remember which rows they were trained on."""

    def __init__(self, rows: int, classes: int, inputs: np.ndarray | None = None) -> None:
        rng = np.random.default_rng(5)
        self.inputs = rng.normal(size=(rows, 6)) if inputs is None else inputs
        self.given = [rng.dirichlet(np.ones(classes), rows).astype(np.float32) for _ in range(30)]
        self.trained: dict[int, set[int]] = {}
        self.told: list[str] = []

    def tell(self, text: str) -> None:
        self.told.append(text)

    def rng(self, purpose: str) -> np.random.Generator:
        return np.random.default_rng(len(purpose))

    def answers(self, rows, purpose, number, epochs=None) -> np.ndarray:
        assert epochs is None, "sub-models are trained as the recipe says"
        self.trained[number] = set(rows.tolist())
        return self.given[number]

    def original_answers(self) -> np.ndarray:
        raise AssertionError("the original saw every row")


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(2, 12), st.data())
def test_every_row_is_left_out_of_exactly_so_many_together_with_its_group(rows, sub_models, data) -> None:
    left_out = data.draw(st.integers(1, sub_models - 1))
    group = np.array(data.draw(st.lists(st.integers(0, rows), min_size=rows, max_size=rows)))
    _, group = np.unique(group, return_inverse=True)
    excluded = draw_exclusions(group, sub_models, left_out, np.random.default_rng(0))
    assert excluded.shape == (rows, sub_models) and (excluded.sum(axis=1) == left_out).all()
    for number in range(rows):
        assert all(
            np.array_equal(excluded[number], excluded[k]) for k in np.flatnonzero(group == group[number])
        )


def test_rows_are_left_out_of_every_sub_model_equally_often() -> None:
    excluded = draw_exclusions(np.arange(20_000), 10, 4, np.random.default_rng(1))
    np.testing.assert_allclose(excluded.mean(axis=0), 0.4, atol=0.02)


def test_a_row_is_labelled_by_the_models_that_never_saw_it() -> None:
    rows, models = TrainingRows(np.arange(120) % 3, 3), Recorder(120, 3)
    soft = held_out_answers(10, 4, "off", rows, models)
    assert len(models.trained) == 10
    for row in range(120):
        strangers = [number for number, seen in models.trained.items() if row not in seen]
        assert len(strangers) == 4
        expected = sum(models.given[number][row].astype(float) for number in strangers) / 4
        np.testing.assert_allclose(soft[row], expected, atol=1e-6)


def test_twins_label_each_other_never() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 2, (100, 60))
    inputs[50] = inputs[7]
    inputs[50, :3] ^= 1
    rows, models = TrainingRows(np.arange(100) % 2, 2), Recorder(100, 2, inputs)
    held_out_answers(10, 4, "auto", rows, models)
    assert all((7 in seen) == (50 in seen) for seen in models.trained.values())
    alone = Recorder(100, 2, inputs)
    held_out_answers(10, 4, "off", rows, alone)
    assert any((7 in seen) != (50 in seen) for seen in alone.trained.values())


def test_the_students_labels_are_the_soft_ones_alone() -> None:
    """Other hard labels change neither what is bound to the rows nor which rows are seen."""
    soft = np.random.default_rng(2).dirichlet(np.ones(4), 60).astype(np.float32)
    defense = make_defense("selena")
    one, other = (
        TrainingRows(labels, 4, soft_labels=soft) for labels in (np.arange(60) % 4, np.zeros(60, int))
    )
    assert np.array_equal(defense.columns(one)["soft_labels"], defense.columns(other)["soft_labels"])
    passes = [defense.epoch(rows, 0, 5, 5e-4, np.random.default_rng(0))[0] for rows in (one, other)]
    assert np.array_equal(passes[0].rows, passes[1].rows) and passes[0].weight_decay == 5e-5


def test_the_fitted_student_has_no_weight_decay_and_more_patience() -> None:
    rows = TrainingRows(np.arange(60) % 4, 4)
    fitted, usual = make_defense("selena", {"fitted": True}), make_defense("selena")
    assert fitted.epoch(rows, 0, 5, 5e-4, np.random.default_rng(0))[0].weight_decay == 0
    assert (fitted.patience(5), fitted.patience(40), usual.patience(5)) == (15, 40, 5)
    assert usual.dropout == 0 and usual.for_original() == usual


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 7.0])
def test_temperature_is_a_power(temperature) -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(5), 20)
    p[0] = [1, 0, 0, 0, 0]
    found = at_temperature(p, temperature)
    for row, soft in zip(p[1:], found[1:], strict=True):
        powers = [value ** (1 / temperature) for value in row]
        np.testing.assert_allclose(soft, np.array(powers) / sum(powers), rtol=1e-5)
    assert np.isfinite(found).all() and found[0, 0] > 0.99


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    one, other = set(np.flatnonzero(a)), set(np.flatnonzero(b))
    return len(one & other) / len(one | other) if one | other else 0.0


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


@pytest.mark.parametrize(("binary", "threshold"), [(True, 0.8), (True, 0.55), (False, 0.95), (False, 0.6)])
def test_groups_are_what_a_loop_over_pairs_connects(binary, threshold, monkeypatch) -> None:
    monkeypatch.setattr("edgeprivacy.defenses.groups._BLOCK", 17)
    rng = np.random.default_rng(3)
    x = rng.integers(0, 2, (60, 90)) if binary else rng.normal(size=(60, 3, 10))
    x[40:50] = x[:10]
    x[40:50].reshape(10, -1)[:, :2] = 0
    x[50] = x[40]
    flat = x.reshape(60, -1).astype(float)
    points = flat if binary else flat - flat.mean(axis=0)
    alike = jaccard if binary else cosine
    number = list(range(60))
    for a in range(60):
        for b in range(60):
            if a != b and alike(points[a], points[b]) >= threshold:
                number = [min(number[a], number[b]) if n in (number[a], number[b]) else n for n in number]
    found = near_duplicates(x, threshold)
    group, sizes = (
        found.of_row,
        sorted((number.count(n) for n in set(number) if number.count(n) > 1), reverse=True),
    )
    assert found.sizes.tolist() == sizes and found.threshold == threshold
    same = lambda of: np.equal.outer(np.array(of), np.array(of))  # noqa: E731
    assert np.array_equal(same(group), same(number)) and len(set(number)) < 60


@pytest.mark.parametrize("binary", [True, False])
def test_equal_rows_stand_together_whatever_rounding_does(binary) -> None:
    rng = np.random.default_rng(3)
    once = (rng.random((100, 37)) < 0.3) if binary else rng.random((100, 37))
    once[0] = 0  # a row without a one resembles its like
    found = near_duplicates(np.concatenate([once, once]).astype(np.float32), 1.0)
    assert np.array_equal(found.of_row[:100], found.of_row[100:])
    assert len(found.sizes) == 100


def test_chains_through_a_whole_class_are_no_near_duplicates() -> None:
    """Each row has one more than the one before: neighbours are ever more alike."""
    x = np.cumsum(np.eye(200, 400), axis=0)[:, :200]
    found = near_duplicates(x)
    assert not len(found.sizes) and found.threshold > found.asked == 0.8
    assert f"similarity of {found.threshold:.3g} or more" in found.told()
    assert "the threshold of 0.8 was raised" in found.told()
    given = near_duplicates(x, 0.8)  # stands, and joins all but the first few
    assert given.threshold == 0.8 and given.sizes.tolist() == [197]
    assert "197 of 200 rows stand in one group, the largest of 197 rows" in given.told()


def test_what_was_found_is_told_and_too_much_of_it_is_refused() -> None:
    inputs = np.random.default_rng(0).integers(0, 2, (100, 60))
    for copy, of in ((50, 7), (51, 7), (60, 8)):
        inputs[copy] = inputs[of]
    rows = TrainingRows(np.arange(100) % 2, 2)
    for groups, words in (
        (
            "auto",
            "near-duplicates (Jaccard similarity of 0.8 or more) among the target's training rows: 5 of 100",
        ),
        (
            0.9,
            "of 0.9 or more) among the target's training rows: 5 of 100 rows stand in 2 groups",
        ),
        ("off", "not looked for"),
    ):
        models = Recorder(100, 2, inputs)
        soft = held_out_answers(10, 4, groups, rows, models)
        known = rows.knowing("soft_labels", soft, models.told)
        (note,) = make_defense("selena", {"groups": groups}).notes(known)
        assert note.startswith("selena: ") and words in note
    with pytest.raises(RecipeError, match=r"groups 0\.1: 100 of 100 rows in one group.*raise groups"):
        held_out_answers(10, 4, 0.1, rows, Recorder(100, 2, inputs))


def test_a_threshold_that_stands_makes_other_labels_than_one_that_was_raised() -> None:
    identities = [make_defense("selena", s).preparations()[0].identity for s in ({"groups": 0.8}, {})]
    assert identities[0] != {**identities[1], "groups": 0.8}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"left_out": 10}, r"left_out must be smaller than sub_models \(10\), got 10"),
        ({"sub_models": 1}, "sub_models must be a whole number, at least 2"),
        ({"temperature": 0}, "temperature must be more than 0"),
        ({"groups": "yes"}, "groups must be auto, off or a similarity"),
        ({"groups": 1.5}, "groups must be above 0 and at most 1"),
        ({"fitted": 3}, "fitted must be true or false"),
        ({"original": False}, "original must be true"),
    ],
)
def test_settings_out_of_range(options, message) -> None:
    with pytest.raises(RecipeError, match=message):
        make_defense("selena", options)


def test_too_few_rows_for_the_sub_models() -> None:
    with pytest.raises(RecipeError, match="too few training rows for 10 sub-models"):
        make_defense("selena").check(TrainingRows(np.zeros(99, int), 2))
