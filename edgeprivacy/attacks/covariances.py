"""Gaussians over several numbers, one a row: means and covariances of few models, shrunk towards the pool."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeprivacy.attacks.base import Bools, Floats
from edgeprivacy.errors import DataError

SHRINKAGES = (4.0, 16.0, 64.0, 1024.0)
"""Weights that the pooled covariance may have, in shadows: a row's own counts n / (n + weight)."""
_RIDGE = 1e-4
"""Of the pooled variance of each version, added to every covariance: a version that repeats another to the
last bit adds nothing, and must not divide by nothing."""
_LEAST = 2


@dataclass(frozen=True)
class Moments:
    """What covariances of any shrinkage are made of.

    Attributes:
        mean: float64 [rows, versions].
        scatter: [rows, versions, versions], sums of products about the mean.
        counts: [rows], models that count.
        overall: [versions], the mean over all rows and models.
        spread: [versions, versions], the covariance about that.
    """

    mean: Floats
    scatter: Floats
    counts: Floats
    overall: Floats
    spread: Floats


def moments(values: Floats, chosen: Bools) -> Moments:
    """Sums over the chosen models; arguments and errors as `shrunken_gaussians`."""
    mask = chosen.astype(np.float64)
    counts = mask.sum(axis=0)
    if counts.sum() < _LEAST:
        raise DataError("joint LiRA needs rows with known membership in the shadows", got=int(counts.sum()))
    looks = [np.ascontiguousarray(values[:, :, v]) for v in range(values.shape[2])]
    sums = np.stack([(look * mask).sum(axis=0) for look in looks], axis=1)
    mean, overall = sums / np.maximum(counts, 1.0)[:, None], sums.sum(axis=0) / counts.sum()
    apart = [(look - mean[:, v]) * mask for v, look in enumerate(looks)]
    far = [(look - overall[v]) * mask for v, look in enumerate(looks)]
    scatter = np.empty((len(counts), len(looks), len(looks)))
    spread = np.empty((len(looks), len(looks)))
    # One pair of versions at a time: sums of products of whole arrays, which no batched product comes near.
    for v in range(len(looks)):
        for w in range(v + 1):
            scatter[:, v, w] = scatter[:, w, v] = np.einsum("mr,mr->r", apart[v], apart[w])
            spread[v, w] = spread[w, v] = np.vdot(far[v], far[w]) / counts.sum()
    return Moments(mean, scatter, counts, overall, spread)


def shrunken_gaussians(values: Floats, chosen: Bools, shrinkage: float) -> tuple[Floats, Floats, Bools]:
    """A Gaussian a row over several numbers, its covariance shrunk towards the mean of all rows'.

    Args:
        values: float64 [models, rows, versions].
        chosen: bool [models, rows]; the models that count on each row.
        shrinkage: Weight of that mean, in models.

    Returns:
        Mean [rows, versions], covariance [rows, versions, versions], and which rows took the mean over all
        rows for want of two models [rows].

    Raises:
        DataError: Fewer than two values are chosen in all.
    """
    return shrunken(moments(values, chosen), shrinkage)


def shrunken(found: Moments, shrinkage: float) -> tuple[Floats, Floats, Bools]:
    """As `shrunken_gaussians`, from moments."""
    freedom = np.maximum(found.counts - 1.0, 0.0)
    pool = found.scatter.sum(axis=0) / max(freedom.sum(), 1.0)
    pool = pool + np.diag(_RIDGE * np.maximum(np.diag(pool), 1e-8))
    ridge = np.diag(_RIDGE * np.diag(pool))
    weight = freedom / (freedom + shrinkage)
    covariance = found.scatter * (weight / np.maximum(freedom, 1.0))[:, None, None]
    covariance += (1.0 - weight)[:, None, None] * pool + ridge
    few = found.counts < _LEAST
    mean = found.mean
    if few.any():
        # Such a row is known as any row is: by the mean and the spread of all.
        mean = np.where(few[:, None], found.overall, mean)
        covariance[few] = found.spread + ridge
    return mean, covariance, few


def log_densities(values: Floats, mean: Floats, covariance: Floats) -> Floats:
    """Log density of each row's vectors [..., rows, versions] but for the constant, [..., rows]."""
    lower = np.linalg.cholesky(covariance)
    whitened: list[Floats] = []
    total = -np.log(np.diagonal(lower, axis1=1, axis2=2)).sum(axis=1)
    # Forward substitution, all rows and models at once.
    for v in range(lower.shape[-1]):
        left = values[..., v] - mean[:, v]
        for w, known in enumerate(whitened):
            left = left - lower[:, v, w] * known
        whitened.append(left / lower[:, v, v])
        total = total - 0.5 * whitened[-1] ** 2
    return np.asarray(total)


def likeliest_shrinkage(values: Floats, chosen: Bools) -> float:
    """The shrinkage under which one half of the models is likeliest, given the other half.

    How much rows differ in their covariance is a matter of the data, and how well a row's own is known one of
    models and versions: no constant fits all. Arguments as `shrunken_gaussians`.
    """
    half = np.arange(len(values)) % 2 == 0
    fitted, judged = chosen & half[:, None], chosen & ~half[:, None]
    if fitted.sum() < _LEAST or not judged.any():
        return SHRINKAGES[-1]
    found = moments(values[half], fitted[half])

    def likelihood(shrinkage: float) -> float:
        mean, covariance, few = shrunken(found, shrinkage)
        densities = log_densities(values[~half], mean, covariance)
        return float(densities[judged[~half] & ~few].sum())

    return max(SHRINKAGES, key=likelihood)
