"""Every registered defense computes the same loss and gradient in TensorFlow and in torch.

A defense is in the first test by being registered; further tests name those that want more than a batch.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest

from edgeprivacy.defenses import Batch, Defense, TrainingRows, defenses, make_defense

pytest.importorskip("tensorflow", reason="needs the extra tflite")
pytest.importorskip("torch", reason="needs the extra executorch")
pytestmark = [pytest.mark.tflite, pytest.mark.executorch]

CASES = {"usual": (64, 10, 2.0), "two classes": (33, 2, 2.0), "sure": (40, 30, 30.0), "one row": (1, 5, 1.0)}
"""Rows, classes and spread of the logits."""


def arrays(case: str) -> tuple[np.ndarray, np.ndarray]:
    """Logits [rows, classes] and labels [rows]."""
    rows, classes, spread = CASES[case]
    rng = np.random.default_rng(len(case))
    logits = rng.normal(size=(rows, classes)).astype(np.float32) * np.float32(spread)
    return logits, rng.integers(0, classes, rows)


def columns_of(defense: Defense, labels: np.ndarray, classes: int) -> dict[str, np.ndarray]:
    """What the defense wants to see of rows of which everything that can be prepared is known."""
    rng = np.random.default_rng(7)
    soft = rng.dirichlet(np.ones(classes), len(labels)).astype(np.float32)
    if defense.scores_weights:  # members and others take turns, as a probe meets them
        untrained = np.maximum(soft, np.finfo(np.float32).tiny)
        return {"member": (np.arange(len(labels)) % 2 == 0).astype(np.float32), "untrained": untrained}
    return defense.columns(TrainingRows(labels, classes, rng.random(len(labels)), soft))


def mixed_in(defense: Defense, labels: np.ndarray) -> tuple[np.ndarray, float] | None:
    """Where the defense mixes inputs: the labels of each row's partner, and the rows' own share."""
    return (np.random.default_rng(6).permutation(labels), 0.3) if defense.mixing else None


def beside(defense: Defense, logits: np.ndarray) -> dict[str, np.ndarray]:
    """Reference rows' logits and labels, where the defense wants some."""
    rng = np.random.default_rng(8)
    return {
        "logits": rng.normal(size=logits.shape).astype(np.float32),
        "labels": rng.integers(0, max(2, logits.shape[1]), len(logits)),
    }


def opponent_of(defense: Defense, logits: np.ndarray) -> list[np.ndarray]:
    declared = defense.opponent()
    return [] if declared is None else declared.start(max(2, logits.shape[1]), np.random.default_rng(9))


def in_tensorflow(
    defense: Defense, logits: np.ndarray, labels: np.ndarray, epoch: int = 0
) -> tuple[float, np.ndarray]:
    from edgeprivacy.backends.tflite.frameworks import tf
    from edgeprivacy.backends.tflite.ops import TensorFlowOps, two_class

    z = tf.constant(logits)
    columns = columns_of(defense, labels, max(2, logits.shape[1]))
    known = {name: tf.constant(value, tf.float32) for name, value in columns.items()}
    with tf.GradientTape() as tape:
        tape.watch(z)
        y, others, inferred = tf.constant(labels, tf.int64), None, None
        if defense.wants_others:
            rows = beside(defense, logits)
            others = Batch(two_class(tf.constant(rows["logits"])), tf.constant(rows["labels"], tf.int64))
        if declared := defense.opponent():
            weights = [tf.constant(value) for value in opponent_of(defense, logits)]
            inferred = declared.logits(TensorFlowOps(), weights, two_class(z), y)
        partners, share = None, 1.0
        if mixed := mixed_in(defense, labels):
            partners, share = tf.constant(mixed[0], tf.int64), tf.constant(mixed[1])
        number = tf.constant(float(epoch))
        batch = Batch(two_class(z), y, number, known, partners, share, others, inferred)
        loss = defense.loss(TensorFlowOps(), batch)
    return float(loss), tape.gradient(loss, z).numpy()


def in_torch(
    defense: Defense, logits: np.ndarray, labels: np.ndarray, epoch: int = 0
) -> tuple[float, np.ndarray]:
    from edgeprivacy.backends.executorch.frameworks import torch
    from edgeprivacy.backends.executorch.ops import TorchOps, two_class

    z = torch.tensor(logits, requires_grad=True)
    columns = columns_of(defense, labels, max(2, logits.shape[1]))
    known = {name: torch.from_numpy(value).float() for name, value in columns.items()}
    y = torch.from_numpy(labels.astype(np.int64))
    others, inferred = None, None
    if defense.wants_others:
        rows = beside(defense, logits)
        others = Batch(two_class(torch.from_numpy(rows["logits"])), torch.from_numpy(rows["labels"]))
    if declared := defense.opponent():
        weights = [torch.from_numpy(value) for value in opponent_of(defense, logits)]
        inferred = declared.logits(TorchOps(), weights, two_class(z), y)
    partners, share = None, 1.0
    if mixed := mixed_in(defense, labels):
        partners, share = torch.from_numpy(mixed[0].astype(np.int64)), mixed[1]
    number = torch.tensor(float(epoch))
    batch = Batch(two_class(z), y, number, known, partners, share, others, inferred)
    loss = defense.loss(TorchOps(), batch)
    (gradient,) = torch.autograd.grad(loss, z)
    return loss.item(), gradient.numpy()


