"""From signals to measured attacks: numbers against scikit-learn, skip reasons, spread, JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from edgeprivacy.attacks import DEFAULT_ATTACKS, Population, Signals, attacks, score_target
from edgeprivacy.confidences import Confidences, OutputGrid
from edgeprivacy.errors import UsageError
from edgeprivacy.measuring import (
    FPR_LIMITS,
    across_targets,
    chosen_attacks,
    measure_accuracy,
    measure_attacks,
    run_facts,
)

RESAMPLES = 100


def signals_of(models: int = 7, rows: int = 400, population: int = 100, leak: float = 1.5) -> Signals:
    """Four classes; logit-normal confidences that rise by `leak` for rows that trained a model."""
    rng = np.random.default_rng(models)
    members = rng.random((models, rows)) < 0.5

    def outputs(score: np.ndarray, labels: np.ndarray) -> np.ndarray:
        p = 1 / (1 + np.exp(-score))
        spread = np.repeat((1 - p)[..., None] / 3, 4, axis=2)
        np.put_along_axis(spread, np.broadcast_to(labels, p.shape)[..., None], p[..., None], axis=2)
        return spread.astype(np.float32)

    labels, others = rng.integers(0, 4, rows), rng.integers(0, 4, population)
    score = rng.normal(0.5, 1.5, rows) + rng.normal(size=(models, rows)) + leak * members
    far = rng.normal(0.5, 1.5, population) + rng.normal(size=(models, population))
    return Signals(
        outputs(score, labels),
        labels,
        members,
        np.ones_like(members),
        1e-30,
        Population(outputs(far, others), others, 1e-30),
    )


@pytest.fixture(scope="module")
def signals() -> Signals:
    return signals_of()


@pytest.fixture(scope="module")
def measured(signals: Signals):
    return measure_attacks(signals, DEFAULT_ATTACKS, RESAMPLES, 0)


def test_every_attack_gives_one_result_with_metrics_from_0_to_1(signals, measured) -> None:
    results, scores = measured
    assert [result.name for result in results] == list(DEFAULT_ATTACKS) == list(scores)
    for result in results:
        assert result.skipped is None
        assert result.n_members == signals.members[0].sum()
        assert result.n_members + result.n_nonmembers == 400
        metrics = [result.auc, result.balanced_accuracy, *result.tpr_at_fpr]
        for metric in metrics:
            low, high = metric.ci
            assert 0 <= low <= metric.value <= high <= 1
            assert metric.across_targets.n == signals.models
        balanced = result.balanced_accuracy
        assert balanced.threshold == "shadow"
        assert balanced.value == pytest.approx((1 + balanced.tpr - balanced.fpr) / 2, abs=2e-6)
        assert tuple(entry.fpr for entry in result.tpr_at_fpr) == FPR_LIMITS == (0.01, 0.001, 0.0001)
        assert {entry.definition for entry in result.tpr_at_fpr} == {"step_le"}


def test_auc_and_tpr_are_scikit_learns_and_the_counts(signals, measured) -> None:
    results, scores = measured
    truth = signals.members[0]
    for result in results:
        values = scores[result.name]
        assert result.auc.value == pytest.approx(roc_auc_score(truth, values), abs=1e-6)
        for entry in result.tpr_at_fpr:
            best = 0.0
            for limit in [np.inf, *np.unique(values)]:
                if np.mean(values[~truth] >= limit) <= entry.fpr:
                    best = max(best, np.mean(values[truth] >= limit))
            assert entry.value == pytest.approx(best, abs=1e-6)


def test_support_counts_expected_false_positives(measured) -> None:
    for result in measured[0]:  # about 200 non-members: 2, 0.2 and 0.02 expected
        assert [entry.support for entry in result.tpr_at_fpr] == ["low", "none", "none"]


def test_the_spread_is_over_every_model_as_the_target(signals, measured) -> None:
    result = next(result for result in measured[0] if result.name == "confidence.global")
    areas = [
        roc_auc_score(signals.members[k], score_target(attacks["confidence.global"], signals, k, 0).values)
        for k in range(signals.models)
    ]
    assert result.auc.across_targets.mean == pytest.approx(np.mean(areas), abs=1e-6)
    assert result.auc.across_targets.sd == pytest.approx(np.std(areas, ddof=1), abs=1e-6)


def test_results_are_json_without_nan_and_repeat(signals, measured) -> None:
    text = json.dumps([asdict(result) for result in measured[0]], allow_nan=False)
    again, _ = measure_attacks(signals, DEFAULT_ATTACKS, RESAMPLES, 0)
    assert json.dumps([asdict(result) for result in again]) == text
    assert len(text) < 400_000


def test_curves_and_histograms_are_well_formed(measured) -> None:
    for result in measured[0]:
        curve = result.roc
        assert np.all(np.diff(curve.fpr) > 0) and np.all(np.diff(curve.tpr) >= 0)
        assert curve.fpr[-1] == 1 and curve.tpr[-1] == 1
        assert np.all(np.array(curve.tpr_low) <= np.array(curve.tpr_high))
        histogram = result.histogram
        assert len(histogram.edges) == len(histogram.members) + 1
        for side in (histogram.members, histogram.nonmembers):
            assert sum(side) == pytest.approx(1, abs=1e-3)


def test_what_is_not_there_is_said_for_each_attack() -> None:
    alone = replace(signals_of(models=1), population=None)
    results, scores = measure_attacks(alone, DEFAULT_ATTACKS, RESAMPLES, 0)
    skipped = {result.name: result.skipped for result in results}
    assert skipped["lira.online"] is not None and "shadow" in skipped["lira.online"]
    assert "there are 0" in skipped["lira.online"] and "there are 0" in skipped["rmia.offline"]
    assert skipped["attack-p"] == "needs population rows, there are none"
    for result in results:
        if result.skipped:
            assert result.auc is None and result.balanced_accuracy is None and result.tpr_at_fpr == ()
            assert result.name not in scores
            assert result.n_members + result.n_nonmembers == 400
        else:
            assert result.balanced_accuracy.threshold in ("cross-fit", "shadow")
            assert result.auc.across_targets is None  # one model: nothing to spread over
    ran = {name for name, reason in skipped.items() if reason is None}
    assert ran == {"gap", "loss", "confidence", "confidence.global", "entropy", "modified-entropy", "nn"}
    json.dumps([asdict(result) for result in results], allow_nan=False)


def test_too_few_shadows_for_some() -> None:
    results, _ = measure_attacks(signals_of(models=2), ["lira.online", "confidence"], RESAMPLES, 0)
    online, by_confidence = results
    assert online.skipped == f"needs {attacks['lira.online'].needs.shadows} or more shadows, there are 1"
    assert by_confidence.skipped is None and by_confidence.balanced_accuracy.threshold == "shadow"


def test_attacks_by_name() -> None:
    assert chosen_attacks(()) == DEFAULT_ATTACKS
    assert chosen_attacks(["loss", "gap"]) == ("loss", "gap")
    with pytest.raises(UsageError, match=r"did you mean 'lira\.online'"):
        chosen_attacks(["gap", "lira.onlin"])


def test_another_seed_moves_intervals_not_values(signals, measured) -> None:
    (other,), _ = measure_attacks(signals, ["loss"], RESAMPLES, 1)
    first = next(result for result in measured[0] if result.name == "loss")
    assert other.auc.value == first.auc.value and other.auc.ci != first.auc.ci


def test_rows_outside_the_audit_are_not_measured(signals) -> None:
    audited = signals.audited.copy()
    audited[0, 100:] = False
    (result,), scores = measure_attacks(replace(signals, audited=audited), ["loss"], RESAMPLES, 0)
    assert result.n_members + result.n_nonmembers == 100
    inside = roc_auc_score(signals.members[0, :100], scores["loss"][:100])
    assert result.auc.value == pytest.approx(inside, abs=1e-6)


def test_accuracy_with_exact_interval_and_spread() -> None:
    from scipy.stats import binomtest

    p = np.eye(2, dtype=np.float32)[[0] * 80 + [1] * 20]
    labels = np.zeros(100, np.int64)
    metric = measure_accuracy(p, labels, [0.8, 0.7, 0.9])
    exact = binomtest(80, 100).proportion_ci(0.95)
    assert metric.value == 0.8 and metric.ci == pytest.approx((exact.low, exact.high), abs=1e-4)
    assert metric.across_targets == across_targets([0.8, 0.7, 0.9])
    assert (metric.across_targets.mean, metric.across_targets.sd) == (0.8, 0.1)
    assert measure_accuracy(p, labels, [0.8, 0.7]).across_targets is None


def test_run_facts_keep_what_repeats() -> None:
    p = np.full((2, 2), 0.5, np.float32)
    facts = {"runtime": "x", "seconds": 1.5, "rows_per_second": 3.0}
    found = run_facts(
        Confidences(p, np.array(["a", "b"]), np.zeros(2, np.int64), None, OutputGrid(1 / 256, -128), facts)
    )
    assert found == {"runtime": "x", "log_floor": 1 / 512}
