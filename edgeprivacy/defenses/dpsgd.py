"""DP-SGD: every row's gradient is clipped before they are summed, and noise covers what any one row adds.

Abadi et al., "Deep Learning with Differential Privacy", CCS 2016, algorithm 1, with Adam in the place of
plain descent (what an optimizer does with a noisy gradient costs no privacy).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.defenses.base import Defense, TrainingDefense, TrainingRows, defenses
from edgeprivacy.defenses.ranges import Searchable, Span, check_number
from edgeprivacy.errors import RecipeError


@dataclass(frozen=True)
class PrivateSteps:
    """How a step keeps its rows: (sum of g_i * min(1, clip / |g_i|) + noise * clip * N(0, 1)) / batch, where
    g_i is the gradient of row i over all that is trained.

    Attributes:
        clip: Largest norm of a row's gradient.
        noise: Standard deviation of the noise, in multiples of `clip`.
        delta: The guarantee's delta.
    """

    clip: float
    noise: float
    delta: float

    def told(self, rows: int, batch: int) -> dict[str, float]:
        """For a history: all that the accountant must know of steps on batches of so many rows."""
        return {"sampling_rate": sampling_rate(rows, batch), "noise": self.noise}

    def batches(
        self, rows: NDArray[np.integer[Any]], batch: int, rng: np.random.Generator
    ) -> list[NDArray[np.integer[Any]]]:
        """As many batches as an epoch has, each holding every row with probability `sampling_rate`,
        independently: some are smaller, some larger, one may be empty.

        Args:
            rows: Positions of the rows, in any order.
            batch: Expected size.
        """
        rate, rows = sampling_rate(len(rows), batch), np.sort(rows)
        return [rows[rng.random(len(rows)) < rate] for _ in range(-(-len(rows) // batch))]

    def noise_like(
        self, shapes: Sequence[tuple[int, ...]], rng: np.random.Generator
    ) -> list[NDArray[np.float32]]:
        """One step's noise, an array for each of the variables, to be added to the sum."""
        scale = np.float32(self.noise * self.clip)
        return [scale * rng.standard_normal(shape, dtype=np.float32) for shape in shapes]


def sampling_rate(rows: int, batch: int) -> float:
    """Probability that a row is in a batch."""
    return min(1.0, batch / rows)


@defenses.register("dpsgd")
@dataclass(frozen=True)
class DPSGD(TrainingDefense):
    """Batches are drawn by Poisson sampling, rows' gradients clipped and noised. The report prints the
    (epsilon, delta) of all training that ran, the original and every later phase included, and names what
    read training rows outside of it. Dropout rests. A network in which a row's answer depends on the other
    rows of its batch (BatchNorm) is refused: there is then no gradient of a row alone.

    Attributes:
        epsilon: The guarantee of all epochs that the recipe may train; stopping early keeps a better one.
        delta: Well below one over the number of rows; from there on it is refused.
        clip: Largest norm of a row's gradient.
        noise: Standard deviation, in multiples of `clip`; 0 chooses it by `epsilon`. HAMP: Purchase 1.7.
    """

    name: ClassVar[str] = "dpsgd"
    title: ClassVar[str] = "DP-SGD: rows' gradients clipped and noised, with an accountant's (ε, δ)"
    paper: ClassVar[str] = "Abadi et al., Deep Learning with Differential Privacy, CCS 2016"
    search: ClassVar[Mapping[str, Searchable]] = {"clip": Span(0.1, 10.0, log=True)}

    epsilon: float = 8.0
    delta: float = 1e-5
    clip: float = 1.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        check_number("epsilon", self.epsilon, 0, open_low=True)
        check_number("delta", self.delta, 0, 1, open_low=True)
        check_number("clip", self.clip, 0, open_low=True)
        check_number("noise", self.noise, 0)

    def check(self, rows: TrainingRows) -> None:
        """Who gives a row away whole, drawn at random, keeps (0, 1 / rows): such a delta promises nothing."""
        count = len(rows.labels)
        if self.delta * count >= 1:
            raise RecipeError(
                f"defense '{self.name}' promises nothing with a delta this large",
                got=f"delta {self.delta:g} for {count} training rows",
                allowed=f"well below one over the number of rows, {1 / count:.2g}",
                hint=f"set delta = {0.1 / count:.1g}",
            )

    def planned(self, steps: int, rate: float) -> Defense:
        """With the least noise that keeps `epsilon` over these steps, where none is given."""
        if self.noise:
            return self
        from edgeprivacy.defenses.accountant import least_noise  # imported late: it knows all defenses

        return replace(self, noise=least_noise(self.epsilon, self.delta, steps, rate))

    @property
    def dropout(self) -> float | None:
        """It rests."""
        return 0.0

    def private(self) -> PrivateSteps | None:
        """How a step keeps its rows."""
        return PrivateSteps(self.clip, self.noise, self.delta)

    @property
    def needs(self) -> str:
        """In a few words, for listings."""
        return "a network without BatchNorm; pip install 'edgeprivacy[dp]'"


@defenses.register("dpsgd:utility")
@dataclass(frozen=True)
class DPSGDForUtility(DPSGD):
    """The same with little noise: no useful epsilon, and yet what Aerni et al. (CCS 2024) find to be the best
    of all on the worst rows; the baseline that other defenses have to beat.

    Attributes:
        epsilon, delta, clip, noise: As of `dpsgd`.
    """

    name: ClassVar[str] = "dpsgd:utility"
    title: ClassVar[str] = "DP-SGD tuned for accuracy: little noise, no useful ε"
    paper: ClassVar[str] = "Abadi et al., CCS 2016; as in Aerni et al., CCS 2024"
    search: ClassVar[Mapping[str, Searchable]] = {"noise": Span(0.02, 0.5, log=True), **DPSGD.search}

    noise: float = 0.1
