"""MIA-Pruning: a sub-network found by ADMM, which draws weights towards sparsity while they are trained.

After Wang et al., "Against Membership Inference Attack: Pruning is All You Need", IJCAI 2021. Neither its
schedule nor its code could be read: the alternating updates below are those of ADMM pruning in public code
(Zhang et al., ECCV 2018, and robustness-aware pruning), and the settings are ours. The form with an inference
network (Min-Max) is in `advreg`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.compression.magnitude import magnitude_masks
from edgeprivacy.defenses.base import Defense, defenses
from edgeprivacy.defenses.ranges import Searchable, Span, check_count, check_number

Kernels = Sequence[NDArray[Any]]


@dataclass(frozen=True)
class Admm:
    """The alternating directions: weights W are trained with rho / 2 * |W - Z + U|^2 added to the loss; from
    time to time Z becomes what is nearest to W + U among kernels as sparse as asked, and U gathers W - Z.
    U is the dual over rho: where rho grows, U shrinks as much (Boyd et al., "Distributed Optimization and
    Statistical Learning via the Alternating Direction Method of Multipliers", 2011, section 3.4.1).

    Attributes:
        rho: Strength at the start; growth: what it is multiplied by at every update of Z and U.
        epochs: Of this phase; every: Epochs from one update of Z and U to the next.
    """

    rho: float
    growth: float
    epochs: int
    every: int

    def project(self, kernels: Kernels, sparsity: float) -> list[NDArray[Any]]:
        """Each kernel with its smallest weights at zero."""
        masks = magnitude_masks([np.asarray(kernel) for kernel in kernels], sparsity)
        return [np.where(mask, kernel, 0) for mask, kernel in zip(masks, kernels, strict=True)]

    def start(self, kernels: Kernels, sparsity: float) -> Dual:
        """Z from the weights as they are, U zero."""
        return Dual(self.project(kernels, sparsity), [np.zeros_like(kernel) for kernel in kernels], self.rho)

    def updated(self, dual: Dual, kernels: Kernels, sparsity: float) -> Dual:
        """Z and U after the weights have been trained."""
        z = self.project([w + u for w, u in zip(kernels, dual.u, strict=True)], sparsity)
        u = [(old + w - near) / self.growth for old, w, near in zip(dual.u, kernels, z, strict=True)]
        return Dual(z, u, dual.rho * self.growth)


@dataclass(frozen=True)
class Dual:
    """Z, U and the strength that they pull with."""

    z: list[NDArray[Any]]
    u: list[NDArray[Any]]
    rho: float

    @property
    def targets(self) -> list[NDArray[Any]]:
        """Where weights are drawn to: Z - U."""
        return [z - u for z, u in zip(self.z, self.u, strict=True)]


@defenses.register("mia-pruning")
@dataclass(frozen=True)
class MiaPruning(Defense):
    """Pruning by ADMM in the place of the recipe's schedule, to the sparsity it asks for: for some epochs
    weights are drawn towards a sparse copy of themselves (rho / 2 * |W - Z + U|^2 added to the loss; Z is
    projected and U updated from time to time), then the smallest weights are pruned for good and the others
    fine-tuned as long as the recipe says. The paper compares networks of more than 90 % zeros with dense
    ones; at 60 % later work finds that pruning alone leaks more, not less.

    Attributes:
        rho: Strength of the pull; public code: 0.001 to 0.01.
        growth: What it is multiplied by at each update; 1 keeps it.
        epochs: Of the phase in which weights are drawn.
        every: Epochs between two updates of Z and U.
    """

    name: ClassVar[str] = "mia-pruning"
    title: ClassVar[str] = "pruning by ADMM: weights are drawn towards sparsity while they train"
    paper: ClassVar[str] = "after Wang et al., MIA-Pruning, IJCAI 2021"
    version: ClassVar[str] = "2"
    search: ClassVar[Mapping[str, Searchable]] = {"rho": Span(1e-3, 0.1, log=True)}

    rho: float = 0.01
    growth: float = 1.0
    epochs: int = 20
    every: int = 1

    def __post_init__(self) -> None:
        check_number("rho", self.rho, 0)
        check_number("growth", self.growth, 1)
        check_count("epochs", self.epochs)
        check_count("every", self.every)

    def admm(self) -> Admm | None:
        """How weights become sparse."""
        return Admm(self.rho, self.growth, self.epochs, self.every)
