"""A defense that cannot train the network ends the search before anything is trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeprivacy.data.dataset import Dataset
from edgeprivacy.errors import RecipeError
from edgeprivacy.recipe import Recipe
from edgeprivacy.tuning import networks
from edgeprivacy.tuning.networks import check_networks
from edgeprivacy.tuning.section import TuneSection
from edgeprivacy.tuning.space import Space

IMAGES = Dataset(
    np.zeros((4, 12, 12, 3), np.float32), np.arange(4) % 2, np.arange(4).astype(str), 2, ("a", "b"), "images"
)


def space(backend: str, model: str, *defenses: str) -> Space:
    recipe = Recipe.build({"backend": backend, "formats": ["int8"], "model": {"source": model}})
    return Space(recipe, TuneSection.build({"defenses": defenses}))


@pytest.mark.parametrize(
    ("backend", "defenses", "said"),
    [
        pytest.param("tflite", ("hamp", "dpsgd:utility"), "'dpsgd:utility' cannot", marks=pytest.mark.tflite),
        pytest.param("executorch", ("selena", "dropout"), "'dropout' sets", marks=pytest.mark.executorch),
    ],
)
def test_the_network_is_asked_before_the_search(backend: str, defenses: tuple[str, ...], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        check_networks(space(backend, "resnet", *defenses), IMAGES, jobs=1)


@pytest.mark.executorch
def test_a_network_that_does_is_let_through() -> None:
    check_networks(space("executorch", "resnet-no-norm", "dpsgd", "dpsgd:utility"), IMAGES, jobs=1)


@pytest.mark.tflite
def test_nothing_is_opened_where_no_candidate_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*arguments: Any) -> None:
        raise AssertionError("a worker was started")

    monkeypatch.setattr(networks, "parallel_map", opened)
    check_networks(space("tflite", "resnet", "hamp", "wemem"), IMAGES)
