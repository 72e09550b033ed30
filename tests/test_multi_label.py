"""Several labels a row: the reduction against a loop, and which attacks hold for it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import edgeprivacy
from edgeprivacy.attacks import Population, Signals, attacks
from edgeprivacy.confidences import Confidences
from edgeprivacy.data.checks import is_label_sets
from edgeprivacy.errors import DataError
from edgeprivacy.multi_label import as_two_classes, checked_sigmoids, confidences_of_label_sets


def test_a_row_is_the_mean_log_odds_of_what_is_true(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    p, truth = rng.random((50, 4)), rng.integers(0, 2, (50, 4))
    found = as_two_classes(p, truth, "here")
    for row in range(50):
        own = [p[row, k] if truth[row, k] else 1 - p[row, k] for k in range(4)]
        mean = sum(math.log(value / (1 - value)) for value in own) / 4
        assert found[row, 1] == pytest.approx(1 / (1 + math.exp(-mean)), rel=1e-6)
        assert found[row, 0] == pytest.approx(1 / (1 + math.exp(mean)), rel=1e-6)
    right = [[(p[row, k] > 0.5) == truth[row, k] for k in range(4)] for row in range(50)]
    kept = confidences_of_label_sets(p.astype(np.float32), truth, np.arange(50).astype(str), "here")
    assert kept.sets.right.tolist() == right and kept.probabilities == pytest.approx(found, rel=1e-4)
    kept.take(np.arange(7)).save(tmp_path / "kept.npz")
    again = Confidences.load(tmp_path / "kept.npz")
    assert again.sets.right.tolist() == right[:7] and again.sets.answers == pytest.approx(p[:7], rel=1e-6)


def test_one_label_is_the_binary_model() -> None:
    p, truth = np.array([[0.2], [0.9], [0.5]]), np.array([[0], [0], [1]])
    assert as_two_classes(p, truth, "here")[:, 1] == pytest.approx([0.8, 0.1, 0.5])


def test_certain_answers_are_as_certain_as_their_grid() -> None:
    p = np.array([[0.0, 1.0], [1.0, 0.0]], dtype=np.float32)
    found = as_two_classes(p, np.array([[0, 1], [0, 1]]), "here", floor=1 / 512)
    assert found[0, 0] == pytest.approx(1 / 512, rel=1e-5) and found[1, 1] == pytest.approx(1 / 512, rel=1e-5)
    # Of float answers half the distance from 1 to the float below it, for what holds and what does not.
    half = np.spacing(np.float32(0.5)) / 2
    assert as_two_classes(p, np.array([[0, 1], [0, 1]]), "here")[:, 0] == pytest.approx([half, 1 - half])
    tiny = np.array([[1e-20, 1.0]], dtype=np.float32)
    assert as_two_classes(tiny, np.array([[0, 1]]), "here")[0, 0] == pytest.approx(half)


def test_what_label_sets_are() -> None:
    assert is_label_sets([[0, 1, 1], [1, 0, 0]]) and is_label_sets(np.array([[True, True], [False, False]]))
    for other in ([[0, 1], [1, 0]], [[0, 2], [1, 1]], [0, 1], [[1], [0]], [["a", "b"]]):
        assert not is_label_sets(other)


def test_answers_that_do_not_fit() -> None:
    with pytest.raises(DataError, match="labels of here do not fit"):
        as_two_classes(np.full((3, 2), 0.5), np.zeros((3, 3), int), "here")
    with pytest.raises(DataError, match=r"from -0\.5 to"):
        checked_sigmoids(np.array([[0.5, -0.5], [0.1, 1.0]]), Path("here"))
    logits = checked_sigmoids(np.array([[0.0, 2.0]]), Path("here"), logits=True)
    assert logits == pytest.approx(np.array([[0.5, 1 / (1 + math.exp(-2))]]))


@pytest.fixture(scope="module")
def several() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities [models, rows, labels], labels [rows, labels], members [models, rows], who are surer."""
    rng = np.random.default_rng(1)
    truth, members = rng.integers(0, 2, (300, 5)), rng.random((9, 300)) < 0.5
    hard = rng.normal(size=(300, 1))
    z = rng.normal(size=(9, 300, 5)) + hard + 1.2 * members[:, :, None]
    return 1 / (1 + np.exp(-np.where(truth, z, -z))), truth, members


def test_every_attack_runs_or_says_why_not(several) -> None:
    p, truth, members = several
    results = edgeprivacy.attack(
        p, truth, members, attacks=attacks.names(), population=(p[:, :60], truth[:60]), resamples=100
    )
    ran = {result.name: result.auc.value for result in results if result.skipped is None}
    assert {"loss", "attack-p", "lira.online", "rmia.offline", "difficulty", "quantile"} <= set(ran)
    assert min(ran.values()) > 0.6, ran
    for result in results:
        if result.skipped is not None:
            assert "independent" in result.skipped or "versions" in result.skipped, result.skipped
        else:
            assert attacks[result.name].rests_on_truth
    assert {"entropy", "nn", "salem3", "compleak.nr"} <= {r.name for r in results if r.skipped}


def test_the_attacks_see_what_the_loop_sees(several) -> None:
    p, truth, members = several
    (found,) = edgeprivacy.attack(p, truth, members, attacks=["loss"], resamples=100)
    own = np.where(truth, p[0], 1 - p[0])
    score = np.log(own / (1 - own)).mean(axis=1)
    wins = [(score[i] > score[j]) for i in np.flatnonzero(members[0]) for j in np.flatnonzero(~members[0])]
    assert found.auc.value == pytest.approx(np.mean(wins), abs=1e-6)


def test_signals_of_one_model_left_out_stay_of_independent_labels(several) -> None:
    from edgeprivacy.attacks.calibration import without

    p, truth, members = several
    two = np.stack([as_two_classes(model, truth, "here") for model in p])
    ones = np.ones(300, dtype=np.int64)
    known = Population(two[:, :50], ones[:50], 1e-30)
    signals = Signals(two, ones, members, np.ones_like(members), 1e-30, known, independent_labels=True)
    assert without(signals, 3).independent_labels
