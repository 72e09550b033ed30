"""BlindMI (Hui et al., "Practical Blind Membership Inference Attack via Differential Comparisons", NDSS
2021), in the form that needs outputs only.

The paper makes its non-members: 20 images behind a Sobel filter. Here the population's rows are the known
non-members, up to 200 of them; they need no further query and exist for data that are no images. The rest is
the differential comparison of the released code (BlindMI-Diff): rows move from the suspected members to the
non-members while that sets the two further apart.

Ours, where the code is silent or depends on the order of the rows:

* Rows with the same features are one point with a weight, so that rows alike are called alike, and nothing
  hangs on the order of the rows.
* Batches hold about 1,000 points of all confidences instead of rows as they come.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.attacks.base import Attack, Bools, Calibration, Floats, Needs, Scores, Signals, attacks

BATCH = 1000
_KNOWN = 200
_ROUNDS = 30


class BlindMI(Attack):
    """s = 1 for rows that stay with the suspected members, 0 for rows that move to the non-members.

    Features: p_y and the two largest probabilities. At first every row is a suspected member and the known
    non-members are rows of the population. A row's move is judged by the change of the squared maximum mean
    discrepancy between the two sides (Gaussian kernels of five widths); in each round all rows whose move
    alone would raise it move together, until none would.

    The score has two values: all rows called alike are tied, the ROC is one point between two straight
    lines, and a TPR below that point's FPR lies on the first line.
    """

    name = "blindmi"
    paper = "Hui et al., NDSS 2021 (outputs only)"
    threat_model = "confidences of one model, true label; population rows, no shadow"
    needs = Needs(population=True)
    version = "2"
    threshold = 1.0

    def score(
        self, signals: Signals, target: int, calibration: Calibration | None, rng: np.random.Generator
    ) -> Scores:
        """1.0 for a member, 0.0 for a non-member, [rows]."""
        assert signals.population is not None
        known = _features(signals.population.probabilities[target], signals.population.confidence[target])
        known = known[np.linspace(0, len(known) - 1, min(_KNOWN, len(known))).astype(np.intp)]
        features = _features(signals.probabilities[target], signals.confidence[target])
        points, point_of_row, rows_alike = np.unique(
            features, axis=0, return_inverse=True, return_counts=True
        )
        members = _in_batches(points, rows_alike.astype(np.float64), known)[point_of_row.ravel()]
        stayed = f"{members.mean():.1%} of all rows stay with the members; the ROC is one point"
        return Scores(members.astype(np.float64), notes=(stayed,))


def _in_batches(points: Floats, weights: Floats, known: Floats) -> Bools:
    """Which points stay with the members. A point of many rows takes part in every batch, with its share of
    them, and stays where most batches say so: saturated outputs are a large part of every sample."""
    batches = max(1, round(len(points) / BATCH))
    everywhere = weights >= batches
    shares = np.where(everywhere, weights / batches, weights)
    alone = np.flatnonzero(~everywhere)
    votes, members = np.zeros(len(points)), np.zeros(len(points), dtype=np.bool_)
    for batch in range(batches):
        # Points come sorted by confidence: every n-th is a sample of all.
        chosen = np.concatenate([np.flatnonzero(everywhere), alone[batch::batches]])
        votes[chosen] += differential_comparison(points[chosen], known, shares[chosen])
    members[everywhere] = 2 * votes[everywhere] > batches
    members[alone] = votes[alone] > 0
    return members


def differential_comparison(features: Floats, known: Floats, weights: Floats | None = None) -> Bools:
    """Which points stay with the suspected members, bool [points].

    Args:
        features: float64 [points, features].
        known: Known non-members, float64 [others, features].
        weights: Rows that each point stands for, [points], above 0; one each if None.
    """
    count = len(features)
    weight = np.ones(count + len(known))
    if weights is not None:
        weight[:count] = weights
    kernel = _kernel(np.concatenate([features, known]), weight)
    own = np.diagonal(kernel)
    member = np.arange(len(weight)) < count
    for _ in range(_ROUNDS):
        inside, outside = weight * member, weight * ~member
        m, n = inside.sum(), outside.sum()
        if m <= 1:
            break
        to_inside, to_outside = kernel @ inside, kernel @ outside
        a, b, c = inside @ to_inside, outside @ to_outside, outside @ to_inside
        now = a / m**2 + b / n**2 - 2 * c / (m * n)
        # One row of the point moved alone: the sums lose or gain its row and column.
        moved_a = a - 2 * to_inside + own
        moved_b = b + 2 * to_outside + own
        moved_c = c - to_outside + to_inside - own
        then = moved_a / (m - 1) ** 2 + moved_b / (n + 1) ** 2 - 2 * moved_c / ((m - 1) * (n + 1))
        moves = member & (then > now)
        if not moves.any() or (moves == member).all():
            break
        member = member & ~moves
    return member[:count]


def _features(probabilities: NDArray[np.float32], confidence: Floats) -> Floats:
    """[p_y, the two largest probabilities], [rows, 3]."""
    top = -np.sort(-probabilities, axis=1)[:, :2].astype(np.float64)
    return np.column_stack([confidence, top])


def _kernel(points: Floats, weights: Floats) -> Floats:
    """Sum of five Gaussian kernels, [points, points]: widths of 1/4, 1/2, 1, 2 and 4 times the mean squared
    distance between rows."""
    squares = (points**2).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares[None] - 2 * points @ points.T, 0.0)
    width = max(float(weights @ distances @ weights / weights.sum() ** 2), 1e-12)
    # Each width is half the one before: its kernel is the square of the one before.
    kernel = np.exp(distances / (-4 * width))
    total = kernel.copy()
    for _ in range(4):
        kernel *= kernel
        total += kernel
    return np.asarray(total)


attacks.register(BlindMI.name)(BlindMI())
