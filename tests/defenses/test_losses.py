"""Each loss against its equation written out row by row, and its gradient against finite differences."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest

from edgeprivacy.defenses import Batch, TrainingRows, make_defense
from edgeprivacy.defenses.hamp import replaced_scores, soft_label
from edgeprivacy.errors import RecipeError

Rows = list[list[float]]
Loss = Callable[[Rows, list[int], int], float]


def softmax(z: list[float]) -> list[float]:
    shares = [math.exp(value - max(z)) for value in z]
    return [share / sum(shares) for share in shares]


def entropy(p: list[float]) -> float:
    return -sum(value * math.log(value) for value in p if value > 0)


def average(values: list[float]) -> float:
    return sum(values) / len(values)


def ce(z: list[float], label: int) -> float:
    return -math.log(softmax(z)[label])


def relaxloss(alpha: float, upper: float = 1.0, ascent: bool = True) -> Loss:
    def loss(logits: Rows, labels: list[int], epoch: int) -> float:
        mean = average([ce(z, y) for z, y in zip(logits, labels, strict=True)])
        if epoch % 2 == 0:
            return abs(mean - alpha)
        if mean > alpha:
            return mean
        flattened = []
        for z, y in zip(logits, labels, strict=True):
            p = softmax(z)
            target = [(1 - min(p[y], upper)) / (len(z) - 1)] * len(z)
            target[y] = min(p[y], upper)
            soft = -sum(t * math.log(q) for t, q in zip(target, p, strict=True))
            wrong = 0 if p[y] == max(p) else 1
            flattened.append(wrong * soft - ce(z, y) if ascent else soft)
        return average(flattened)

    return loss


def hamp(gamma: float, alpha: float) -> Loss:
    def loss(logits: Rows, labels: list[int], epoch: int) -> float:
        classes = len(logits[0])
        # The authors' loop: what the label loses, the others gain.
        label = [1.0] + [0.0] * (classes - 1)
        while entropy(label) < gamma * math.log(classes):
            label = [label[0] - 0.01] + [value + 0.01 / (classes - 1) for value in label[1:]]
        divergence, entropies = [], []
        for z, y in zip(logits, labels, strict=True):
            p = softmax(z)
            target = [label[0] if k == y else label[1] for k in range(classes)]
            divergence += [t * (math.log(t) - math.log(q)) for t, q in zip(target, p, strict=True)]
            entropies.append(entropy(p))
        return average(divergence) - alpha * average(entropies)

    return loss


def ccl(alpha: float, beta: float, quadratic: bool) -> Loss:
    def loss(logits: Rows, labels: list[int], epoch: int) -> float:
        values = []
        for z, y in zip(logits, labels, strict=True):
            p = softmax(z)[y]
            concave = p + p**2 / 2 if quadratic else math.exp(p)
            values.append(-alpha * math.log(p) - (1 - alpha) * concave)
        return beta * average(values)

    return loss


def ppb(weight: float) -> Loss:
    def loss(logits: Rows, labels: list[int], epoch: int) -> float:
        plain = average([ce(z, y) for z, y in zip(logits, labels, strict=True)])
        half = len(logits) // 2
        ranked = [sorted(softmax(z), reverse=True) for z in logits]
        pairs = [
            sum(b * math.log(b / a) for a, b in zip(ranked[j], ranked[half + j], strict=True))
            for j in range(half)
        ]
        return plain + weight * (average(pairs) if pairs else 0.0)

    return loss


def label_smoothing(share: float) -> Loss:
    def loss(logits: Rows, labels: list[int], epoch: int) -> float:
        classes = len(logits[0])
        values = []
        for z, y in zip(logits, labels, strict=True):
            target = [share / classes + (1 - share) * (k == y) for k in range(classes)]
            values.append(-sum(t * math.log(q) for t, q in zip(target, softmax(z), strict=True)))
        return average(values)

    return loss


def confidence_penalty(weight: float) -> Loss:
    def loss(logits: Rows, labels: list[int], epoch: int) -> float:
        return average([ce(z, y) - weight * entropy(softmax(z)) for z, y in zip(logits, labels, strict=True)])

    return loss


def distillation(weight: float, temperature: float) -> Loss:
    def loss(logits: Rows, labels: list[int], epoch: int) -> float:
        values = []
        for z, y, answer in zip(logits, labels, soft_labels(len(logits), len(logits[0])), strict=True):
            teacher = heated(answer, temperature)
            student = softmax([value / temperature for value in z])
            divergence = sum(t * math.log(t / s) for t, s in zip(teacher, student, strict=True) if t > 0)
            values.append((1 - weight) * ce(z, y) + weight * temperature * temperature * divergence)
        return average(values)

    return loss


def selena(temperature: float) -> Loss:
    def loss(logits: Rows, labels: list[int], epoch: int) -> float:
        soft = [heated(answer, temperature) for answer in soft_labels(len(logits), len(logits[0]))]
        return average(
            [
                -sum(t * math.log(q) for t, q in zip(target, softmax(z), strict=True))
                for z, target in zip(logits, soft, strict=True)
            ]
        )

    return loss


def heated(p: list[float], temperature: float) -> list[float]:
    powers = [value ** (1 / temperature) for value in p]
    return [power / sum(powers) for power in powers]


EQUATIONS: list[tuple[str, dict[str, Any], Loss]] = [
    ("relaxloss", {}, relaxloss(1.0)),
    ("relaxloss", {"alpha": 9.0}, relaxloss(9.0)),
    ("relaxloss", {"alpha": 9.0, "upper": 0.3}, relaxloss(9.0, 0.3)),
    ("relaxloss", {"alpha": 9.0, "upper": 0.3, "ascent": False}, relaxloss(9.0, 0.3, False)),
    ("hamp", {}, hamp(0.5, 0.001)),
    ("hamp", {"gamma": 0.9, "alpha": 0.3}, hamp(0.9, 0.3)),
    ("ccl", {}, ccl(0.5, 0.05, quadratic=False)),
    ("ccl", {"alpha": 0.2, "beta": 1.0}, ccl(0.2, 1.0, quadratic=False)),
    ("ccl:quadratic", {"alpha": 0.3, "beta": 2.0}, ccl(0.3, 2.0, quadratic=True)),
    ("ppb", {}, ppb(4.0)),
    ("ppb", {"weight": 0.0}, ppb(0.0)),
    ("label-smoothing", {}, label_smoothing(0.1)),
    ("label-smoothing", {"share": 0.6}, label_smoothing(0.6)),
    ("confidence-penalty", {}, confidence_penalty(0.1)),
    ("confidence-penalty", {"weight": 2.0}, confidence_penalty(2.0)),
    ("distillation", {}, distillation(0.5, 10.0)),
    ("distillation", {"weight": 0.2, "temperature": 3.0}, distillation(0.2, 3.0)),
    ("distillation", {"weight": 1.0, "temperature": 0.5}, distillation(1.0, 0.5)),
    ("distillation", {"weight": 0.0}, distillation(0.0, 10.0)),
    ("selena", {}, selena(2.0)),
    ("selena", {"temperature": 0.7}, selena(0.7)),
    ("selena", {"temperature": 1.0, "fitted": True}, selena(1.0)),
]
SIZES = ((7, 4), (6, 2), (1, 5))
"""Rows and classes; an odd number of rows leaves one without a pair, one row has none."""


def draw(rows: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits with right and wrong, sure and unsure rows; labels."""
    rng = np.random.default_rng(rows)
    labels = rng.integers(0, classes, rows)
    logits = rng.normal(size=(rows, classes)) * 2
    logits[::2] += 2 * np.eye(classes)[labels[::2]]
    return logits, labels


