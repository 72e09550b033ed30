"""Models with one sigmoid and with rare classes, end to end as files."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from edgeprivacy.attacks import DEFAULT_ATTACKS

FEATURES, ROWS = 10, 360
WITHOUT_SHADOWS = {"lira.online", "lira.online.global", "lira.offline", "rmia.offline"}


def linear(keras: Any, weights: np.ndarray, activation: str, path: Path) -> Path:
    """A file of one dense layer [features, outputs]."""
    import tensorflow as tf

    outputs = weights.shape[1]
    model = keras.Sequential(
        [keras.layers.Input((FEATURES,)), keras.layers.Dense(outputs, activation=activation, use_bias=False)]
    )
    model.set_weights([weights.astype(np.float32)])
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    return path


def table(path: Path, x: np.ndarray, y: np.ndarray) -> Path:
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([*(f"f{column}" for column in range(x.shape[1])), "label"])
        writer.writerows([*row, label] for row, label in zip(x.tolist(), y.tolist(), strict=True))
    return path


def attacks_of(done: Any) -> dict[str, Any]:
    assert done.returncode in (0, 3), done.stderr
    (artifact,) = json.loads(done.stdout)["artifacts"]
    return {attack["name"]: attack for attack in artifact["attacks"]}


def check(attacks: dict[str, Any]) -> None:
    """Every default attack ran, or says what it lacks."""
    assert set(attacks) == set(DEFAULT_ATTACKS)
    skipped = {name: attack["skipped"] for name, attack in attacks.items() if attack.get("skipped")}
    assert set(skipped) == WITHOUT_SHADOWS
    assert all("shadows, there are 0" in reason for reason in skipped.values())


@pytest.mark.parametrize(("outputs", "activation"), [(1, "sigmoid"), (3, "softmax")])
def test_every_default_attack_runs_or_says_why_not(
    keras: Any, in_process: Callable[..., Any], tmp_path: Path, outputs: int, activation: str
) -> None:
    rng = np.random.default_rng(outputs)
    weights = rng.normal(size=(FEATURES, outputs))
    file = linear(keras, weights, activation, tmp_path / "model.tflite")
    x = rng.normal(size=(ROWS, FEATURES)).astype(np.float32)
    z = x @ weights
    if outputs == 1:
        y = (z[:, 0] > 0).astype(int)
        p_y = 1 / (1 + np.exp(-np.where(y == 1, z[:, 0], -z[:, 0])))
    else:
        y = np.where(rng.random(ROWS) < 0.92, 0, rng.integers(1, 3, ROWS))  # two rare classes
        e = np.exp(z - z.max(axis=1, keepdims=True))
        p_y = (e / e.sum(axis=1, keepdims=True))[np.arange(ROWS), y]
    # The surer half are the "members": an attack on p_y must find them.
    inside = p_y + rng.normal(size=ROWS) / 4 > np.median(p_y)
    sides = [table(tmp_path / f"{name}.csv", x[mask], y[mask])
             for name, mask in (("members", inside), ("nonmembers", ~inside))]  # fmt: skip
    line = ("--members", sides[0], "--nonmembers", sides[1], "--json", "-q", "--seed", 3)
    attacks = attacks_of(in_process("audit", file, *line, cwd=tmp_path))
    check(attacks)
    assert attacks["confidence.global"]["metrics"]["auc"]["value"] > 0.7
    saved = next((tmp_path / "edgeprivacy-out").glob("audit-model-*")) / "confidences"
    parts = [
        part
        for side in ("members", "nonmembers", "population")
        for part in (f"--{side}", saved / f"model.{side}.npz")
    ]
    again = attacks_of(in_process("attack", *parts, "--json", "-q", "--seed", 3, cwd=tmp_path))
    check(again)
    for name in ("confidence.global", "attack-p", "loss"):
        assert again[name]["metrics"]["auc"] == attacks[name]["metrics"]["auc"]
    kept = np.load(saved / "model.nonmembers.npz")
    rows = [int(row_id.split(":")[-1]) for row_id in kept["row_ids"].tolist()]
    where = np.concatenate([np.flatnonzero(inside), np.flatnonzero(~inside)[rows]])
    expected = roc_auc_score(inside[where], p_y[where])
    assert attacks["confidence.global"]["metrics"]["auc"]["value"] == pytest.approx(expected, abs=1e-4)
