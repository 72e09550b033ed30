"""Distance to the decision boundary, from predicted classes alone (Choquette-Choo et al., "Label-Only
Membership Inference Attacks", ICML 2021; Li & Zhang, CCS 2021), after HopSkipJump (Chen, Jordan & Wainwright,
S&P 2020).

All rows walk at once, so that a file is asked some hundred times about many rows and not some thousand times
about single ones:

1. Four random directions and their opposites, each at five growing radii, until the class is another; the
   nearest such point.
2. Bisection between the row and the point: it now lies on the boundary, just outside.
3. Four times: fifty random steps around it, their side of the boundary votes for the boundary's normal; a
   leap along the normal, halved until it stays outside; bisection again; kept if nearer.

The result is an upper bound of the distance, on 299 queries a row where the authors find about 2,500 a good
trade-off: rows far from the boundary in many dimensions are measured coarsely. The first search, the number
of votes and the reach of a vote (a tenth of the distance, and at least a step of a quantized input in every
number) are inferred.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.attacks.base import Bools, Calibration, Floats, Scores, Signals, attacks
from edgeprivacy.attacks.queries import Ask, InputSpace, QueryAttack, Rows, correct, moved, per_row

Single = NDArray[np.float32]
Outside = Callable[[Single, NDArray[np.intp]], Bools]
"""Whether rows (positions, second) get another class when moved by offsets (first, [positions, ...])."""

_RADII = (0.25, 0.5, 1.0, 3.0, 12.0)
"""Of the first search, for each number, in standard deviations of the inputs."""


@dataclass(frozen=True)
class Effort:
    """How often a walk asks about a row, at each of its parts; see the module."""

    directions: int = 8
    first_bisection: int = 10
    rounds: int = 4
    votes: int = 50
    leaps: int = 4
    bisection: int = 8

    @property
    def queries(self) -> int:
        """In all, the row itself included."""
        a_round = self.votes + self.leaps + self.bisection
        return 1 + len(_RADII) * self.directions + self.first_bisection + self.rounds * a_round


def boundary_distance(
    ask: Ask,
    x: Rows,
    labels: NDArray[np.int64],
    inputs: InputSpace,
    rng: np.random.Generator,
    effort: Effort | None = None,
) -> Floats:
    """Upper bound of the L2 distance to the nearest point of another class than the label, float64 [rows].

    In standard deviations of the inputs (`InputSpace.spread`); columns that are always the same stay so. 0
    for rows that get another class as they are; rows whose class never changed have the largest radius that
    was tried. What is drawn from `rng` does not hang on the answers.

    Args:
        ask: The model; nothing but the likeliest class of its answers is looked at.
        x: [rows, ...].
        labels: int64 [rows].
        inputs: Units, and the finest step that the file sees.
        rng: For directions.
        effort: How often to ask; `Effort()` if None.
    """
    effort = effort or Effort()
    scale = np.broadcast_to(inputs.spread, x.shape[1:])
    free = (scale > 0).astype(np.float32)
    numbers = max(1, int(free.sum()))
    step = inputs.quantum / math.sqrt(float(np.mean(np.square(scale[scale > 0])))) if free.any() else 0.0

    def outside(offsets: Single, rows: NDArray[np.intp]) -> Bools:
        return ~correct(ask, moved(x[rows], offsets * scale), labels[rows])

    def direction() -> Single:
        return _unit(rng.standard_normal(x.shape, dtype=np.float32) * free)

    right = correct(ask, x, labels)
    offsets, found = _first_crossing(outside, direction, right, math.sqrt(numbers), effort.directions)
    rows = np.flatnonzero(found)
    offsets[rows] = _bisect(outside, offsets[rows], rows, effort.first_bisection)
    for number in range(effort.rounds):
        reach = np.maximum(0.1 * _norm(offsets), math.sqrt(numbers) * step)
        normal = _normal(outside, direction, offsets, reach, rows, effort.votes)
        landed, leapt = _leap(outside, offsets, normal, rows, math.sqrt(number + 1), effort.leaps)
        nearer = _bisect(outside, leapt, landed, effort.bisection)
        better = _norm(nearer) < _norm(offsets[landed])
        offsets[landed[better]] = nearer[better]
    if x.dtype.kind in "iu":
        # Whole numbers moved less, or more, than they were told to.
        change = moved(x, offsets * scale).astype(np.float32) - x
        offsets = np.divide(change, scale, out=np.zeros_like(change), where=scale > 0)
    return np.where(right & ~found, _RADII[-1] * math.sqrt(numbers), _norm(offsets)).astype(np.float64)


def _first_crossing(
    outside: Outside, direction: Callable[[], Single], right: Bools, root: float, directions: int
) -> tuple[Single, Bools]:
    """Offsets [rows, ...] of the nearest point found of another class, and for which rows there is one."""
    nearest = np.where(right, np.inf, 0.0)
    towards, offsets = np.zeros(0, dtype=np.float32), None
    for number in range(directions):
        # A half-space is met by one of two opposite directions; by eight random ones, it may be missed.
        towards = -towards if number % 2 else direction()
        offsets = np.zeros_like(towards) if offsets is None else offsets
        for radius in (root * share for share in _RADII):
            rows = np.flatnonzero(nearest > radius)
            if len(rows):
                there = towards[rows] * np.float32(radius)
                crossed = outside(there, rows)
                offsets[rows[crossed]], nearest[rows[crossed]] = there[crossed], radius
    assert offsets is not None
    return offsets, np.isfinite(nearest) & right


def _bisect(outside: Outside, offsets: Single, rows: NDArray[np.intp], steps: int) -> Single:
    """The offsets, which lead outside, shortened as far as they still do."""
    inner, outer = np.zeros(len(rows), dtype=np.float32), np.ones(len(rows), dtype=np.float32)
    for _ in range(steps if len(rows) else 0):
        middle = (inner + outer) / 2
        crossed = outside(offsets * per_row(middle, offsets), rows)
        outer, inner = np.where(crossed, middle, outer), np.where(crossed, inner, middle)
    return np.asarray(offsets * per_row(outer, offsets))


def _normal(
    outside: Outside,
    direction: Callable[[], Single],
    offsets: Single,
    reach: Floats,
    rows: NDArray[np.intp],
    votes: int,
) -> Single:
    """Unit normals of the boundary at the offsets of these rows, pointing outside: HopSkipJump's estimate,
    with the mean vote taken off unless all agree."""
    signed, plain = np.zeros_like(offsets[rows]), np.zeros_like(offsets[rows])
    total = np.zeros(len(rows), dtype=np.float32)
    for _ in range(votes):
        towards = direction()[rows]
        if len(rows):
            there = offsets[rows] + towards * per_row(reach[rows].astype(np.float32), towards)
            vote = np.where(outside(there, rows), np.float32(1), np.float32(-1))
            signed += towards * per_row(vote, towards)
            plain += towards
            total += vote
    mean = np.where(np.abs(total) == votes, 0.0, total / votes).astype(np.float32)
    return _unit(signed - plain * per_row(mean, plain))


def _leap(
    outside: Outside, offsets: Single, normal: Single, rows: NDArray[np.intp], divisor: float, leaps: int
) -> tuple[NDArray[np.intp], Single]:
    """Rows that stayed outside after a leap along the normal, and where they are then.

    The first leap is the distance divided by `divisor`, each further one half as long.
    """
    length = _norm(offsets[rows]).astype(np.float32) / np.float32(divisor)
    landed = np.zeros(len(rows), dtype=np.bool_)
    there = offsets[rows]
    for _ in range(leaps):
        falling = np.flatnonzero(~landed)
        if len(falling):
            tried = offsets[rows[falling]] + normal[falling] * per_row(length[falling], normal)
            crossed = outside(tried, rows[falling])
            there[falling[crossed]], landed[falling[crossed]] = tried[crossed], True
        length /= 2
    return rows[landed], there[landed]


def _norm(offsets: NDArray[Any]) -> Floats:
    flat = offsets.reshape(len(offsets), math.prod(offsets.shape[1:])).astype(np.float64)
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", flat, flat)))


def _unit(offsets: Single) -> Single:
    length = np.maximum(_norm(offsets), np.finfo(np.float32).tiny).astype(np.float32)
    return np.asarray(offsets / per_row(length, offsets))


class Boundary(QueryAttack):
    """The farther from the decision boundary, the likelier a member; rows of another class score 0."""

    name = "label-only.boundary"
    paper = "Choquette-Choo et al., ICML 2021; after HopSkipJump, Chen et al., S&P 2020"
    threat_model = "predicted class of some 300 rows around each row, true label"
    queries = Effort().queries

    def gather(
        self, ask: Ask, x: Rows, labels: NDArray[np.int64], inputs: InputSpace, rng: np.random.Generator
    ) -> Floats:
        """Distances, [rows]."""
        return boundary_distance(ask, x, labels, inputs, rng)

    def score(
        self, signals: Signals, target: int, calibration: Calibration | None, rng: np.random.Generator
    ) -> Scores:
        """Distances in standard deviations of the inputs, [rows]."""
        note = f"distances are upper bounds, on {self.queries} or fewer queries a row"
        return Scores(self.gathered(signals)[target], notes=(note,))


attacks.register("label-only.boundary")(Boundary())
