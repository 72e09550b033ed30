"""Adversarial regularization in both backends against a loop in numpy that writes out every gradient; Min-Max
pruning in the session; what mixup's distance is; what is refused."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from edgeprivacy.defenses import Batch, make_defense
from edgeprivacy.defenses.inference_network import InferenceNetwork, draw_others
from edgeprivacy.errors import RecipeError

Arrays = list[np.ndarray]


class Adam:
    def __init__(self, weights: Arrays, rate: float) -> None:
        self.weights, self.rate, self.step = weights, rate, 0
        self.m, self.v = ([np.zeros_like(w) for w in weights] for _ in range(2))

    def take(self, gradients: Arrays, decay: float = 0.0) -> None:
        self.step += 1
        for k, w in enumerate(self.weights):
            g = gradients[k] + decay * w
            self.m[k] = 0.9 * self.m[k] + 0.1 * g
            self.v[k] = 0.999 * self.v[k] + 0.001 * g * g
            first, second = self.m[k] / (1 - 0.9**self.step), self.v[k] / (1 - 0.999**self.step)
            w -= self.rate * first / (np.sqrt(second) + 1e-8)


def forward(weights: Sequence[np.ndarray], x: np.ndarray) -> Arrays:
    """What goes into each layer, and what comes out of the last."""
    seen = [x]
    for k in range(0, len(weights), 2):
        out = seen[-1] @ weights[k] + weights[k + 1]
        seen.append(np.maximum(out, 0) if k < len(weights) - 2 else out)
    return seen


def backward(weights: Sequence[np.ndarray], seen: Arrays, back: np.ndarray) -> tuple[Arrays, np.ndarray]:
    """Gradients of the weights, and of the input, from the gradient of the output."""
    gradients: Arrays = []
    for k in range(len(weights) - 2, -1, -2):
        entered = seen[k // 2]
        gradients = [entered.T @ back, back.sum(0), *gradients]
        back = back @ weights[k].T
        if k:
            back = back * (entered > 0)
    return gradients, back


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def by_hand(dense: Any, weight: float, steps: int, epochs: int) -> Arrays:
    """The second term comes with the second epoch."""
    draws = np.random.default_rng([dense.seed, 1])
    sizes = [6, 64, 64, 1]
    start = np.random.default_rng([dense.seed, 2])
    guess: Arrays = []
    for a, b in itertools.pairwise(sizes):
        guess += [start.normal(0, math.sqrt(2 / (a + b)), (a, b)), np.zeros(b)]
    weights = [w.astype(np.float64) for w in dense.weights]
    model, opponent = Adam(weights, dense.rate), Adam(guess, 1e-3)
    hot = np.eye(3)
    for epoch in range(epochs):
        # Every reference row once before any comes again.
        beside = np.concatenate([draws.permutation(23) for _ in range(math.ceil(70 / 23))])[:70]
        for first in range(0, 70, dense.batch):
            last = first + dense.batch
            x, y, rows = dense.x[first:last].astype(float), dense.y[first:last], beside[first:last]
            n = len(x)
            seen = forward(weights, x)
            p = softmax(seen[-1])
            outside = softmax(forward(weights, dense.other_x[rows].astype(float))[-1])
            for _ in range(steps):
                inner = forward(guess, np.hstack([p, hot[y]]))
                outer = forward(guess, np.hstack([outside, hot[dense.other_y[rows]]]))
                of_members, _ = backward(guess, inner, 0.5 * (sigmoid(inner[-1]) - 1) / n)
                of_others, _ = backward(guess, outer, 0.5 * sigmoid(outer[-1]) / n)
                opponent.take([a + b for a, b in zip(of_members, of_others, strict=True)])
            back = (p - hot[y]) / n
            if epoch >= 1:
                inner = forward(guess, np.hstack([p, hot[y]]))
                h = sigmoid(inner[-1])
                _, of_input = backward(guess, inner, h * (1 - h) / n)
                of_p = of_input[:, :3]
                back = back + weight * p * (of_p - (of_p * p).sum(1, keepdims=True))
            gradients, _ = backward(weights, seen, back)
            model.take(gradients, dense.decay)
    return weights


@pytest.mark.parametrize(("name", "weight", "steps"), [("advreg", 5.0, 1), ("mia-pruning:minmax", 3.0, 5)])
def test_model_and_opponent_take_turns_as_by_hand(dense: Any, name: str, weight: float, steps: int) -> None:
    dense.network.use_loss(make_defense(name, {"weight": weight, "steps": steps}))
    dense.run(3)
    expected, plain = by_hand(dense, weight, steps, 3), by_hand(dense, 0.0, steps, 3)
    far = max(np.abs(a - b).max() for a, b in zip(expected, plain, strict=True))
    assert far > 1e-3, "the opponent must matter for the comparison to say something"
    for ours, theirs in zip(dense.made, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=5e-5)


def test_each_phase_starts_a_new_opponent(dense: Any) -> None:
    made = []
    dense.network.use_loss(make_defense("advreg", {"warm_up": 0, "weight": 20.0}))
    for seed in (dense.seed, dense.seed, dense.seed + 1):
        dense.load(seed)
        dense.run(2, decay=0.0)
        made.append(np.concatenate([w.ravel() for w in dense.made]))
    np.testing.assert_array_equal(made[0], made[1])
    assert np.abs(made[0] - made[2]).max() > 1e-4


def test_reference_rows_come_once_before_any_comes_again() -> None:
    drawn = draw_others(70, 23, np.random.default_rng(0))
    for first in (0, 23, 46):
        assert sorted(drawn[first : first + 23]) == list(range(23))
    assert len(drawn) == 70 and len(draw_others(5, 23, np.random.default_rng(0))) == 5


def test_the_networks_own_loss_is_half_members_half_others() -> None:
    torch = pytest.importorskip("torch", reason="needs the extra executorch")
    from edgeprivacy.backends.executorch.ops import TorchOps

    members, others = np.array([2.0, -1.0]), np.array([0.5])
    wanted = 0.5 * (-np.mean(np.log(sigmoid(members))) - np.log(1 - sigmoid(others[0])))
    found = InferenceNetwork().loss(TorchOps(), torch.tensor(members), torch.tensor(others))
    assert float(found) == pytest.approx(wanted)


def test_mixups_distance_is_the_mean_over_all_pairs() -> None:
    torch = pytest.importorskip("torch", reason="needs the extra executorch")
    from edgeprivacy.backends.executorch.ops import TorchOps

    rng = np.random.default_rng(4)
    here, there = rng.normal(size=(7, 4)), rng.normal(size=(5, 4))

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        pairs = [math.exp(-sum((s - t) ** 2 for s, t in zip(u, v, strict=True)) / 2) for u in a for v in b]
        return sum(pairs) / len(pairs)

    p, q = softmax(here), softmax(there)
    squared = kernel(p, p) + kernel(q, q) - 2 * kernel(p, q)
    y = torch.zeros(7, dtype=torch.int64)
    batch = Batch(torch.tensor(here), y, others=Batch(torch.tensor(there), y[:5]))
    loss = make_defense("mixup", {"mmd": 3.0}).loss(TorchOps(), batch)
    plain = make_defense("mixup").loss(TorchOps(), batch)
    assert float(loss - plain) == pytest.approx(3 * squared) and squared > 0.01


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("advreg", {"weight": -1}, "weight must be 0 or more"),
        ("advreg", {"steps": 0}, "steps must be a whole number"),
        ("advreg", {"warm_up": -1}, "warm_up must be a whole number"),
        ("mia-pruning:minmax", {"weight": -1}, "weight must be 0 or more"),
        ("mia-pruning:minmax", {"rho": -1}, "rho must be 0 or more"),
        ("mixup", {"mmd": -1}, "mmd must be 0 or more"),
        ("advreg+relaxloss", {}, "both govern the loss"),
    ],
)
def test_settings_out_of_range(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        make_defense(name, options)


def test_an_opponent_goes_with_windows_and_rewinding() -> None:
    for name in ("wemem+advreg", "cwrf+advreg"):
        assert make_defense(name).wants_others and make_defense(name).opponent() is not None
    assert not make_defense("wemem+relaxloss").wants_others
    assert make_defense("mixup", {"mmd": 1.0}).wants_others and not make_defense("mixup").wants_others