def soft_labels(rows: int, classes: int) -> list[list[float]]:
    """What teachers answered of the drawn rows; not always what the labels say."""
    return np.random.default_rng(rows + 1).dirichlet(np.ones(classes), rows).astype(np.float32).tolist()


def columns_of(defense: Any, logits: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """What the defense wants to see of the rows."""
    soft = np.array(soft_labels(*logits.shape), np.float32)
    return defense.columns(TrainingRows(labels, logits.shape[1], soft_labels=soft))


def in_torch(defense: Any, logits: np.ndarray, labels: np.ndarray, epoch: int) -> tuple[float, np.ndarray]:
    from edgeprivacy.backends.executorch.frameworks import torch
    from edgeprivacy.backends.executorch.ops import TorchOps

    z = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    columns = {
        name: torch.tensor(each).double() for name, each in columns_of(defense, logits, labels).items()
    }
    batch = Batch(z, torch.tensor(labels), torch.tensor(float(epoch)), columns)
    loss = defense.loss(TorchOps(), batch)
    (gradient,) = torch.autograd.grad(loss, z)
    return loss.item(), gradient.numpy()


def in_tensorflow(
    defense: Any, logits: np.ndarray, labels: np.ndarray, epoch: int
) -> tuple[float, np.ndarray]:
    from edgeprivacy.backends.tflite.frameworks import tf
    from edgeprivacy.backends.tflite.ops import TensorFlowOps

    z = tf.constant(logits, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(z)
        columns = {name: tf.constant(each) for name, each in columns_of(defense, logits, labels).items()}
        batch = Batch(z, tf.constant(labels, tf.int64), tf.constant(float(epoch)), columns)
        loss = defense.loss(TensorFlowOps(), batch)
    return float(loss), tape.gradient(loss, z).numpy()


def differences(loss: Loss, logits: np.ndarray, labels: np.ndarray, epoch: int) -> np.ndarray:
    """Central differences of the written-out equation."""
    found = np.zeros_like(logits)
    for position in np.ndindex(logits.shape):
        sides = []
        for side in (1, -1):
            moved = logits.copy()
            moved[position] += side * 1e-5
            sides.append(loss(moved.tolist(), labels.tolist(), epoch))
        found[position] = (sides[0] - sides[1]) / 2e-5
    return found


@pytest.mark.parametrize(("name", "options", "equation"), EQUATIONS)
@pytest.mark.parametrize(
    ("run", "precision"),
    [
        pytest.param(in_torch, 1e-6, marks=pytest.mark.executorch, id="torch"),
        pytest.param(in_tensorflow, 2e-5, marks=pytest.mark.tflite, id="tensorflow"),
    ],
)
def test_the_loss_is_its_equation_and_its_gradient_the_equations_slope(
    run, precision, name, options, equation
) -> None:
    pytest.importorskip("torch" if run is in_torch else "tensorflow")
    defense = make_defense(name, options)
    for size, epoch in itertools.product(SIZES, (0, 1, 7) if name == "relaxloss" else (0, 1)):
        logits, labels = draw(*size)
        value, gradient = run(defense, logits, labels, epoch)
        assert value == pytest.approx(equation(logits.tolist(), labels.tolist(), epoch), abs=precision)
        np.testing.assert_allclose(gradient, differences(equation, logits, labels, epoch), atol=precision)


def test_relaxloss_climbs_below_its_level_and_descends_above_it() -> None:
    """Small steps against the gradient, as training takes them, on a batch below and one above the level."""
    pytest.importorskip("torch")
    logits, labels = draw(7, 4)
    start = average([ce(z, y) for z, y in zip(logits.tolist(), labels.tolist(), strict=True)])

    def after_a_step(alpha: float, epoch: int) -> float:
        _, gradient = in_torch(make_defense("relaxloss", {"alpha": alpha}), logits, labels, epoch)
        moved = (logits - 1e-3 * gradient).tolist()
        return average([ce(z, y) for z, y in zip(moved, labels.tolist(), strict=True)])

    for epoch in (0, 1):
        assert after_a_step(start / 2, epoch) < start
        assert after_a_step(start * 2, epoch) > start


def test_flattening_evens_out_the_wrong_classes_of_a_wrong_row() -> None:
    """Without ascent a row's own probability stays, and those of the other classes come closer."""
    pytest.importorskip("torch")
    logits, labels = np.array([[0.0, 2.0, -1.0, 0.5]]), np.array([0])
    defense = make_defense("relaxloss", {"alpha": 9.0, "ascent": False})
    before = softmax(logits[0].tolist())
    for _ in range(200):
        logits = logits - 0.5 * in_torch(defense, logits, labels, 1)[1]
    after = softmax(logits[0].tolist())
    assert np.ptp(after[1:]) < 0.1 * np.ptp(before[1:])


@pytest.mark.parametrize(("classes", "gamma"), [(30, 0.5), (10, 0.95), (100, 0.8), (2, 0.5), (200, 0.9)])
def test_soft_labels_stop_at_the_first_step_with_enough_entropy(classes, gamma) -> None:
    def share(p: float) -> float:
        return entropy([p] + [(1 - p) / (classes - 1)] * (classes - 1)) / math.log(classes)

    found, other = soft_label(classes, gamma)
    assert found + (classes - 1) * other == pytest.approx(1) and found > other
    assert share(found) >= gamma > share(found + 0.01)


def test_a_gamma_that_no_label_can_have_is_refused_before_training() -> None:
    rows = TrainingRows(np.zeros(4, np.int64), 30)
    make_defense("hamp").check(rows)
    with pytest.raises(RecipeError, match="no soft label of 30 classes") as caught:
        make_defense("hamp", {"gamma": 1.0}).check(rows)
    assert "lower gamma" in str(caught.value)


def test_mixup_weighs_both_labels_by_their_shares() -> None:
    torch = pytest.importorskip("torch")
    from edgeprivacy.backends.executorch.ops import TorchOps

    logits, labels = draw(7, 4)
    partners = labels[::-1].copy()
    batch = Batch(
        torch.tensor(logits), torch.tensor(labels), torch.tensor(0.0), {}, torch.tensor(partners), 0.3
    )
    found = make_defense("mixup").loss(TorchOps(), batch).item()
    own, other = (
        average([ce(z, y) for z, y in zip(logits.tolist(), of, strict=True)]) for of in (labels, partners)
    )
    assert found == pytest.approx(0.3 * own + 0.7 * other)
    with pytest.raises(RecipeError, match="beta must be more than 0"):
        make_defense("mixup", {"beta": 0})


def test_early_stopping_ends_every_phase_after_its_epochs() -> None:
    rows = TrainingRows(np.arange(6) % 2, 2)
    defense = make_defense("early-stopping", {"epochs": 3})
    seen = [defense.epoch(rows, epoch, 21, 5e-4, np.random.default_rng(0)) for epoch in range(6)]
    assert [len(passes) for passes in seen] == [1, 1, 1, 0, 0, 0]
    assert all(np.array_equal(passes[0].rows, np.arange(6)) for passes in seen[:3])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("relaxloss", {"alpha": -1}, "alpha must be 0 or more, got -1"),
        ("relaxloss", {"alpha": float("nan")}, "alpha must be 0 or more"),
        ("relaxloss", {"upper": 0}, "upper must be above 0 and at most 1, got 0"),
        ("relaxloss", {"ascent": "yes"}, "ascent must be true or false"),
        ("hamp", {"gamma": 1.2}, "gamma must be above 0 and at most 1"),
        ("hamp", {"alpha": "x"}, "alpha must be 0 or more, got 'x'"),
        ("ccl", {"alpha": 1.5}, "alpha must be between 0 and 1"),
        ("ccl:quadratic", {"beta": 0}, "beta must be more than 0"),
        ("ppb", {"weight": True}, "weight must be 0 or more, got True"),
        ("label-smoothing", {"share": 2}, "share must be between 0 and 1"),
        ("confidence-penalty", {"weight": float("inf")}, "weight must be 0 or more"),
        ("early-stopping", {"epochs": 0}, "epochs must be a whole number, at least 1"),
        ("early-stopping", {"epochs": 2.0}, "epochs must be a whole number"),
    ],
)
def test_settings_out_of_range(name, options, message) -> None:
    with pytest.raises(RecipeError, match=f"{name}.*{message}"):
        make_defense(name, options)


def test_hamps_wrapper_keeps_the_ranks_and_takes_the_scores_of_a_random_input() -> None:
    rng = np.random.default_rng(0)
    answers, others = rng.dirichlet(np.ones(5), 40), rng.dirichlet(np.ones(5), 40)
    replaced = replaced_scores(answers, others)
    for row, given, other in zip(replaced, answers, others, strict=True):
        assert sorted(row) == sorted(other)
        assert sorted(range(5), key=lambda k: row[k]) == sorted(range(5), key=lambda k: given[k])
    with pytest.raises(ValueError, match="random inputs"):
        replaced_scores(answers, others[:3])
