"""Settings of a defense, chosen on a release apart before the first one is made; kept like any stage."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.data.dataset import Dataset
from edgeprivacy.defenses import Defense, make_defense
from edgeprivacy.defenses.choosing import Trial, choose, told
from edgeprivacy.files import write_json
from edgeprivacy.metrics.roc import Roc
from edgeprivacy.release_keys import rows_identity
from edgeprivacy.release_stages import Making, Original, Stages, told_answers


class Chooser:
    """Chooses for the releases of one recipe and backend.

    Args:
        apart: Makes the release apart, and says which rows of the pool it was not trained on.
    """

    def __init__(self, stages: Stages, apart: Callable[[], tuple[Making, Dataset]]) -> None:
        self._stages, self._apart = stages, apart
        self._chosen: dict[str, tuple[Defense, str | None]] = {}

    def settled(self, name: str, defense: Defense) -> tuple[Defense, str | None]:
        """The defense with settings that stand, and what the report says of the choice; itself where there is
        nothing to choose."""
        if name not in self._chosen:
            self._chosen[name] = self._choose(name, defense)
        return self._chosen[name]

    def _choose(self, name: str, defense: Defense) -> tuple[Defense, str | None]:
        candidates = defense.candidates()
        if candidates is None:
            return defense, None
        making, outside = self._apart()
        original = self._stages.original(making)
        tried = (make_defense("none"), *candidates.defenses)
        trials: dict[int, Trial] = {}
        # Workers that choose at the same time begin at different places, and find what others did.
        first = os.getpid() % len(tried)
        for position in [*range(first, len(tried)), *range(first)]:
            trials[position] = self._trial(name, tried[position], making, original, outside)
        undefended, found = trials[0], [trials[k] for k in range(1, len(tried))]
        choice = choose(found, undefended, candidates.max_accuracy_loss)
        chosen = candidates.defenses[choice.position]
        return chosen, told(
            name, chosen.settings_told, found, undefended, choice, len(making.material.validation)
        )

    def _trial(
        self, name: str, defense: Defense, making: Making, original: Original, outside: Dataset
    ) -> Trial:
        stages = self._stages
        arm = stages.arm(name, defense, making, original)
        start = original if defense.for_original() is None else stages.original(making, arm)
        compressed, key = stages.compressed(start, arm, making)
        inside, validation = making.material.train, making.material.validation

        def make(folder: Path) -> None:
            def answers(rows: Dataset) -> NDArray[np.float32]:
                return stages.session.predict(compressed.weights, rows.x)

            scores = [_of_the_true_label(answers(rows), rows) for rows in (inside, outside)]
            leakage = Roc.from_scores(np.concatenate(scores), np.repeat([True, False], [*map(len, scores)]))
            accuracy = _accuracy(answers(validation), validation)
            write_json(folder / "meta.json", {"accuracy": accuracy, "leakage": float(leakage.auc)})

        content = {
            "of": key,
            "asked": rows_identity(inside, outside),
            "validation": rows_identity(validation),
        }
        return Trial(**stages.kept("trial", content, make))


def _of_the_true_label(answers: NDArray[np.float32], rows: Dataset) -> NDArray[np.float64]:
    classes = told_answers(answers, rows)
    label = np.ones(len(rows), dtype=np.int64) if rows.label_sets else rows.y
    return classes[np.arange(len(rows)), label].astype(np.float64)


def _accuracy(answers: NDArray[np.float32], rows: Dataset) -> float:
    """Of independent labels the share that is right."""
    right = (answers > 0.5) == rows.y if rows.label_sets else answers.argmax(axis=1) == rows.y
    return float(np.mean(right))
