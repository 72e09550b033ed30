"""The loss against its equation row by row; training under the grid against a loop in numpy, in both
backends; what the file holds; what is refused."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import math
from typing import Any

import numpy as np
import pytest

from edgeprivacy.compression.grid import LowBits, grid_steps
from edgeprivacy.defenses import Batch, TrainingRows, make_defense
from edgeprivacy.errors import RecipeError


def softmax(z: Any) -> list[float]:
    shares = [math.exp(value - max(z)) for value in z]
    return [share / sum(shares) for share in shares]


def ce(z: Any, label: int) -> float:
    return -math.log(softmax(z)[label])


def by_equation(z: Any, y: Any, other: Any, other_y: Any, settings: dict[str, float]) -> float:
    own = sum(ce(row, label) for row, label in zip(z, y, strict=True)) / len(z)
    outside = sum(ce(row, label) for row, label in zip(other, other_y, strict=True)) / len(other)
    here = np.mean([sorted(softmax(row), reverse=True) for row in z], axis=0)
    there = np.mean([sorted(softmax(row), reverse=True) for row in other], axis=0)
    divergence = sum(p * math.log(p / q) for p, q in zip(here, there, strict=True))
    entropy = -sum(p * math.log(p) for row in z for p in softmax(row)) / len(z)
    hinge = max(0.0, outside - own - settings["margin"])
    return own + settings["gap"] * hinge + settings["balance"] * divergence - settings["flatten"] * entropy


@pytest.mark.parametrize("margin", [0.0, 0.4, 9.0])
def test_the_loss_is_its_equation(margin: float) -> None:
    torch = pytest.importorskip("torch", reason="needs the extra executorch")
    from edgeprivacy.backends.executorch.ops import TorchOps

    rng = np.random.default_rng(2)
    z, other = rng.normal(size=(8, 4)), 2 * rng.normal(size=(8, 4))
    y, other_y = z.argmax(1), other.argmin(1)
    settings = {"gap": 0.7, "margin": margin, "balance": 1.3, "flatten": 0.2}
    own = torch.tensor(z, requires_grad=True)
    others = torch.tensor(other, requires_grad=True)
    beside = Batch(others, torch.tensor(other_y))
    loss = make_defense("defensive-quantization", settings).loss(
        TorchOps(), Batch(own, torch.tensor(y), others=beside)
    )
    assert loss.item() == pytest.approx(by_equation(z, y, other, other_y, settings), abs=1e-5)
    loss.backward()
    assert others.grad is None, "reference rows are compared with, not learned"
    eps, moved = 1e-5, z.copy()
    for place in ((0, 0), (3, 2)):
        moved[place] = z[place] + eps
        up = by_equation(moved, y, other, other_y, settings)
        moved[place] = z[place] - eps
        down = by_equation(moved, y, other, other_y, settings)
        moved[place] = z[place]
        assert own.grad[place].item() == pytest.approx((up - down) / (2 * eps), abs=1e-5)


def nearest(weights: np.ndarray, steps: np.ndarray, levels: int) -> np.ndarray:
    found = weights.copy()
    for (row, column), value in np.ndenumerate(weights):
        step = float(steps[0, column])
        found[row, column] = step * min(range(-levels, levels + 1), key=lambda k: abs(k * step - value))
    return found


def by_hand(dense: Any, steps: np.ndarray, levels: int, epochs: int) -> list[np.ndarray]:
    """The first kernel rounded, the rest full; Adam moves what is behind the rounded ones."""
    full = [w.astype(np.float64) for w in dense.weights]
    m, v = ([np.zeros_like(w) for w in full] for _ in range(2))
    batches = math.ceil(len(dense.x) / dense.batch)
    for step in range(1, epochs * batches + 1):
        first = (step - 1) % batches * dense.batch
        last = first + dense.batch
        x, y = dense.x[first:last].astype(float), dense.y[first:last]
        w1, b1, w2, b2 = nearest(full[0], steps, levels), *full[1:]
        before = x @ w1 + b1
        hidden = np.maximum(before, 0)
        p = np.array([softmax(row) for row in hidden @ w2 + b2])
        p[np.arange(len(y)), y] -= 1
        p /= len(y)
        back = (p @ w2.T) * (before > 0)
        gradients = [x.T @ back, back.sum(0), hidden.T @ p, p.sum(0)]
        for k, w in enumerate(full):
            g = gradients[k] + dense.decay * w
            m[k] = 0.9 * m[k] + 0.1 * g
            v[k] = 0.999 * v[k] + 0.001 * g * g
            w -= dense.rate * (m[k] / (1 - 0.9**step)) / (np.sqrt(v[k] / (1 - 0.999**step)) + 1e-8)
    return [nearest(full[0], steps, levels), *full[1:]]


def test_rounded_weights_train_as_by_hand_until_they_are_let_go(dense: Any) -> None:
    start, levels = dense.weights[0], 3
    steps = grid_steps(start, 3, 1)
    here = steps if dense.backend == "tflite" else steps.T
    dense.network.use_loss(make_defense("none"))
    dense.network.hold_grid({0: np.ascontiguousarray(here)}, {0: levels})
    dense.run(4)
    expected = by_hand(dense, steps, levels, 4)
    moved = np.abs(expected[0] - nearest(start, steps, levels)) > 0
    assert moved.any() and not moved.all(), "some weights went to another value of the grid"
    for ours, theirs in zip(dense.made, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=3e-5)
    dense.network.load(None, dense.seed)
    dense.run(1)
    assert len(np.unique(dense.made[0][:, 0])) == 6


def test_first_and_last_layer_have_bits_of_their_own() -> None:
    assert LowBits(3, 8, 10).of_layers(4) == (8, 3, 3, 8)
    assert LowBits(3, 8, 10).of_layers(2) == (8, 8) and LowBits(3, 6, 10).of_layers(1) == (6,)


def test_what_the_file_holds_is_said() -> None:
    rows = TrainingRows(np.zeros(3, dtype=np.int64), 1)
    (note,) = make_defense("defensive-quantization").notes(rows)
    assert "4 bits in the inner layers (at most 15 values" in note and "packs 4 bits" in note
    assert "the first and the last" not in note, "8 bits are no grid"
    assert not make_defense("defensive-quantization", {"weight_bits": 8}).notes(rows)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("defensive-quantization", {"weight_bits": 1}, "weight_bits must be a whole number from 2 to 8"),
        ("defensive-quantization", {"outer_bits": 9}, "outer_bits must be a whole number from 2 to 8"),
        ("defensive-quantization", {"weight_bits": 4.0}, "weight_bits must be a whole number"),
        ("defensive-quantization", {"margin": -1}, "margin must be 0 or more"),
        ("defensive-quantization", {"epochs": 0}, "epochs must be a whole number"),
        ("defensive-quantization+relaxloss", {}, "both govern the loss"),
    ],
)
def test_settings_out_of_range(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        make_defense(name, options)


def test_it_goes_with_windows() -> None:
    made = make_defense("wemem+defensive-quantization")
    assert made.low_bits() == LowBits(4, 8, 10) and made.wants_others
    assert make_defense("wemem+relaxloss").low_bits() is None
