"""Simulated models: φ of a row is Gaussian around a value of its own, and higher in models trained on it."""

from collections.abc import Callable

import numpy as np
import pytest

from edgeprivacy.attacks import Population, Signals


def simulate(
    models: int = 9,
    rows: int = 300,
    classes: int = 5,
    population: int = 200,
    gain: float = 2.0,
    step: float | None = None,
    seed: int = 0,
) -> Signals:
    rng = np.random.default_rng(seed)
    labels, z_labels = rng.integers(0, classes, rows), rng.integers(0, classes, population)
    members = rng.random((models, rows)) < 0.5

    def outputs(phi: np.ndarray, y: np.ndarray) -> np.ndarray:
        p_y = 1 / (1 + np.exp(-phi))
        others = rng.dirichlet(np.ones(classes - 1), size=phi.shape) * (1 - p_y)[..., None]
        out = np.empty((*phi.shape, classes))
        for row, label in enumerate(y):
            out[:, row, label] = p_y[:, row]
            out[:, row, np.arange(classes) != label] = others[:, row]
        if step is not None:
            out = np.clip(np.round(out / step), 0, 255) * step
        return out.astype(np.float32)

    phi = rng.normal(1, 2, rows) + rng.normal(0, 1, (models, rows)) + gain * members
    z_phi = rng.normal(1, 2, population) + rng.normal(0, 1, (models, population))
    floor = 1e-30 if step is None else step / 2
    return Signals(
        outputs(phi, labels),
        labels,
        members,
        np.ones_like(members),
        floor,
        Population(outputs(z_phi, z_labels), z_labels, floor),
    )


@pytest.fixture
def make_signals() -> Callable[..., Signals]:
    return simulate
