"""Drift between two runners' answers, against numbers counted by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgeprivacy.confidences import Confidences, OutputGrid, Performance
from edgeprivacy.drift import drift_between, equal, with_attack
from edgeprivacy.gate import cases, parse_gate
from edgeprivacy.report import render
from edgeprivacy.report.device_words import device_rows
from edgeprivacy.results import (
    ArtifactResult,
    AttackResult,
    Audit,
    Drift,
    Metric,
    TprAtFpr,
    Utility,
)


def answers(probabilities: list[list[float]], raw: list[list[int]] | None = None) -> Confidences:
    p = np.array(probabilities, np.float32)
    return Confidences(
        p,
        np.arange(len(p)).astype(np.str_),
        np.zeros(len(p), np.int64),
        raw=None if raw is None else np.array(raw, np.int8),
    )


def test_differences_flips_and_steps_are_counted() -> None:
    here = answers([[0.5, 0.5], [0.9, 0.1], [0.4, 0.6]], [[0, 0], [100, -128], [-3, 5]])
    there = answers([[0.5, 0.5], [0.6, 0.4], [0.6, 0.4]], [[0, 0], [127, -128], [-3, 7]])
    found = drift_between(here, there, "native")
    assert (found.versus, found.rows, found.top1_flips, found.max_lsb) == ("native", 3, 1, 27)
    assert found.max_abs == pytest.approx(0.3, abs=1e-6)
    assert not equal(found) and equal(drift_between(here, here, "host"))


def test_the_same_probabilities_from_other_integers_are_not_equal() -> None:
    assert not equal(drift_between(answers([[1, 0]], [[1, 0]]), answers([[1, 0]], [[2, 0]]), "host"))
    assert not equal(Drift("host", not_run="no interpreter"))


def test_integers_of_different_grids_are_not_compared() -> None:
    here = replace(answers([[0.7, 0.3]], [[4, 1]]), grid=OutputGrid(0.1, 0, "logits"))
    there = replace(answers([[0.7, 0.3]], [[51, -51]]), grid=OutputGrid(1 / 256, -128))
    assert drift_between(here, there, "host").max_lsb is None


def test_not_a_number_is_the_largest_difference() -> None:
    found = drift_between(answers([[np.nan, 1.0]]), answers([[0.0, 1.0]]), "host")
    assert found.max_abs == 1.0


def attack(name: str, tpr: float, auc: float, support: Any = "ok") -> AttackResult:
    entry = TprAtFpr(0.01, tpr, (tpr, tpr), support)
    return AttackResult(name, "1", "paper", 2000, 2000, auc=Metric(auc, (auc, auc)), tpr_at_fpr=(entry,))


def artifact(**changes: Any) -> ArtifactResult:
    known: dict[str, Any] = {
        "name": "int8",
        "role": "candidate",
        "backend": "tflite",
        "format": "int8",
        "defense": "none",
        "file": "int8.tflite",
        "sha256": "0" * 64,
        "size_bytes": 1000,
        "gzip_bytes": 500,
        "utility": Utility(Metric(0.6, (0.5, 0.7))),
        "parity": None,
        "attacks": (attack("weak", 0.1, 0.9), attack("strong", 0.4, 0.8)),
    }
    return ArtifactResult(**{**known, **changes})


def test_the_worst_attack_here_is_set_beside_the_same_attack_there() -> None:
    there = (attack("weak", 0.5, 0.9), attack("strong", 0.3, 0.8))
    found = with_attack(Drift("host"), artifact(), there)
    assert (found.attack, found.metric, found.here, found.there) == ("strong", "tpr@1%fpr", 0.4, 0.3)
    rough = artifact(attacks=(attack("weak", 0.1, 0.9, "low"), attack("strong", 0.4, 0.8, "low")))
    found = with_attack(Drift("host"), rough, there)
    assert (found.attack, found.metric, found.here, found.there) == ("weak", "auc", 0.9, 0.9)


PERFORMANCE = Performance(200, 20, 310.0, 41.0, 1520.0, 24 << 20, 9 << 20)
DEVICE = "adb:emu-1"


def device_audit() -> Audit:
    """The same file on two devices, one of which leaks more, with an original each."""
    on = artifact(
        name=f"int8@{DEVICE}",
        device=DEVICE,
        shadow_device="host: the answers are the host's",
        drift=(
            Drift("host", 4000, 1.2e-7, 0, 0, attack="strong", metric="tpr@1%fpr", here=0.4, there=0.39),
            Drift("native", not_run="no <b>compiler</b>"),
        ),
        performance=PERFORMANCE,
        run={"model_name": "Pixel\u202e 8", "android": "14", "abi": "arm64-v8a"},
    )
    host = artifact(name="int8@host", attacks=(attack("strong", 0.1, 0.6),))
    originals = [
        replace(o, name=f"original@{o.device}", role="original", utility=Utility(Metric(accuracy, (0, 1))))
        for o, accuracy in ((on, 0.7), (host, 0.9))
    ]
    return Audit("none", 0, None, {}, (), (on, host, *originals))


def test_an_audit_with_devices_survives_json() -> None:
    audit = device_audit()
    assert Audit.from_dict(json.loads(json.dumps(audit.to_dict()))) == audit


@pytest.mark.parametrize("format", ["html", "markdown", "terminal"])
def test_every_report_shows_drift_speed_and_device(format: str) -> None:
    text = " ".join(render(device_audit(), format).split())
    for told in (
        "emu-1",
        "Android 14",
        "at most 0 steps of the grid",
        "no top class flips",
        "41 µs",
        "1.5 ms",
    ):
        assert told in text, told
    assert "<b>compiler" not in text or format == "terminal"
    assert "\u202e" not in text


def test_rows_are_of_files_that_ran_elsewhere() -> None:
    (first, second) = device_rows(device_audit())
    assert first.artifact.role == "candidate" and second.artifact.role == "original"
    assert first.attack == "strong tpr@1%fpr 40.0% here, 39.0% with the host's answers"
    assert first.memory == "24.0 MiB peak, 9.0 MiB of it before the file"


def test_a_gate_on_a_file_looks_at_it_on_every_device() -> None:
    artifacts = device_audit().artifacts
    both = cases(
        parse_gate("tpr@1%fpr>0.2 for artifact=int8 for attack=strong", check_attacks=False), artifacts
    )
    assert {case.artifact: case.verdict for case in both} == {f"int8@{DEVICE}": "fail", "int8@host": "pass"}
    expression = f"tpr@1%fpr>0.2 for artifact=int8@{DEVICE} for attack=strong"
    one = cases(parse_gate(expression, check_attacks=False), artifacts)
    assert [case.artifact for case in one] == [f"int8@{DEVICE}"]


def test_a_drop_of_accuracy_is_from_the_original_on_the_same_device() -> None:
    found = cases(parse_gate("accuracy_drop>0.2"), device_audit().artifacts)
    assert {case.artifact: round(case.value or 0, 6) for case in found} == {
        f"int8@{DEVICE}": 0.1,
        "int8@host": 0.3,
    }
