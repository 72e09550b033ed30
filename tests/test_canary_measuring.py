"""Canaries measured: their rows alone, every model in turn, against scikit-learn, and back from JSON."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from edgeprivacy.attacks import DEFAULT_ATTACKS, Population, Signals, attacks, score_target
from edgeprivacy.canary_measuring import apart, measure_canaries, poolable
from edgeprivacy.data.split import Split
from edgeprivacy.measuring import FPR_LIMITS, measure_attacks
from edgeprivacy.results import ArtifactResult, Audit, Utility

CANARIES = np.arange(240) % 4 == 0


def pool(models: int = 7, leak: float = 4.0) -> Signals:
    """Three classes; confidences rise a little for members, and by `leak` for members among the canaries."""
    rng = np.random.default_rng(0)
    rows = len(CANARIES)
    members = rng.random((models, rows)) < 0.5
    labels, others = rng.integers(0, 3, rows), rng.integers(0, 3, 80)

    def outputs(score: np.ndarray, truth: np.ndarray) -> np.ndarray:
        p = 1 / (1 + np.exp(-score))
        spread = np.repeat((1 - p)[..., None] / 2, 3, axis=2)
        np.put_along_axis(spread, np.broadcast_to(truth, p.shape)[..., None], p[..., None], axis=2)
        return spread.astype(np.float32)

    score = rng.normal(0, 1.5, rows) + rng.normal(size=(models, rows)) + 0.3 * members
    score += np.where(CANARIES, leak * members - 3, 0)
    far = outputs(rng.normal(0, 1.5, 80) + rng.normal(size=(models, 80)), others)
    audited = np.broadcast_to(~CANARIES, members.shape)
    partner = np.array([-1, *(np.arange(models - 1) ^ 1) + 1])
    return Signals(
        outputs(score, labels), labels, members, audited, 1e-30, Population(far, others, 1e-30), partner
    )


def split_of(signals: Signals, design: str = "half", canaries: np.ndarray = CANARIES) -> Split:
    ids = np.array([f"r{row}" for row in range(len(canaries))])
    return Split(
        design, 0, {"pool": ids}, signals.members, None, {}, "", canary_ids=ids[canaries], canary_kind="ood"
    )


@pytest.fixture(scope="module")
def canaries() -> Signals:
    found = apart(pool(), split_of(pool()))[1]
    assert found is not None
    return found


@pytest.fixture(scope="module")
def measured(canaries: Signals):
    return measure_canaries(canaries, DEFAULT_ATTACKS, 100, 0)


def test_rows_are_told_apart() -> None:
    signals = replace(pool(), gathered={"asked": np.arange(7 * 240 * 2).reshape(7, 240, 2)})
    population, canaries = apart(signals, split_of(signals))
    assert canaries is not None
    for part, rows in ((population, ~CANARIES), (canaries, CANARIES)):
        np.testing.assert_array_equal(part.probabilities, signals.probabilities[:, rows])
        np.testing.assert_array_equal(part.labels, signals.labels[rows])
        np.testing.assert_array_equal(part.members, signals.members[:, rows])
        np.testing.assert_array_equal(part.gathered["asked"], signals.gathered["asked"][:, rows])
        assert part.audited.all() and part.population is signals.population
    assert population.partner is signals.partner and canaries.partner is None
    same, none = apart(signals, split_of(signals, canaries=np.zeros(240, dtype=bool)))
    assert same is signals and none is None


def test_canaries_shape_nothing_that_is_said_of_the_population() -> None:
    said = []
    for leak in (0.0, 9.0):
        signals = pool(leak=leak)
        said.append(measure_attacks(apart(signals, split_of(signals))[0], ("lira.online", "nn"), 100, 0)[0])
    assert said[0] == said[1]


@pytest.mark.parametrize("name", ["loss", "lira.online", "lira.offline", "rmia.offline"])
def test_pooled_numbers_are_those_of_every_model_attacked_by_itself(name: str, canaries, measured) -> None:
    result = next(result for result in measured if result.name == name)
    seeds = [score_target(attacks[name], canaries, model, 0).values for model in range(7)]
    scores, truth = np.concatenate(seeds), canaries.members.ravel()
    assert result.targets == 7 and result.trials == 60
    assert (result.n_members, result.n_nonmembers) == (truth.sum(), (~truth).sum())
    assert result.auc.value == pytest.approx(roc_auc_score(truth, scores), abs=1e-6)
    fpr, tpr, _ = roc_curve(truth, scores, drop_intermediate=False)
    for entry in result.tpr_at_fpr:
        assert entry.value == pytest.approx(tpr[fpr <= entry.fpr].max(), abs=1e-6)
    each = [roc_auc_score(canaries.members[model], seeds[model]) for model in range(7)]
    assert result.auc.across_targets.mean == pytest.approx(np.mean(each), abs=1e-6)
    assert [entry.support for entry in result.tpr_at_fpr] == ["low", "none", "none"]


def test_every_default_attack_finds_the_canaries(measured) -> None:
    assert [result.name for result in measured] == list(DEFAULT_ATTACKS)
    for result in measured:
        assert result.skipped is None and result.roc is None and result.histogram is None
        for metric in (result.auc, result.balanced_accuracy, *result.tpr_at_fpr):
            assert metric.ci[0] <= metric.value <= metric.ci[1]
        assert result.balanced_accuracy.threshold == "shadow"
    assert max(result.auc.value for result in measured) > 0.9


def test_the_target_alone_where_the_others_are_not_like_it(canaries) -> None:
    assert poolable(split_of(pool()), 7) and poolable(split_of(pool(), "disjoint"), 7)
    assert not poolable(split_of(pool(), "given"), 7) and not poolable(split_of(pool()), 2)
    (alone,) = measure_canaries(canaries, ("loss",), 100, 0, FPR_LIMITS, pooled=False)
    assert alone.targets == 1 and alone.n_members == canaries.members[0].sum() == alone.trials
    scores = score_target(attacks["loss"], canaries, 0).values
    assert alone.auc.value == pytest.approx(roc_auc_score(canaries.members[0], scores), abs=1e-6)


def test_an_attack_that_cannot_run_says_why(canaries) -> None:
    without = replace(canaries, population=None)
    (skipped,) = measure_canaries(without, ("rmia.offline",), 100, 0)
    assert skipped.auc is None and "population" in skipped.skipped


def test_an_audit_keeps_them(canaries, measured) -> None:
    artifact = ArtifactResult(
        "a", "candidate", "tflite", "int8", "none", "a.tflite", "0", 1, 1, Utility(), None, (), {}, {}
    )
    audit = Audit("none", 0, None, {}, (), (replace(artifact, canary_attacks=measured),))
    content = audit.to_dict()
    assert content["artifacts"][0]["canary_attacks"][0]["metrics"]["auc"]["value"] == measured[0].auc.value
    again = Audit.from_dict(content)
    assert again.artifacts[0].canary_attacks == measured
    del content["artifacts"][0]["canary_attacks"]  # an audit.json from before there were canaries
    assert Audit.from_dict(content).artifacts[0].canary_attacks == ()
