"""What an audit says of a recipe in which a defense has nothing to govern."""

from __future__ import annotations

from typing import Any

import pytest

from edgeprivacy.audit_notes import audit_notes
from edgeprivacy.compressing import prepare
from edgeprivacy.recipe import Recipe, Run

CLUSTERED = {"prune": {"sparsity": 0}, "cluster": {"clusters": 16}}
pytestmark = pytest.mark.tflite


@pytest.mark.parametrize(
    ("defense", "recipe", "said"),
    [
        ("wemem", {}, None),
        ("none", {}, None),
        ("none", {"prune": {"sparsity": 0}}, "Nothing trains after the original"),
        ("wemem", {"prune": {"sparsity": 0}}, "Nothing is trained under wemem"),
        ("selena", {"prune": {"sparsity": 0}}, None),  # trains the original
        ("cwrf", {"prune": {"sparsity": 0}}, None),  # fine-tunes what it rewinds
        ("wemem", {"prune": {"sparsity": 0}, "quantize": {"weight_bits": 4}}, None),
        ("wemem", {"prune": {"schedule": "untrained"}}, "Nothing is trained under wemem"),
        ("wemem", {"prune": {"sparsity": 0}, "cluster": {"clusters": 16}}, None),
        ("wemem", {**CLUSTERED, "defense_phases": "pruning"}, "Nothing is trained under wemem"),
    ],
)
def test_a_defense_that_governs_nothing_is_told(
    defense: str, recipe: dict[str, Any], said: str | None
) -> None:
    made = Recipe.build({"backend": "tflite", "defense": defense, "audit": {"shadows": 2}, **recipe})
    source, split = prepare(made, Run())
    notes = [note for note in audit_notes(made, source, split, []) if note.startswith("Nothing")]
    assert len(notes) == (0 if said is None else 1)
    assert said is None or notes[0].startswith(said)
