"""ADMM's projection and its updates, against sorting by hand and against a problem with a known answer."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprivacy.defenses import make_defense
from edgeprivacy.defenses.mia_pruning import Admm
from edgeprivacy.errors import RecipeError


def test_the_projection_keeps_the_largest_of_each_kernel() -> None:
    rng = np.random.default_rng(0)
    kernels = [rng.normal(size=(9, 7)), rng.normal(size=(3, 3, 2, 5))]
    for sparsity in (0.0, 0.5, 0.9):
        for kernel, near in zip(kernels, Admm(1, 1, 1, 1).project(kernels, sparsity), strict=True):
            ranked = np.sort(np.abs(kernel).ravel())[::-1]
            kept = kernel.size - round(sparsity * kernel.size)
            assert np.count_nonzero(near) == kept
            assert (
                np.abs(near[near != 0]).min() >= ranked[kept - 1]
                and (near[near != 0] == kernel[near != 0]).all()
            )


def test_updates_are_those_of_the_method() -> None:
    rng = np.random.default_rng(1)
    admm, w = Admm(0.1, 1.5, 1, 1), [rng.normal(size=(6, 6))]
    dual = admm.start(w, 0.5)
    assert not dual.u[0].any() and np.array_equal(dual.z[0], admm.project(w, 0.5)[0])
    moved = [w[0] + rng.normal(size=(6, 6))]
    after = admm.updated(dual, moved, 0.5)
    z = admm.project([moved[0] + dual.u[0]], 0.5)[0]
    np.testing.assert_allclose(after.z[0], z)
    np.testing.assert_allclose(1.5 * after.u[0], dual.u[0] + moved[0] - z)
    np.testing.assert_allclose(after.targets[0], after.z[0] - after.u[0])
    assert after.rho == pytest.approx(0.15)


@pytest.mark.parametrize("growth", [1.0, 1.3])
def test_a_growing_pull_keeps_the_dual(growth: float) -> None:
    """Against the unscaled form, whose dual Y gathers rho * (W - Z) and knows nothing of what rho becomes;
    the augmented Lagrangian's gradient is Y + rho * (W - Z)."""
    rng = np.random.default_rng(4)
    a, rho, y, z = rng.normal(size=40), 0.5, np.zeros(40), None
    admm, w = Admm(rho, growth, 1, 1), a.copy()
    dual = admm.start([w], 0.5)
    for _ in range(12):
        if z is not None:
            pull = y + rho * (w - z)
            np.testing.assert_allclose(dual.rho * (w - dual.targets[0]), pull, atol=1e-9)
        w = w + 0.3 * rng.normal(size=40) - 0.1 * (w - a)
        previous = y / rho
        smallest = sorted(range(40), key=lambda k: abs(w[k] + previous[k]))[:20]
        z = np.array([0.0 if k in smallest else w[k] + previous[k] for k in range(40)])
        y = y + rho * (w - z)
        rho *= growth
        dual = admm.updated(dual, [w], 0.5)
        np.testing.assert_allclose(dual.z[0], z, atol=1e-12)


def test_it_finds_the_sparse_answer_of_a_quadratic() -> None:
    """min |W - A|^2 / 2 with k entries: the k largest of A, which descent and ADMM's updates must reach."""
    rng = np.random.default_rng(2)
    a = rng.normal(size=(8, 8)) + np.sign(rng.normal(size=(8, 8)))
    admm, w = Admm(1.0, 1.0, 1, 1), [np.zeros((8, 8))]
    dual = admm.start([a], 0.75)
    for _ in range(300):
        w = [(a + dual.rho * dual.targets[0]) / (1 + dual.rho)]  # the exact step in W
        dual = admm.updated(dual, w, 0.75)
    np.testing.assert_allclose(admm.project(w, 0.75)[0], admm.project([a], 0.75)[0], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rho": -1}, "rho must be 0 or more"),
        ({"growth": 0.5}, "growth must be 1 or more"),
        ({"epochs": 0}, "epochs must be a whole number"),
        ({"every": 1.5}, "every must be a whole number"),
    ],
)
def test_settings_out_of_range(options, message) -> None:
    with pytest.raises(RecipeError, match=message):
        make_defense("mia-pruning", options)
    assert make_defense("wemem+relaxloss").admm() is None
    assert make_defense("mia-pruning+relaxloss").admm() is not None
