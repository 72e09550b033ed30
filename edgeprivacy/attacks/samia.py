"""The self-attention attack (Yuan & Zhang, "Membership Inference Attacks and Defenses in Neural Network
Pruning", USENIX Security 2022), after its features.

    sensitivity of class k = mean over 10 u of |p_k(x + ε u) - p_k(x)| / ε,    u ~ N(0, I)

Features are p, the sensitivities and the one-hot label. Where the authors train a transformer on the classes
as tokens, a network of one hidden layer stands here: the attack is *after* theirs, and no reproduction.

Their ε is 0.001 on inputs of unit variance. Here it is that share of the data's spread, and at least two
steps of a quantized input: below a step the file sees the same row again and every sensitivity is zero
(inferred; the paper has float inputs only).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.attacks.base import Calibration, Floats, Needs, Scores, Signals, attacks
from edgeprivacy.attacks.compleak import Learned, label_of, posterior
from edgeprivacy.attacks.meta import Integers
from edgeprivacy.attacks.queries import Ask, InputSpace, QueryAttack, Rows, moved

NOISY_QUERIES = 10
_SHARE = 1e-3
_QUANTA = 2.0


def sensitivities(
    ask: Ask, x: Rows, width: NDArray[np.float32], queries: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Mean absolute change of every probability by noise, divided by the noise's ε, float32 [rows, classes].

    Args:
        ask: The model.
        x: [rows, ...].
        width: Standard deviation of the noise, to be broadcast to a row; ε is its root mean square.
        queries: How many noisy rows are asked about each row.
        rng: For the noise.
    """
    clean = ask(x).astype(np.float64)
    change = np.zeros_like(clean)
    for _ in range(queries):
        noise = rng.standard_normal(x.shape, dtype=np.float32) * width
        change += np.abs(ask(moved(x, noise)) - clean)
    epsilon = root_mean_square(width)
    return (change / queries / epsilon if epsilon > 0 else change).astype(np.float32)


def root_mean_square(width: NDArray[np.float32]) -> float:
    """One number for a width that may differ from column to column."""
    return float(np.sqrt(np.mean(np.square(width, dtype=np.float64))))


def _network(rng: np.random.Generator) -> Any:
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(
        StandardScaler(),
        MLPClassifier(
            hidden_layer_sizes=(64,),
            alpha=1e-3,
            batch_size=128,
            max_iter=40,
            early_stopping=True,
            n_iter_no_change=5,
            random_state=int(rng.integers(2**31)),
        ),
    )


class Samia(QueryAttack, Learned):
    """A network on the posterior, its sensitivity to noise on the input, and the label."""

    name = "samia"
    paper = "after Yuan & Zhang, USENIX Security 2022"
    threat_model = "confidences of one model on the row and on noisy copies of it, true label; calibration"
    needs = Needs(calibration=True)
    queries = 1 + NOISY_QUERIES

    def __init__(self) -> None:
        self.learner = _network

    def gather(
        self, ask: Ask, x: Rows, labels: NDArray[np.int64], inputs: InputSpace, rng: np.random.Generator
    ) -> NDArray[np.float32]:
        """Sensitivities, and ε in the last column, [rows, classes + 1]."""
        width = inputs.width(_SHARE, _QUANTA)
        found = sensitivities(ask, x, width, NOISY_QUERIES, rng)
        epsilon = np.full((len(x), 1), root_mean_square(width), dtype=np.float32)
        return np.concatenate([found, epsilon], axis=1)

    def features(self, signals: Signals, models: Integers, rows: Integers) -> Floats:
        """[p, sensitivities, one-hot label], [pairs, 3 times classes]."""
        sensitivity = signals.gathered[self.name][models, rows, :-1].astype(np.float64)
        parts = [posterior(signals, models, rows), sensitivity, label_of(signals, rows)]
        return np.concatenate(parts, axis=1)

    def score(
        self, signals: Signals, target: int, calibration: Calibration | None, rng: np.random.Generator
    ) -> Scores:
        """Probability of membership, [rows]."""
        found = super().score(signals, target, calibration, rng)
        sensitivity = signals.gathered[self.name][target]
        still = float((sensitivity[:, :-1] == 0).all(axis=1).mean())
        told = [f"noise of ε = {float(sensitivity[0, -1]):.4g} on the inputs"]
        if still > 0:
            told.append(f"it changed no probability of {100 * still:.0f} % of the rows")
        return Scores(found.values, notes=(*told, "a small network in place of the transformer"))


attacks.register("samia")(Samia())
