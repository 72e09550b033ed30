"""Simulated models: φ of a row is Gaussian around a value of its own, and higher in models trained on it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from edgeprivacy.attacks import Population, Signals, Version, attacks
from edgeprivacy.attacks.compleak import Learned
from edgeprivacy.attacks.meta import forest


def simulate(
    models: int = 9,
    rows: int = 300,
    classes: int = 5,
    population: int = 200,
    gain: float = 2.0,
    step: float | None = None,
    seed: int = 0,
    versions: int = 2,
) -> Signals:
    """Signals of one version; `versions` others stand beside it, the original (which leaks less) first."""
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

    center, shared = rng.normal(1, 2, rows), rng.normal(0, 0.8, (models, rows))
    z_center, z_shared = rng.normal(1, 2, population), rng.normal(0, 0.8, (models, population))
    floor = 1e-30 if step is None else step / 2

    def outputs_of(name: str, gain: float) -> Version:
        phi = center + shared + rng.normal(0, 0.6, (models, rows)) + gain * members
        z_phi = z_center + z_shared + rng.normal(0, 0.6, (models, population))
        others = Population(outputs(z_phi, z_labels), z_labels, floor)
        return Version(name, outputs(phi, labels), labels, floor, others)

    def further_answers() -> dict[str, np.ndarray]:
        """What attacks with queries of their own would have gathered: members are the more robust."""
        more = np.random.default_rng([seed, 1])
        phi = center + shared + more.normal(0, 0.6, (models, rows)) + gain * members
        slope = np.exp(-phi / 2)[..., None] * more.exponential(size=(models, rows, classes))
        right = more.random((models, rows, 16)) < 1 / (1 + np.exp(-phi))[..., None]
        looks = 1 / (1 + np.exp(-(phi[..., None] + more.normal(0, 0.6, (models, rows, 4)))))
        return {
            "lira.online.augmented": np.stack([looks, 1 - looks], axis=3),
            "samia": np.concatenate([slope, np.full((models, rows, 1), 1e-3)], axis=2),
            "label-only.noise": right,
            "label-only.augment": right[..., :9],
            "label-only.boundary": np.maximum(phi, 0.0),
        }

    audited, *others = [
        outputs_of("int8", gain),
        *(outputs_of(f"v{i}", gain if i else gain / 2) for i in range(versions)),
    ]
    return Signals(
        audited.probabilities,
        labels,
        members,
        np.ones_like(members),
        floor,
        audited.population,
        versions=tuple(others),
        has_original=versions > 0,
        gathered=further_answers(),
    )


def reorder(signals: Signals, order: np.ndarray) -> Signals:
    """The same rows in another order, in every version."""
    return replace(
        signals,
        probabilities=signals.probabilities[:, order],
        labels=signals.labels[order],
        members=signals.members[:, order],
        audited=signals.audited[:, order],
        versions=tuple(
            replace(v, probabilities=v.probabilities[:, order], labels=v.labels[order])
            for v in signals.versions
        ),
        gathered={name: values[:, order] for name, values in signals.gathered.items()},
    )


@pytest.fixture(autouse=True)
def small_forests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer trees: what is tested here does not hang on their number."""
    for name in attacks.names():
        if isinstance(attacks[name], Learned) and "forest" in getattr(
            attacks[name].learner, "__qualname__", ""
        ):
            monkeypatch.setattr(attacks[name], "learner", forest(12))


@pytest.fixture
def reordered() -> Callable[..., Signals]:
    return reorder


@pytest.fixture
def make_signals() -> Callable[..., Signals]:
    return simulate
