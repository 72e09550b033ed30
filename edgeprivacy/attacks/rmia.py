"""The robust membership inference attack, offline (Zarifzadeh, Liu & Shokri, "Low-Cost High-Power Membership
Inference Attacks", ICML 2024).

    LR(x, z) = [Pr(x|θ) / Pr(x)] / [Pr(z|θ) / Pr(z)],   s(x) = share of population rows z with LR(x, z) > γ
    Pr(·)    = ½ [(1 + a) mean_OUT + (1 - a)],          for x over shadows that did not train on it,
                                                        for z over all shadows (nobody trained on z)

γ = 2 as in the authors' research configurations. a is tuned on the shadows, without the target: up to four
are attacked with the others as references, over the grid 0, 0.1, …, 1, and the a with the highest mean AUC is
taken (0.3, the authors' value for CIFAR-10, where there is no second shadow to tune with).
Pr(x|θ) is p_y without temperature, at least the floor of the output.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.attacks.base import (
    Attack,
    Bools,
    Calibration,
    Floats,
    Needs,
    Population,
    Scores,
    Signals,
    attacks,
)
from edgeprivacy.errors import DataError
from edgeprivacy.metrics.roc import auc

GAMMA = 2.0
_GRID = np.arange(11) / 10.0
_DEFAULT_A = 0.3
_TUNING_MODELS = 8


def rmia_scores(
    x_target: Floats, x_out: Floats, z_target: Floats, z_out: Floats, a: float, gamma: float = GAMMA
) -> Floats:
    """Share of population rows that x dominates, float64 [rows] in [0, 1]; no rows-by-population array.

    Args:
        x_target: Pr(x|θ) of the target, [rows].
        x_out: Mean Pr(x|θ') over OUT references, [rows].
        z_target: Pr(z|θ) of the target, [population].
        z_out: Mean Pr(z|θ') over references, [population].
        a: Linear correction of the OUT mean towards Pr(·), 0..1.
        gamma: Factor by which x must dominate z.
    """
    r_x = x_target / _prior(x_out, a)
    r_z = np.sort(z_target / _prior(z_out, a))
    # r_x / r_z > γ: the z strictly below r_x / γ.
    return np.searchsorted(r_z, r_x / gamma, "left") / len(r_z)


def _prior(mean_out: Floats, a: float) -> Floats:
    return 0.5 * ((1.0 + a) * mean_out + (1.0 - a))


class RmiaOffline(Attack):
    """Pairwise likelihood-ratio tests against the population, with OUT shadows alone."""

    name = "rmia.offline"
    rests_on_truth = True
    paper = "Zarifzadeh et al., ICML 2024"
    threat_model = "confidences, true label; one or more shadows, population rows of the same distribution"
    needs = Needs(shadows=1, population=True)

    def score(
        self, signals: Signals, target: int, calibration: Calibration | None, rng: np.random.Generator
    ) -> Scores:
        """Share of dominated population rows, [rows]. Rows without an OUT shadow take the mean over all OUT
        outputs and are counted."""
        population = signals.population
        assert population is not None
        shadows = signals.shadows(target)
        p = np.maximum(signals.confidence[shadows], signals.log_floor)
        out = ~signals.members[shadows]
        p_z = np.maximum(population.confidence[shadows], population.log_floor)
        a = self._tune(signals, shadows, p, out, p_z)
        x_out, missing = _mean_out((p * out).sum(axis=0), out.sum(axis=0))
        values = rmia_scores(
            np.maximum(signals.confidence[target], signals.log_floor),
            x_out,
            np.maximum(population.confidence[target], population.log_floor),
            p_z.mean(axis=0),
            a,
        )
        return Scores(values, pooled_rows=missing, notes=(f"a = {a:.1f}", _resolution(population)))

    def _tune(
        self,
        signals: Signals,
        shadows: NDArray[np.intp],
        p: Floats,
        out: Bools,
        p_z: Floats,
    ) -> float:
        if len(shadows) < 2:
            return _DEFAULT_A
        sums, counts, z_sum = (p * out).sum(axis=0), out.sum(axis=0), p_z.sum(axis=0)
        areas = np.zeros(len(_GRID))
        for held in np.unique(np.linspace(0, len(shadows) - 1, _TUNING_MODELS).astype(np.intp)):
            rows = np.flatnonzero(signals.audited[shadows[held]])
            members = ~out[held, rows]
            if members.all() or not members.any():
                continue
            x_out, _ = _mean_out(sums - p[held] * out[held], counts - out[held])
            z_out = (z_sum - p_z[held]) / (len(shadows) - 1)
            for index, a in enumerate(_GRID):
                areas[index] += auc(rmia_scores(p[held, rows], x_out[rows], p_z[held], z_out, a), members)
        return float(_GRID[np.argmax(areas)]) if areas.any() else _DEFAULT_A


class RmiaOnline(Attack):
    """Pairwise likelihood-ratio tests with Pr(x) over as many IN as OUT shadows, trimmed by a fifth.

    Pr(x) = ½ (trimmed mean over IN + trimmed mean over OUT); Pr(z) over all shadows, trimmed alike.
    """

    name = "rmia.online"
    rests_on_truth = True
    paper = "Zarifzadeh et al., ICML 2024"
    threat_model = (
        "confidences, true label; shadows that trained on the row and shadows that did not; population"
    )
    needs = Needs(shadows=4, population=True)

    def score(
        self, signals: Signals, target: int, calibration: Calibration | None, rng: np.random.Generator
    ) -> Scores:
        """Share of dominated population rows, [rows]. Rows with shadows on one side only take that side's
        mean and are counted."""
        population = signals.population
        assert population is not None
        shadows = signals.shadows(target)
        p = np.maximum(signals.confidence[shadows], signals.log_floor)
        members = signals.members[shadows]
        sides = [trimmed_mean(p, members), trimmed_mean(p, ~members)]
        known = [members.any(axis=0), (~members).any(axis=0)]
        both = known[0] & known[1]
        prior = np.where(both, 0.5 * (sides[0] + sides[1]), np.where(known[0], sides[0], sides[1]))
        p_z = np.maximum(population.confidence[shadows], population.log_floor)
        values = rmia_scores(
            np.maximum(signals.confidence[target], signals.log_floor),
            prior,
            np.maximum(population.confidence[target], population.log_floor),
            trimmed_mean(p_z, np.ones(p_z.shape, dtype=np.bool_)),
            a=1.0,
        )
        return Scores(values, pooled_rows=int((~both).sum()), notes=(_resolution(population),))


def trimmed_mean(values: Floats, chosen: Bools, share: float = 0.2) -> Floats:
    """Mean of each row's chosen values without a share of them, half at either end; 0 where none is chosen.

    Args:
        values: float64 [models, rows].
        chosen: bool [models, rows].
        share: Of the values left out, rounded down to whole values at each end.
    """
    counts = chosen.sum(axis=0)
    ordered = np.sort(np.where(chosen, values, np.inf), axis=0)
    cut = (0.5 * share * counts).astype(np.intp)
    rank = np.arange(len(values))[:, None]
    kept = (rank >= cut) & (rank < counts - cut)
    sums = np.where(kept, ordered, 0.0).sum(axis=0)
    return np.asarray(sums / np.maximum(counts - 2 * cut, 1))


def _mean_out(sums: Floats, counts: NDArray[np.intp]) -> tuple[Floats, int]:
    if not counts.any():
        raise DataError("RMIA needs rows that a shadow did not train on, there are none")
    overall = sums.sum() / counts.sum()
    # Differences of sums can fall below zero by rounding.
    mean = np.where(counts > 0, np.maximum(sums, 0.0) / np.maximum(counts, 1), overall)
    return np.maximum(mean, np.finfo(np.float32).tiny), int((counts == 0).sum())


def _resolution(population: Population) -> str:
    return f"{len(population.labels)} population rows: scores move in steps of 1/{len(population.labels)}"


for _attack in (RmiaOffline(), RmiaOnline()):
    attacks.register(_attack.name)(_attack)
