"""Sets of versions: which are made, what they are compared with, and that gates see those that ship."""

from dataclasses import replace

import numpy as np
import pytest

from edgeprivacy.attacks import Population, Signals, score_target
from edgeprivacy.attacks import attacks as registry
from edgeprivacy.gate import evaluate, parse_gate
from edgeprivacy.measuring import measure_attacks
from edgeprivacy.metrics.paired import paired_differences
from edgeprivacy.results import ArtifactResult, Audit, Utility
from edgeprivacy.seeding import derive_seed
from edgeprivacy.version_sets import joined, measure_set, plan_sets

LIMITS = (0.1, 0.01)
SINGLE, PAIR, WHOLE = "lira.online", "joint.difference", "joint.lira"


def answers(gain: float, noise_seed: int, models: int = 9, rows: int = 500) -> Signals:
    """One version of nine models; all versions share members, rows and most of their noise."""
    shared, own = np.random.default_rng(0), np.random.default_rng(noise_seed)
    labels = shared.integers(0, 3, rows)
    members = shared.random((models, rows)) < 0.5

    def outputs(phi: np.ndarray, y: np.ndarray) -> np.ndarray:
        p = 1 / (1 + np.exp(-phi))
        out = np.repeat((1 - p)[..., None] / 2, 3, axis=2)
        out[:, np.arange(len(y)), y] = p
        return out.astype(np.float32)

    common = shared.normal(1, 2, rows) + 0.5 * shared.normal(size=(models, rows))
    phi = common + own.normal(size=(models, rows)) + gain * members
    z = outputs(shared.normal(1, 2, (models, 100)) + own.normal(size=(models, 100)), labels[:100])
    population = Population(z, labels[:100], 1e-30)
    return Signals(outputs(phi, labels), labels, members, np.ones_like(members), 1e-30, population)


@pytest.fixture(scope="module")
def versions() -> dict[str, Signals]:
    return {"original": answers(0.3, 1), "a": answers(1.0, 2), "b": answers(1.2, 3), "plain": answers(1.2, 4)}


@pytest.fixture(scope="module")
def results(versions: dict[str, Signals]) -> list[ArtifactResult]:
    about = {
        "original": ("original", "none", 400),
        "a": ("candidate", "wemem", 100),
        "b": ("candidate", "wemem", 300),
        "plain": ("control", "none", 300),
    }
    found = []
    for name, (role, defense, size) in about.items():
        attacked, _ = measure_attacks(versions[name], (SINGLE,), 100, 7, LIMITS)
        found.append(
            ArtifactResult(
                *(name, role, "tflite", "float32", defense, f"{name}.tflite", "0" * 64, size, size),
                Utility(),
                None,
                attacked,
            )
        )
    return found


def test_the_sets_that_are_made(results):
    planned = plan_sets(results, (SINGLE, PAIR, WHOLE))
    described = [
        (p.name, p.role, tuple(results[i].name for i in p.positions), p.with_original, p.attacks)
        for p in planned
    ]
    assert described == [
        ("wemem: 2 files", "candidate", ("b", "a"), False, (WHOLE,)),  # the larger file first
        ("wemem: 2 files and the original", "control", ("original", "b", "a"), True, (WHOLE,)),
        ("a and the original", "control", ("original", "a"), True, (PAIR, WHOLE)),
        ("b and the original", "control", ("original", "b"), True, (PAIR, WHOLE)),
        ("plain and the original", "control", ("original", "plain"), True, (PAIR, WHOLE)),
    ]
    assert planned[0].best == (2, SINGLE)  # b leaks most, and is the third artifact
    assert plan_sets(results, (SINGLE,)) == []


def test_a_set_is_compared_with_the_best_single_version(results, versions):
    planned = plan_sets(results, (SINGLE, WHOLE))[0]
    names = [results[i].name for i in planned.positions]
    signals = [versions[name] for name in names]
    found, scores = measure_set(planned, names, signals, 200, 7, LIMITS)
    assert (found.versions, found.best_artifact, found.best_attack) == (("b", "a"), "b", SINGLE)
    together = score_target(registry[WHOLE], joined(signals, names, False), 0).values
    np.testing.assert_allclose(scores[WHOLE], together)
    alone = score_target(registry[SINGLE], versions["b"], 0).values
    expected = paired_differences(
        together, alone, versions["a"].members[0], LIMITS, 200, derive_seed(7, "gain", WHOLE)
    )
    gain = found.gain(WHOLE)
    assert gain.auc.value == pytest.approx(expected.auc.value, abs=1e-6)
    assert gain.auc.value == pytest.approx(
        found.attacks[0].auc.value - results[2].attacks[0].auc.value, abs=2e-6
    )
    assert gain.auc.ci == pytest.approx(expected.auc.ci, abs=1e-6) and gain.auc.ci[0] > 0
    assert [limit for limit, _ in gain.tpr_at_fpr] == list(LIMITS)


def test_gates_look_at_sets_that_ship_and_not_at_those_with_the_original(results, versions):
    sets = []
    for planned in plan_sets(results, (SINGLE, WHOLE)):
        names = [results[i].name for i in planned.positions]
        sets.append(measure_set(planned, names, [versions[n] for n in names], 100, 7, LIMITS)[0])
    single = max(r.attacks[0].auc.value for r in results[1:3])
    ships = sets[0].attacks[0].auc.value
    assert ships > single
    between = 0.5 * (ships + single)
    gate = parse_gate(f"auc>{between}")
    assert evaluate([gate], results)[0].verdict == "pass"
    decided = evaluate([gate], results, sets=sets)[0]
    assert decided.verdict == "fail" and "joint.lira on wemem: 2 files" in decided.detail
    named = evaluate([gate], results, sets=sets[1:])[0]
    assert named.verdict == "pass"  # the original does not ship


def test_an_audit_with_sets_is_read_back_whole(results, versions):
    planned = plan_sets(results, (SINGLE, WHOLE))[0]
    names = [results[i].name for i in planned.positions]
    one, _ = measure_set(planned, names, [versions[n] for n in names], 100, 7, LIMITS)
    audit = Audit("none", 0, None, {}, (), tuple(results), version_sets=(one,))
    again = Audit.from_dict(audit.to_dict())
    assert again == audit
    older = {k: v for k, v in audit.to_dict().items() if k != "version_sets"}
    assert Audit.from_dict(older) == replace(audit, version_sets=())
