"""Audits as real runs leave them: curves, intervals and histograms computed from drawn scores."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from edgeprivacy.gate import evaluate, parse_gate, verdict
from edgeprivacy.report import render
from edgeprivacy.results import (
    AcrossTargets,
    ArtifactResult,
    AttackResult,
    Audit,
    BalancedAccuracy,
    Curve,
    GateResult,
    Histogram,
    Metric,
    NullTest,
    Parity,
    TprAtFpr,
    Utility,
)

HOSTILE = "<script>alert('x')</script>"
LIMITS = (0.01, 0.001, 0.0001)


def _interval(value: float, n: int) -> tuple[float, float]:
    half = 1.96 * np.sqrt(max(value * (1 - value), 1e-4) / n)
    return float(max(0, value - half)), float(min(1, value + half))


def make_attack(name: str, shift: float, heavy: float = 0.0, n: int = 1250, seed: int = 0) -> AttackResult:
    """An attack whose member scores are shifted, with a share `heavy` of members far out."""
    rng = np.random.default_rng(seed)
    nonmembers = rng.normal(0, 1, n)
    members = rng.normal(shift, 1, n) + 3.5 * (rng.random(n) < heavy)
    truth, scores = np.repeat([1, 0], n), np.concatenate([members, nonmembers])
    fpr, tpr, _ = roc_curve(truth, scores)
    auc = float(roc_auc_score(truth, scores))
    points = []
    for limit in LIMITS:
        value = float(tpr[fpr <= limit].max())
        support = "ok" if limit * n >= 10 else "low" if limit * n >= 1 else "none"
        across = AcrossTargets(value * 0.97, 0.004, 17)
        points.append(TprAtFpr(limit, value, _interval(value, n), support, across))
    balanced = float(np.max(1 + tpr - fpr) / 2)
    half = 1.96 * np.sqrt(np.clip(tpr * (1 - tpr), 1e-4, None) / n)
    edges = np.linspace(scores.min(), scores.max(), 41)
    shares = [np.histogram(group, edges)[0] / n for group in (members, nonmembers)]
    return AttackResult(
        name=name,
        version="1",
        paper="Carlini et al. 2022, Membership Inference Attacks From First Principles",
        n_members=n,
        n_nonmembers=n,
        auc=Metric(auc, _interval(auc, n), AcrossTargets(auc - 0.004, 0.006, 17)),
        balanced_accuracy=BalancedAccuracy(balanced, _interval(balanced, n), None, "shadow"),
        tpr_at_fpr=tuple(points),
        pooled_rows=3 if name.startswith("lira") else 0,
        roc=Curve(
            tuple(fpr.tolist()),
            tuple(tpr.tolist()),
            tuple(np.clip(tpr - half, 0, 1).tolist()),
            tuple(np.clip(tpr + half, 0, 1).tolist()),
        ),
        histogram=Histogram(tuple(edges.tolist()), *(tuple(share.tolist()) for share in shares)),
    )


def skipped_attack(name: str, reason: str) -> AttackResult:
    return AttackResult(name, "1", "Zarifzadeh et al. 2024", 0, 0, skipped=reason)


def make_facts(dtype: str, sparsity: float, size: int) -> dict[str, Any]:
    def weight(name: str, shape: list[int], zeros: float) -> dict[str, Any]:
        return {
            "operator": "FULLY_CONNECTED",
            "name": name,
            "shape": shape,
            "dtype": dtype,
            "channel_axis": 0,
            "size": shape[0] * shape[1],
            "sparsity": zeros,
            "distinct": 211 if dtype == "int8" else 45210,
            "distinct_per_channel": 97 if dtype == "int8" else 178,
            "scales": shape[0] if dtype == "int8" else 0,
        }

    quantized = (
        {"scale": 1 / 256, "zero_point": -128} if dtype == "int8" else {"scale": None, "zero_point": None}
    )
    tensor = {"shape": [-1, 446], "dtype": dtype, **quantized}
    return {
        "container": "tflite",
        "sha256": "9c1e" * 16,
        "size_bytes": size,
        "gzip_bytes": size // 2,
        "inputs": [{"name": "serving_default_x:0", **tensor}],
        "outputs": [{"name": "StatefulPartitionedCall:0", **tensor, "shape": [-1, 30]}],
        "operators": {"FULLY_CONNECTED": 3, "SOFTMAX": 1},
        "weights": [
            weight("dense/MatMul", [256, 446], sparsity),
            weight("dense_1/MatMul", [128, 256], sparsity),
            weight("classifier/MatMul", [30, 128], 0.0),
        ],
        "output_grid": {"scale": 1 / 256, "zero_point": -128, "on": "probabilities"}
        if dtype == "int8"
        else None,
        "notes": [],
    }


def make_artifact(
    name: str, role: str, accuracy: float, shift: float, heavy: float, int8: bool, seed: int
) -> ArtifactResult:
    size = 154_216 if int8 else 604_132
    attacks = (
        make_attack("confidence", shift, 0.0, seed=seed),
        make_attack("modified-entropy", shift * 0.9, 0.0, seed=seed + 1),
        make_attack("lira.online", shift, heavy, seed=seed + 2),
        make_attack("lira.offline", shift * 0.8, heavy * 0.6, seed=seed + 3),
        skipped_attack("rmia.offline", "needs population rows, there are none"),
    )
    return ArtifactResult(
        name=name,
        role=role,  # type: ignore[arg-type]
        backend="tflite",
        format="int8" if int8 else "float32",
        defense=name.rpartition(".")[2],
        file=f"artifacts/{name}.tflite",
        sha256="9c1e" * 16,
        size_bytes=size,
        gzip_bytes=size // 2,
        utility=Utility(
            test_accuracy=Metric(
                accuracy, _interval(accuracy, 700), AcrossTargets(accuracy - 0.005, 0.011, 17)
            ),
            train_accuracy=Metric(0.98, (0.97, 0.99)),
        ),
        parity=Parity(0.0039, 2, 512) if role != "original" else None,
        attacks=attacks,
        facts=make_facts("int8" if int8 else "float32", 0.0 if role == "original" else 0.6, size),
        run={"runner": "host", "runtime": "LiteRT 2.3.0", "kernels": "XNNPACK", "threads": 1},
    )


@pytest.fixture(scope="session")
def audit() -> Audit:
    return make_audit()


def make_audit() -> Audit:
    """Six files of one recipe, a failed gate, all null tests passed but one not run."""
    artifacts = (
        make_artifact("original-float32", "original", 0.637, 1.5, 0.45, False, 1),
        make_artifact("prune60-float32.wemem", "candidate", 0.621, 0.7, 0.12, False, 11),
        make_artifact("prune60-int8.wemem", "candidate", 0.618, 0.68, 0.11, True, 21),
        make_artifact("prune60-float32.none", "control", 0.631, 1.4, 0.42, False, 31),
        make_artifact("prune60-int8.none", "control", 0.63, 1.35, 0.4, True, 41),
        make_artifact("prune60-int8.less-data", "control", 0.6, 0.8, 0.2, True, 51),
    )
    parsed = [parse_gate(text, ("lira.online",)) for text in ("tpr@1%fpr>0.1", "accuracy<0.5")]
    gates = evaluate(parsed, artifacts)
    word, code = verdict(gates, ())
    return Audit(
        verdict=word,
        exit_code=code,
        recipe_id="5d0f8c2a91b7e3d4",
        split={
            "design": "half",
            "seed": 0,
            "sha256": "77ab" * 16,
            "rows": {"pool": 3607, "test": 701, "validation": 301, "reference": 200, "calibration": 201},
        },
        null_tests=(
            NullTest("held-out-as-members", True, 0.41, "701 test rows through the members' path; AUC 0.507"),
            NullTest("permuted-labels", True, 0.62, "200 permutations of membership"),
            NullTest("blind", True, 0.33, "5-fold logistic regression on the inputs, AUC 0.498"),
            NullTest(
                "same-path", None, None, "no loader to load rows again; a difference in loading stays unseen"
            ),
        ),
        artifacts=artifacts,
        gates=gates,
        notes=("Every file was trained on half of the pool: an independent fair coin a row decided.",),
        recipe={"data": {"source": "location.npz"}, "prune": {"amount": 0.6}, "formats": ["float32", "int8"]},
        environment={
            "python": "3.11.7",
            "numpy": "2.2.1",
            "seconds": 812.4,
            "releases": {"trained": 51, "cached": 0},
        },
    )


@pytest.fixture(scope="session")
def confounded(audit: Audit) -> Audit:
    return make_confounded(audit)


def make_confounded(audit: Audit) -> Audit:
    """The same files with a failed null test: nothing else in the audit may be believed."""
    failed = NullTest(
        "held-out-as-members",
        False,
        0.0005,
        "701 test rows through the members' path are told from non-members with AUC 0.83",
    )
    return replace(audit, verdict="inconclusive", exit_code=3, null_tests=(failed, *audit.null_tests[1:]))


@pytest.fixture(scope="session")
def hostile(audit: Audit) -> Audit:
    """Every string a stranger controls holds markup, formulas or control characters."""
    bad = f"{HOSTILE}|`$\\frac$`\x1b[31m\x00[red]&\u202e"
    artifact = audit.artifacts[1]
    attack = replace(artifact.attacks[2], name=bad, paper=bad)
    return replace(
        audit,
        recipe_id=bad,
        artifacts=(
            replace(
                artifact,
                name=bad,
                file=f"../{bad}",
                format=bad,
                defense=bad,
                backend=bad,
                sha256=bad,
                attacks=(attack, skipped_attack(bad, bad)),
                facts={bad: bad, "weights": [{"name": bad}, bad], "inputs": bad, "operators": {bad: 1}},
                run={bad: [bad, {bad: None}]},
            ),
        ),
        null_tests=(NullTest(bad, False, 0.001, bad, bad),),
        gates=(GateResult(bad, bad, 0.2, (0.1, 0.3), "fail", bad),),
        notes=(bad,),
        split={bad: bad},
        recipe={bad: {bad: bad}},
        environment={bad: bad},
    )


@pytest.fixture(scope="session")
def barren() -> Audit:
    """A foreign file with too few rows and every attack skipped: no curve, no accuracy, no parity."""
    return Audit(
        verdict="inconclusive",
        exit_code=3,
        recipe_id=None,
        split={},
        null_tests=(),
        artifacts=(
            ArtifactResult(
                "model",
                "candidate",
                "tflite",
                "float32",
                "unknown",
                "model.tflite",
                "00" * 32,
                1000,
                900,
                Utility(),
                None,
                (skipped_attack("lira.online", "needs 2 or more shadows, there are 0"),),
            ),
        ),
        gates=(GateResult("auc>0.6", "auc > 0.6", None, None, "inconclusive", "no candidate was measured"),),
    )


@pytest.fixture(scope="session")
def samples(audit: Audit, confounded: Audit, hostile: Audit, barren: Audit) -> dict[str, Audit]:
    return {"audit": audit, "confounded": confounded, "hostile": hostile, "barren": barren}


@pytest.fixture(scope="session")
def pages(samples: dict[str, Audit]) -> dict[str, str]:
    """report.html of each sample, drawn once for all tests."""
    return {name: render(sample, "html") for name, sample in samples.items()}
