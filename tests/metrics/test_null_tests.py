import numpy as np
import pytest
from scipy.stats import kstest, mannwhitneyu

from edgeprivacy.errors import DataError
from edgeprivacy.metrics import null_tests
from edgeprivacy.metrics.null_tests import (
    blind_classifier_test,
    permuted_labels_test,
    rank_sum_test,
    same_outputs_test,
)


def test_rank_sum_against_exact_permutations():
    a, b = np.array([1.0, 3.0, 4.0, 6.0, 8.5]), np.array([2.0, 5.0, 7.0, 9.0, 10.0, 11.0])
    exact = mannwhitneyu(a, b, method="exact").pvalue
    assert rank_sum_test(a, b).p_value == pytest.approx(exact, abs=0.03)


def test_rank_sum_level_power_and_ties():
    rng = np.random.default_rng(0)
    p = [rank_sum_test(rng.integers(0, 4, 60), rng.integers(0, 4, 90)).p_value for _ in range(600)]
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.03)
    found = rank_sum_test(rng.normal(0.5, 1, 300), rng.normal(0, 1, 300))
    assert found.p_value < 1e-4 and found.statistic > 0.6
    assert rank_sum_test(np.ones(5), np.ones(7)) == (1.0, 0.5, "all 5 + 7 scores are equal")
    with pytest.raises(DataError):
        rank_sum_test(np.array([]), np.ones(3))


def test_permuted_labels_hold_their_level_even_for_leaking_scores():
    rng = np.random.default_rng(0)
    p = []
    for trial in range(120):
        members = rng.random(120) < 0.5
        scores = np.round(rng.normal(2.0 * members, 1.0), 1)
        p.append(permuted_labels_test(scores, members, n_permutations=40, seed=trial).p_value)
    assert np.mean(np.array(p) < 0.1) < 0.1 + 3 * np.sqrt(0.09 / 120)


def test_permuted_labels_catch_ties_broken_by_order(monkeypatch):
    """A measurement that gives tied members the better place is found out."""
    rng = np.random.default_rng(0)
    members, scores = rng.random(400) < 0.5, rng.integers(0, 5, 400).astype(float)
    assert permuted_labels_test(scores, members).p_value > 0.01
    honest = null_tests.Roc.from_scores

    class Flattering(null_tests.Roc):
        @classmethod
        def from_scores(cls, values, truth):
            return honest(values + 1e-9 * truth, truth)

    monkeypatch.setattr(null_tests, "Roc", Flattering)
    assert permuted_labels_test(scores, members).p_value < 1e-6


def test_permuted_labels_catch_an_attack_that_reads_the_answers():
    rng = np.random.default_rng(0)
    members, scores = rng.random(300) < 0.5, rng.normal(size=300)
    found = permuted_labels_test(scores, members, 20, rescore=lambda permuted: scores + 0.5 * permuted)
    assert found.p_value < 1e-6 and found.statistic > 0.05


def test_blind_classifier_holds_its_level():
    """Members and non-members are halves of the same rows: p-values are uniform or larger."""
    rng = np.random.default_rng(0)
    p = []
    for trial in range(100):
        x = rng.normal(size=(160, 12)) @ rng.normal(size=(12, 12))
        p.append(blind_classifier_test(x[:80], x[80:], seed=trial, trees=10).p_value)
    p = np.array(p)
    assert np.mean(p < 0.05) <= 0.05 + 2 * np.sqrt(0.0475 / 100)
    assert kstest(p, "uniform", alternative="greater").pvalue > 0.01


def images(rng, rows):
    """Smooth random fields, 16 x 16 x 3, of whole numbers 0..255."""
    coarse = rng.uniform(0, 255, (rows, 4, 4, 3))
    return np.round(coarse.repeat(4, axis=1).repeat(4, axis=2) * 0.8 + rng.uniform(0, 50, (rows, 16, 16, 3)))


def shifted(x, rng):
    out = np.zeros_like(x)
    for row, image in enumerate(x):
        padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
        top, left = rng.integers(0, 5, 2)
        out[row] = padded[top : top + 16, left : left + 16]
    return out


@pytest.mark.parametrize("what", ["crop", "noise", "scale", "source"])
def test_blind_classifier_sees_a_confounded_member_path(what):
    rng = np.random.default_rng(1)
    members, others = images(rng, 250), images(rng, 250)
    confounded = {
        "crop": lambda: shifted(members, rng),
        "noise": lambda: members + rng.normal(0, 2.0, members.shape),
        "scale": lambda: members * 0.93,
        "source": lambda: members + 25.0 * (np.arange(16) / 16)[:, None, None],
    }[what]()
    found = blind_classifier_test(confounded, others)
    assert found.p_value < 1e-4 and found.statistic > 0.6


def test_blind_classifier_on_binary_constant_and_bad_inputs():
    rng = np.random.default_rng(0)
    x = (rng.random((300, 446)) < 0.1).astype(np.uint8)
    assert blind_classifier_test(x[:150], x[150:]).p_value > 0.001
    sparse = (rng.random((150, 446)) < 0.08).astype(np.uint8)
    assert blind_classifier_test(x[:150], sparse).p_value < 1e-4
    assert blind_classifier_test(np.zeros((20, 3)), np.zeros((20, 3))).p_value > 0.05
    with pytest.raises(DataError, match="shape"):
        blind_classifier_test(np.zeros((9, 3)), np.zeros((9, 4)))
    with pytest.raises(DataError, match="or more rows"):
        blind_classifier_test(np.zeros((2, 3)), np.zeros((9, 3)))


def test_same_outputs():
    rng = np.random.default_rng(0)
    p, x = rng.random((6, 3)), rng.random((6, 2, 2))
    assert same_outputs_test(p, p.copy(), x, x.copy())[:2] == (1.0, 0.0)
    q, z = p.copy(), x.copy()
    q[2, 1] += 1e-7
    z[4, 0, 0] = 0
    found = same_outputs_test(p, q, x, z)
    assert found[:2] == (0.0, 2.0)
    assert found.detail == "1 of 6 rows differ in their outputs; 1 of 6 rows differ in their inputs"
    hashes = np.array(["a", "b", "c", "d", "e", "f"])
    assert same_outputs_test(p, p, hashes, hashes).p_value == 1.0
    with pytest.raises(DataError):
        same_outputs_test(p, p[:5])
