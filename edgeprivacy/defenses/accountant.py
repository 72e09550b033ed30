"""The (epsilon, delta) of all training that a release's history tells of.

The arithmetic is that of Google's dp-accounting: privacy loss distributions (Doroshenko et al., "Connect the
Dots", 2022), which round upwards.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from edgeprivacy.defenses.base import Defense
from edgeprivacy.errors import MissingDependency

USEFUL = 20.0
"""Epsilon above which a guarantee says next to nothing: the odds of membership may change e^20-fold."""


@dataclass(frozen=True)
class Guarantee:
    """What one training row's presence can change, at most.

    Attributes:
        epsilon: Infinite where some training was not private.
        delta: Probability that it changes more.
        steps: Private steps of all phases.
        phases: Names of the private phases.
        unprotected: Phases that trained on the same rows without privacy.
        uncovered: What else read training rows, in a few words each.
    """

    epsilon: float
    delta: float
    steps: int
    phases: tuple[str, ...]
    unprotected: tuple[str, ...]
    uncovered: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; an infinite epsilon is null."""
        content = asdict(self)
        return content | {"epsilon": None if math.isinf(self.epsilon) else round(self.epsilon, 4)}


def check_accountant(feature: str) -> None:
    """Raise MissingDependency where dp-accounting is not installed."""
    try:
        import dp_accounting  # noqa: F401
    except ImportError:
        raise MissingDependency(feature, extra="dp") from None


def epsilon_of(steps: Mapping[tuple[float, float], int], delta: float) -> float:
    """Epsilon of Gaussian steps on Poisson samples, one row being added or removed: the smallest that can be
    shown.

    Args:
        steps: (sampling rate, noise multiplier) to the number of such steps.
        delta: In (0, 1).

    Returns:
        0 for no steps, infinity where there is no noise.
    """
    taken = tuple(sorted((*kind, number) for kind, number in steps.items() if number))
    if not taken:
        return 0.0
    return math.inf if any(noise == 0 for _, noise, _ in taken) else _composed(taken, delta)


@cache
def _composed(steps: tuple[tuple[float, float, int], ...], delta: float, finest: float = 1e-4) -> float:
    from dp_accounting import dp_event
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant(
        value_discretization_interval=_grid(min(noise for _, noise, _ in steps), finest)
    )
    for rate, noise, number in steps:
        event = dp_event.PoissonSampledDpEvent(rate, dp_event.GaussianDpEvent(noise))
        accountant.compose(dp_event.SelfComposedDpEvent(event, number))
    return float(accountant.get_epsilon(delta))


@cache
def least_noise(epsilon: float, delta: float, steps: int, rate: float) -> float:
    """The smallest noise multiplier, to a hundredth of itself, that keeps epsilon over so many steps."""
    low, high, grid = 0.01, 0.02, max(1e-4, epsilon / 2000)
    while _composed(((rate, high, steps),), delta, grid) > epsilon:
        low, high = high, 2 * high
    while high > 1.01 * low:
        middle = math.sqrt(low * high)
        enough = _composed(((rate, middle, steps),), delta, grid) <= epsilon
        low, high = (low, middle) if enough else (middle, high)
    return round(high, 6)


def _grid(noise: float, finest: float) -> float:
    """Width of the grid on which losses are counted: little noise brings losses of 1 / (2 noise^2), and what
    is a thousandth of epsilon may then be large."""
    return max(min(1.0, finest * max(1.0, (0.5 / noise) ** 3)), 1e-4 / noise**2)


def guarantee(defense: Defense, history: Sequence[Mapping[str, Any]]) -> Guarantee | None:
    """The guarantee of what a history tells; None for a defense whose steps are not private.

    Args:
        history: All phases of a release, each with its "steps" and, where these were private, with "private":
            {"sampling_rate", "noise"}.
    """
    steps_kept = defense.private()
    if steps_kept is None:
        return None
    trained = [phase for phase in history if phase.get("steps")]
    private = [phase for phase in trained if "private" in phase]
    bare = tuple(str(phase["phase"]) for phase in trained if "private" not in phase)
    if not any(phase["phase"] == "original" for phase in trained):
        bare = ("original", *bare)
    kinds: dict[tuple[float, float], int] = {}
    for phase in private:
        kind = phase["private"]["sampling_rate"], phase["private"]["noise"]
        kinds[kind] = kinds.get(kind, 0) + phase["steps"]
    return Guarantee(
        math.inf if bare else epsilon_of(kinds, steps_kept.delta),
        steps_kept.delta,
        sum(kinds.values()),
        tuple(str(phase["phase"]) for phase in private),
        bare,
        tuple(
            what
            for what, holds in (
                ("the scores by which weights were rewound", defense.rewinding() is not None),
                ("the ranges that quantization-aware training observed", _ranges_observed(trained)),
            )
            if holds
        ),
    )


def _ranges_observed(trained: Sequence[Mapping[str, Any]]) -> bool:
    return any(phase["phase"] == "qat" for phase in trained)


def told(guarantee: Guarantee, name: str) -> str:
    """A sentence or two for the report."""
    what = "Of one training row more or less"
    if guarantee.unprotected:
        phases = ", ".join(guarantee.unprotected)
        said = f"{name}: ε = ∞, no guarantee. Trained on the same rows without it: {phases}."
    else:
        useful = "" if guarantee.epsilon <= USEFUL else " That is no useful guarantee."
        epsilon = "∞" if math.isinf(guarantee.epsilon) else f"{guarantee.epsilon:.3g}"
        said = (
            f"{name}: (ε, δ) = ({epsilon}, {guarantee.delta:g}).{useful} {what}, over all "
            f"{guarantee.steps:,} steps that ran ({', '.join(guarantee.phases)})."
        )
    if guarantee.uncovered:
        said += f" Not covered: {'; '.join(guarantee.uncovered)}."
    return said + " The noise is drawn from the recipe's seed: it hides nothing from who knows that seed."
