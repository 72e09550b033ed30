"""`edgeprivacy.attack` on arrays, against scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.metrics import roc_auc_score

import edgeprivacy
from edgeprivacy.errors import DataError, UsageError

ROWS, CLASSES = 400, 5


@pytest.fixture
def answers() -> dict[str, np.ndarray]:
    """Outputs of a model that is surer of its members."""
    rng = np.random.default_rng(4)
    labels = rng.integers(0, CLASSES, ROWS)
    members = rng.random(ROWS) < 0.5
    logits = rng.normal(size=(ROWS, CLASSES))
    logits[np.arange(ROWS), labels] += 1.0 + 1.5 * members
    return {
        "probabilities": np.exp(log_softmax(logits, axis=1)),
        "labels": labels,
        "members": members,
        "logits": logits,
    }


def run(answers: dict[str, np.ndarray], **more: Any) -> Any:
    values = [answers[name] for name in ("probabilities", "labels", "members")]
    return {result.name: result for result in edgeprivacy.attack(*values, resamples=100, **more)}


def test_global_confidence_is_the_auc_of_p_y(answers: dict[str, np.ndarray]) -> None:
    found = run(answers)
    p_y = answers["probabilities"][np.arange(ROWS), answers["labels"]].astype(np.float32)
    expected = roc_auc_score(answers["members"], p_y)
    assert found["confidence.global"].auc.value == pytest.approx(expected, abs=1e-6)
    assert found["loss"].auc.value == pytest.approx(expected, abs=1e-6)  # a monotone function of p_y
    low, high = found["loss"].auc.ci
    assert low < expected < high and expected > 0.6
    assert "population" in found["attack-p"].skipped and "shadow" in found["rmia.offline"].skipped
    assert found["loss"].n_members == answers["members"].sum()


def test_logits_and_population(answers: dict[str, np.ndarray]) -> None:
    from_logits = edgeprivacy.attack(
        answers["logits"],
        answers["labels"],
        answers["members"],
        attacks=["entropy.global", "attack-p"],
        population=(np.random.default_rng(1).normal(size=(60, CLASSES)), np.arange(60) % CLASSES),
        logits=True,
        resamples=100,
    )
    direct = run(answers, attacks=["entropy.global"])
    assert from_logits[0].auc and from_logits[0].auc.value == pytest.approx(
        direct["entropy.global"].auc.value, abs=1e-4
    )
    assert from_logits[1].skipped is None and from_logits[1].auc is not None


def test_shadows_bring_lira(answers: dict[str, np.ndarray]) -> None:
    rng = np.random.default_rng(8)
    models = 17
    members = rng.random((models, ROWS)) < 0.5
    # Rows differ in difficulty, which only an attack with shadows can take out.
    logits = rng.normal(size=(models, ROWS, CLASSES)) / 2
    truth = np.arange(ROWS)
    logits[:, truth, answers["labels"]] += 3 * rng.normal(size=ROWS) + 1.0 * members
    results = {
        result.name: result
        for result in edgeprivacy.attack(
            np.exp(log_softmax(logits, axis=2)), answers["labels"], members, resamples=100
        )
    }
    assert results["lira.online"].auc and results["loss"].auc
    assert results["lira.online"].auc.value > results["loss"].auc.value + 0.1
    assert results["lira.online"].auc.across_targets is not None


def test_binary_models_answer_one_column(answers: dict[str, np.ndarray]) -> None:
    p = np.random.default_rng(2).random(ROWS)
    labels = (p > 0.5).astype(int)
    (one,) = edgeprivacy.attack(p, labels, answers["members"], attacks=["loss"], resamples=100)
    (two,) = edgeprivacy.attack(
        np.stack([1 - p, p], axis=1), labels, answers["members"], attacks=["loss"], resamples=100
    )
    assert one.auc and two.auc and one.auc.value == pytest.approx(two.auc.value, abs=1e-4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"probabilities": lambda a: a["logits"]}, "logits"),
        ({"probabilities": lambda a: a["probabilities"] * np.nan}, "NaN"),
        ({"labels": lambda a: a["labels"] + 3}, "out of range"),
        ({"labels": lambda a: a["labels"][:-1]}, "one class index a row"),
        ({"labels": lambda a: a["labels"] + 0.5}, "one class index a row"),
        ({"members": lambda a: a["members"][:-1]}, r"\[models, rows\]"),
        ({"members": lambda a: a["labels"]}, "true or false"),
        ({"members": lambda a: np.arange(ROWS) < 3}, "too few rows"),
    ],
)
def test_arrays_that_do_not_fit(answers: dict[str, np.ndarray], change: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        run({**answers, **{name: make(answers) for name, make in change.items()}})


def test_unknown_attack(answers: dict[str, np.ndarray]) -> None:
    with pytest.raises(UsageError, match=r"did you mean 'lira\.online'"):
        run(answers, attacks=["lira.onlin"])
