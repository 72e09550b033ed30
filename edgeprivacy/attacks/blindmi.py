"""BlindMI (Hui et al., "Practical Blind Membership Inference Attack via Differential Comparisons", NDSS
2021), in the form that needs outputs only.

The paper generates non-members by filtering images. Here the population's rows are the known non-members;
they need no further query. The rest is the differential comparison of its released code: rows move from the
suspected members to the non-members while that sets the two further apart.
"""

from __future__ import annotations

import numpy as np

from edgeprivacy.attacks.base import Attack, Calibration, Floats, Needs, Scores, Signals, attacks

BATCH = 1000
_KNOWN = 200
_ROUNDS = 30


class BlindMI(Attack):
    """s = 1 for rows that stay with the members, 0 for those that move; ties within by p_y.

    Features: p_y and the two largest probabilities. In batches of 1,000 rows, each row's move is judged by
    the change of the squared maximum mean discrepancy (Gaussian kernels of five widths) between the suspected
    members and the known non-members; all rows whose move would raise it move together, until none would.
    """

    name = "blindmi"
    paper = "Hui et al., NDSS 2021"
    threat_model = "confidences of one model, true label; population rows, no shadow"
    needs = Needs(population=True)
    threshold = 1.0

    def score(
        self, signals: Signals, target: int, calibration: Calibration | None, rng: np.random.Generator
    ) -> Scores:
        """1 or more for a member, below 1 for a non-member; the digits after the point are p_y, [rows]."""
        assert signals.population is not None
        known = _features(signals.population.probabilities[target], signals.population.confidence[target])
        known = known[np.linspace(0, len(known) - 1, min(_KNOWN, len(known))).astype(np.intp)]
        features = _features(signals.probabilities[target], signals.confidence[target])
        members = np.ones(len(features), dtype=np.bool_)
        # Rows alike in confidence would share a batch if they came in order; a fixed shuffle by content keeps
        # the result the same in whatever order rows come.
        order = np.lexsort(features.T)
        batches = max(1, round(len(order) / BATCH))
        for batch in range(batches):
            rows = order[batch::batches]
            members[rows] = differential_comparison(features[rows], known)
        p = np.clip(signals.confidence[target], 0.0, 1.0)
        return Scores(members + 0.999 * p)


def differential_comparison(features: Floats, known: Floats) -> np.ndarray:
    """Which rows stay with the members, bool [rows].

    Args:
        features: float64 [rows, features].
        known: Known non-members, float64 [others, features].
    """
    every = np.concatenate([features, known])
    kernel = _kernel(every)
    count = len(features)
    member = np.ones(count, dtype=np.bool_)
    for _ in range(_ROUNDS):
        inside = np.append(member, np.zeros(len(known), dtype=np.bool_))
        m, n = int(member.sum()), int((~inside).sum())
        if m <= 1:
            break
        to_inside, to_outside = kernel @ inside, kernel @ ~inside
        a, b, c = to_inside[inside].sum(), to_outside[~inside].sum(), to_inside[~inside].sum()
        now = a / m**2 + b / n**2 - 2 * c / (m * n)
        own = np.diagonal(kernel)
        # Each row moved alone: the sums lose or gain its row and column.
        moved_a = a - 2 * to_inside + own
        moved_b = b + 2 * to_outside + own
        moved_c = c - to_outside + to_inside - own
        then = moved_a / (m - 1) ** 2 + moved_b / (n + 1) ** 2 - 2 * moved_c / ((m - 1) * (n + 1))
        moves = member & (then[:count] > now)
        if not moves.any() or moves.sum() >= m:
            break
        member = member & ~moves
    return member


def _features(probabilities: np.ndarray, confidence: Floats) -> Floats:
    top = -np.sort(-probabilities, axis=1)[:, :2].astype(np.float64)
    return np.column_stack([confidence, top])


def _kernel(points: Floats) -> Floats:
    """Sum of five Gaussian kernels, their widths around the mean squared distance, [points, points]."""
    squares = (points**2).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares[None] - 2 * points @ points.T, 0.0)
    width = max(float(distances.mean()), 1e-12)
    return np.asarray(sum(np.exp(-distances / (width * 2.0**step)) for step in range(-2, 3)))


attacks.register(BlindMI.name)(BlindMI())
