"""Rows of several independent labels: which defenses hold for them, and over what their windows go."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprivacy.defenses import TrainingRows, make_defense
from edgeprivacy.defenses.base import defenses
from edgeprivacy.defenses.memorability import MEMORABILITY
from edgeprivacy.defenses.wemem import STEP_SHARE, WINDOW_SHARE

HOLD = {
    *("none", "wemem", "wemem:rmr", "wemem:swmr", "wemem:random", "wemem:auto"),
    *("less-data", "early-stopping", "dropout", "mia-pruning", "dpsgd", "dpsgd:utility"),
}


@pytest.fixture
def rows() -> TrainingRows:
    """120 rows of three labels each, with scores."""
    rng = np.random.default_rng(0)
    return TrainingRows.of(rng.integers(0, 2, (120, 3)), 3).knowing("memorability", rng.random(120))


def test_defenses_whose_loss_knows_of_classes_say_so() -> None:
    assert {name for name in defenses.names() if not make_defense(name).needs_classes} == HOLD
    assert make_defense("wemem:swmr+relaxloss").needs_classes
    assert not make_defense("wemem+mia-pruning").needs_classes


@pytest.mark.parametrize("name", ["wemem", "wemem:swmr", "wemem:random", "less-data"])
def test_windows_go_over_all_rows(rows: TrainingRows, name: str) -> None:
    defense = make_defense(name)
    defense.check(rows)
    for epoch in (0, 3):
        passes = defense.epoch(rows, epoch, 5, 1e-4, np.random.default_rng(1))
        seen = np.concatenate([entry.rows for entry in passes])
        assert len(seen) == len(set(seen.tolist())) == round(120 * WINDOW_SHARE)
        if name == "wemem":
            start = round(120 * STEP_SHARE) * epoch
            order = np.argsort(rows.memorability)
            assert set(seen.tolist()) == set(order[start : start + 30].tolist())


def test_rows_of_one_label_are_what_they_were() -> None:
    labels = np.array([0, 2, 1])
    assert TrainingRows.of(labels, 3) == TrainingRows(labels, 3)


def test_memorability_is_of_rows_as_a_whole(rows: TrainingRows) -> None:
    class Models:
        """Sub-models that are surest of the rows that they were trained on."""

        def rng(self, purpose: str) -> np.random.Generator:
            return np.random.default_rng(7)

        def answers(
            self, own: np.ndarray, purpose: str, number: int, epochs: int | None = None
        ) -> np.ndarray:
            p = np.full(120, 0.4)
            p[own] = np.linspace(0.5, 0.9, 120)[own]
            return np.stack([1 - p, p], axis=1)

    scores = MEMORABILITY.make(rows, Models())
    assert scores == pytest.approx(np.linspace(0, 1, 120))