def in_numpy(logits: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean cross-entropy and its gradient, in double precision."""
    z = logits.astype(np.float64)
    z -= z.max(axis=1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    rows = np.arange(len(z))
    gradient = np.exp(log_p)
    gradient[rows, labels] -= 1
    return float(-log_p[rows, labels].mean()), gradient / len(z)


def agree(one: tuple[float, np.ndarray], other: tuple[float, np.ndarray]) -> None:
    assert one[0] == pytest.approx(other[0], rel=1e-5, abs=1e-5)
    np.testing.assert_allclose(one[1], other[1], atol=1e-5)
    assert np.abs(one[1]).max() > 0 or np.abs(other[1]).max() < 1e-5


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", list(defenses))
def test_both_frameworks_agree_on_loss_and_gradient(name: str, case: str) -> None:
    logits, labels = arrays(case)
    defense = make_defense(name)
    for epoch in (0, 1, 2):
        agree(in_tensorflow(defense, logits, labels, epoch), in_torch(defense, logits, labels, epoch))


@pytest.mark.parametrize("case", CASES)
def test_both_agree_on_the_distance_from_reference_rows(case: str) -> None:
    logits, labels = arrays(case)
    defense = make_defense("mixup", {"mmd": 3.0})
    agree(in_tensorflow(defense, logits, labels), in_torch(defense, logits, labels))


def test_partners_labels_change_what_mixup_computes() -> None:
    """What both agree on above is about both labels of a blend."""
    logits, labels = arrays("usual")
    alone, other = in_numpy(logits, labels), in_numpy(logits, mixed_in(make_defense("mixup"), labels)[0])
    expected = 0.3 * alone[0] + 0.7 * other[0], 0.3 * alone[1] + 0.7 * other[1]
    agree(in_torch(make_defense("mixup"), logits, labels), expected)
    agree(in_tensorflow(make_defense("mixup"), logits, labels), expected)


def test_both_take_the_same_steps_on_blended_rows(dense_of: Callable[..., Any]) -> None:
    """Partners and shares drawn, inputs blended and gradients taken by the backends' own networks: one batch
    an epoch, for that is where both draw alike."""
    made = {}
    for backend in ("tflite", "executorch"):
        for defense in (make_defense("mixup", {"beta": 0.7}), make_defense("none")):
            dense = dense_of(backend, batch=70)
            dense.network.use_loss(defense)
            dense.run(3)
            made[backend, defense.name] = np.concatenate([w.ravel() for w in dense.made])
    np.testing.assert_allclose(made["tflite", "mixup"], made["executorch", "mixup"], atol=1e-5)
    assert np.abs(made["tflite", "mixup"] - made["tflite", "none"]).max() > 1e-3


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_both_agree_on_the_probe_that_scores_weights(weight: float, case: str) -> None:
    logits, labels = arrays(case)
    rewinding = make_defense("cwrf", {"weight": weight}).rewinding()
    assert rewinding is not None
    probe = rewinding.probe()
    agree(in_tensorflow(probe, logits, labels), in_torch(probe, logits, labels))


@pytest.mark.parametrize("name", [n for n in defenses if type(make_defense(n)).loss is Defense.loss])
def test_the_plain_loss_is_cross_entropy(name: str) -> None:
    for case in CASES:
        logits, labels = arrays(case)
        expected = in_numpy(logits, labels)
        agree(in_torch(make_defense(name), logits, labels), expected)
        agree(in_tensorflow(make_defense(name), logits, labels), expected)


def test_one_sigmoid_unit_is_the_pair_of_zero_and_its_logit() -> None:
    labels = np.arange(20) % 2
    z = np.random.default_rng(0).normal(size=(20, 1)).astype(np.float32) * 3
    p = 1 / (1 + np.exp(-z[:, 0].astype(np.float64)))
    expected = float(-np.log(np.where(labels == 1, p, 1 - p)).mean()), ((p - labels) / 20)[:, None]
    plain = make_defense("none")
    agree(in_torch(plain, z, labels), expected)
    agree(in_tensorflow(plain, z, labels), expected)


def test_a_difference_would_be_seen() -> None:
    """A defense whose two frameworks drift apart by a thousandth fails."""

    class Drifting(Defense):
        def loss(self, ops: Any, batch: Batch) -> Any:
            factor = 1.001 if "torch" in type(batch.logits).__module__ else 1.0
            return factor * ops.mean(ops.cross_entropy(batch.logits, batch.labels))

    logits, labels = arrays("usual")
    with pytest.raises(AssertionError):
        agree(in_tensorflow(Drifting(), logits, labels), in_torch(Drifting(), logits, labels))
