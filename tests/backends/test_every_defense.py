"""Every defense trains and compresses the embedded default with its own defaults, on both backends.

A defense is in this test by being registered.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest

from edgeprivacy.backends import open_backend
from edgeprivacy.backends.base import Compressed, Material
from edgeprivacy.cache import Cache
from edgeprivacy.data.loading import DataSpec, load_source
from edgeprivacy.defenses import defenses, make_defense
from edgeprivacy.device_runner import open_runner
from edgeprivacy.recipe import Recipe
from edgeprivacy.release_choice import Chooser
from edgeprivacy.release_stages import Making, Original, Stages

COMPOSITIONS = ("wemem:swmr+relaxloss", "cwrf+relaxloss", "cwrf+hamp", "cwrf+ccl", "cwrf+dpsgd")
PRUNED = ((64, 256), (256, 128))
CLASSIFIER = (128, 10)
"""Shapes of the kernels that pruning reaches, and of the one that it leaves."""
ALIKE = ("none", "early-stopping", "relaxloss")
"""What may be as no defense leaves it after one epoch a phase: nothing stopped, no loss low enough."""
NEEDS = {"tflite": "tf_keras", "executorch": "executorch"}
BACKENDS = [pytest.param(name, marks=getattr(pytest.mark, name)) for name in NEEDS]
RECIPE = {
    "training": {"epochs": 1, "batch_size": 64},
    "prune": {"iterations": 2, "finetune_epochs": 1},
}


class Workshop:
    """One backend with its network compiled, a cache, and a release of some of the digits: what defenses want
    to know of the rows is shared by those that want the same."""

    def __init__(self, backend: str, folder: Path) -> None:
        recipe = Recipe.build({**RECIPE, "backend": backend})
        pool = load_source(DataSpec()).pool
        ids = np.random.default_rng(0).permutation(pool.ids)
        train, validation, reference, rest, apart, others = (
            pool.take(part) for part in np.split(ids, [120, 180, 220, 260, 380])
        )
        self.session = open_backend(backend).open(recipe, pool.classes, pool.input_shape)
        self.stages = Stages(
            recipe, backend, lambda: self.session, pool, open_runner("host"), Cache(folder), validation
        )
        self.making = Making(Material(train, validation, reference, rest), 3)
        self._chooser = Chooser(
            self.stages, lambda: (Making(Material(apart, validation, reference, rest), 5), others)
        )
        # What fails for the model's reasons alone is tested elsewhere, and exporting takes long.
        self.session.check = lambda: None

    def make(self, name: str) -> tuple[Original, Compressed]:
        """An original and what compression under the defense made of it, as a release makes them."""
        defense, _ = self._chooser.settled(name, make_defense(name))
        plain = self.stages.original(self.making)
        arm = self.stages.arm(name, defense, self.making, plain)
        start = plain if defense.for_original() is None else self.stages.original(self.making, arm)
        return start, self.stages.compressed(start, arm, self.making)[0]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Workshop]:
    opened: dict[str, Workshop] = {}

    def of(backend: str) -> Workshop:
        pytest.importorskip(NEEDS[backend], reason=f"needs the extra {backend}")
        if backend not in opened:
            opened[backend] = Workshop(backend, tmp_path_factory.mktemp(backend))
        return opened[backend]

    return of


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(map(np.array_equal, one, other))


@pytest.mark.parametrize("name", [*defenses.names(), *COMPOSITIONS])
@pytest.mark.parametrize("backend", BACKENDS)
def test_it_trains_and_prunes_with_its_defaults(
    workshop: Callable[[str], Workshop], backend: str, name: str
) -> None:
    shop = workshop(backend)
    original, made = shop.make(name)
    kernels = [w if backend == "tflite" else w.T for w in made.weights if w.ndim > 1]
    assert [kernel.shape for kernel in kernels] == [*PRUNED, CLASSIFIER]
    zeros = [int((kernel == 0).sum()) for kernel in kernels]
    asked = [round(0.6 * inputs * outputs) for inputs, outputs in PRUNED]
    if make_defense(name).low_bits() is None:
        assert zeros == [*asked, 0]
    else:  # a grid of few values has a zero among them
        assert all(found >= least for found, least in zip(zeros, asked, strict=False))
    assert made.request.sparsity == (0.6, 0.6, None)
    trained = [phase for phase in made.history if "epochs" in phase]
    assert len(trained) >= 2 and all(phase["steps"] > 0 for phase in trained)
    answers = shop.session.predict(made.weights, shop.making.material.validation.x)
    assert np.isfinite(answers).all()
    np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-5)
    assert not same(made.weights, original.weights)
    if name not in ALIKE:
        assert not same(made.weights, shop.make("none")[1].weights), "the defense governed nothing"
