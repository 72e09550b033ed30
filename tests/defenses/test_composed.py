"""Compositions: who governs what, whose settings are whose, and what does not go together."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprivacy.defenses import TrainingRows, make_defense
from edgeprivacy.errors import RecipeError, UsageError
from edgeprivacy.release_keys import defense_identity

ROWS = TrainingRows(np.arange(60) % 3, 3, np.random.default_rng(0).random(60))


def passes_of(name: str, settings: dict | None = None, epoch: int = 2) -> list[tuple]:
    passes = make_defense(name, settings).epoch(ROWS, epoch, 21, 5e-4, np.random.default_rng(1))
    return [(entry.rows.tolist(), entry.weight_decay, entry.optimizer) for entry in passes]


@pytest.mark.parametrize("name", ["wemem:swmr+relaxloss", "relaxloss+wemem:swmr"])
def test_the_rows_are_the_samplers_and_the_loss_is_the_others(name, monkeypatch) -> None:
    relaxloss = type(make_defense("relaxloss"))
    monkeypatch.setattr(relaxloss, "loss", lambda self, ops, batch: f"relaxed to {self.alpha}")
    composed = make_defense(name, {"relaxloss.alpha": 0.4, "window": 7})
    assert composed.loss(None, None) == "relaxed to 0.4"
    assert passes_of(name, {"window": 7}) == passes_of("wemem:swmr", {"window": 7})
    assert composed.name == name and composed.preparations()
    assert "Shang" in composed.paper and "Chen" in composed.paper


def test_equal_compositions_are_equal_and_their_identity_holds_every_setting() -> None:
    one, same = (make_defense("wemem+hamp", {"gamma": 0.8, "wemem.step": 2}) for _ in range(2))
    other = make_defense("wemem+hamp", {"gamma": 0.8, "wemem.step": 3})
    assert one == same != other
    identity = defense_identity(one)
    assert identity["name"] == "wemem+hamp" and identity["version"] == "1+1"
    assert [part.get("gamma", part.get("step")) for part in identity["parts"]] == [2, 0.8]
    assert identity != defense_identity(other)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("wemem+early-stopping", "both govern which rows an epoch sees"),
        ("relaxloss+hamp", "both govern the loss of a batch"),
        ("wemem+relaxloss+ppb", "'relaxloss' and 'ppb' do not go together"),
        ("none+relaxloss", "'none' governs nothing"),
        ("ppb+ppb", "twice"),
    ],
)
def test_what_does_not_go_together_is_refused_with_the_reason(name, reason) -> None:
    with pytest.raises(RecipeError, match=reason):
        make_defense(name)


def test_unknown_parts_and_settings() -> None:
    with pytest.raises(UsageError, match="did you mean 'relaxloss'"):
        make_defense("wemem+relaxlos")
    with pytest.raises(RecipeError, match=r"no setting 'alpa'.*relaxloss\.alpha.*did you mean 'alpha'"):
        make_defense("wemem+relaxloss", {"alpa": 1})
    with pytest.raises(RecipeError, match="given twice"):
        make_defense("wemem+relaxloss", {"alpha": 1, "relaxloss.alpha": 2})
    with pytest.raises(RecipeError, match=r"relaxloss.*alpha must be 0 or more"):
        make_defense("wemem+relaxloss", {"alpha": -1})
    with pytest.raises(RecipeError, match="wider than every class"):
        make_defense("wemem+relaxloss", {"window": 21}).check(ROWS)


def test_a_control_in_a_composition_makes_it_one() -> None:
    assert make_defense("less-data+relaxloss").role == "control"
    assert make_defense("wemem+relaxloss").role == "candidate"


def test_the_original_is_trained_by_the_parts_that_are_ways_of_training() -> None:
    assert make_defense("wemem+ppb").for_original() is None
    assert make_defense("wemem+relaxloss").for_original() == make_defense("relaxloss")
    assert make_defense("wemem+relaxloss", {"original": False}).for_original() is None
    both = make_defense("early-stopping+relaxloss").for_original()
    assert both is not None and both.name == "early-stopping+relaxloss"
