"""A network trained by `dropout` is the one that was built with that rate, in both backends."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from typing import Any

import numpy as np
import pytest

from edgeprivacy.backends import open_backend
from edgeprivacy.defenses import make_defense
from edgeprivacy.errors import RecipeError
from edgeprivacy.recipe import Recipe
from edgeprivacy.recipe_sections import TrainingSection

BACKENDS = [
    pytest.param("tflite", marks=pytest.mark.tflite),
    pytest.param("executorch", marks=pytest.mark.executorch),
]
RNG = np.random.default_rng(1)
X, Y = RNG.normal(size=(70, 6)).astype(np.float32), RNG.integers(0, 3, 70)
WEIGHTS = [RNG.normal(size=shape).astype(np.float32) for shape in ((6, 5), (5,), (5, 3), (3,))]


def network_of(backend: str, rate: float) -> Any:
    """Dense layers with WEIGHTS, and dropout between them."""
    training = TrainingSection(learning_rate=1e-2, batch_size=16)
    if backend == "tflite":
        keras = pytest.importorskip("tf_keras", reason="needs the extra tflite")
        from edgeprivacy.backends.tflite.network import CompiledNetwork

        layers = keras.layers
        parts = [keras.Input((6,)), layers.Dense(5, "relu"), layers.Dropout(rate), layers.Dense(3)]
        network: Any = CompiledNetwork(keras.Sequential([*parts, layers.Softmax()]), training)
    else:
        torch = pytest.importorskip("torch", reason="needs the extra executorch")
        from edgeprivacy.backends.executorch.models import Classifier
        from edgeprivacy.backends.executorch.network import TorchNetwork

        nn = torch.nn
        body = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Dropout(rate), nn.Linear(5, 3))
        network = TorchNetwork(Classifier(body, "softmax"), training)
    network.bind(X, Y, X, Y)
    return network


def trained(
    network: Any, backend: str, defense: str, settings: dict[str, Any] | None = None
) -> list[np.ndarray]:
    network.load(WEIGHTS if backend == "tflite" else [w.T for w in WEIGHTS], 3)
    network.use_loss(make_defense(defense, settings))
    for epoch in range(3):
        network.run_epoch(np.arange(70, dtype=np.int32), 1e-3, "general", epoch)
    return [np.array(w) for w in network.weights()]


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_rate_takes_the_place_of_the_networks_own_and_lets_it_be_again(backend: str) -> None:
    network = network_of(backend, 0.1)
    own = trained(network, backend, "none")
    for rate in (0.5, 0.3):
        expected = trained(network_of(backend, rate), backend, "none")
        found = trained(network, backend, "dropout", {"rate": rate})
        assert all(map(np.array_equal, found, expected)) and not np.array_equal(found[0], own[0])
    assert all(map(np.array_equal, trained(network, backend, "none"), own))
    assert network.dropout_layers == 1 and network_of(backend, 0.0).dropout_layers == 0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("model", "rate"), [("resnet-no-norm", 0.1), ("mlp", 0.0)])
def test_networks_that_drop_nothing_are_refused(backend: str, model: str, rate: float) -> None:
    shape = (8, 8, 1)
    settings = {"backend": backend, "model": {"source": model, "dropout": rate}, "compare": ["dropout"]}
    recipe = Recipe.build({"data": {"source": "rows.npz"}, "formats": ["float32"], **settings})
    with pytest.raises(RecipeError, match=f"'dropout' sets the rate of dropout layers.*model {model}"):
        open_backend(backend).open(recipe, 3, shape).check()


def test_what_it_goes_with() -> None:
    both = make_defense("wemem+dropout", {"rate": 0.4})
    assert both.dropout == 0.4 and both.for_original() == make_defense("dropout", {"rate": 0.4})
    assert (
        make_defense("dropout+relaxloss").dropout == 0.5 and make_defense("wemem+relaxloss").dropout is None
    )
    for name in ("dropout+selena", "dpsgd+dropout"):
        with pytest.raises(RecipeError, match="both govern how much dropout drops"):
            make_defense(name)
    assert make_defense("cwrf+selena").dropout == 0


@pytest.mark.parametrize("rate", [0, 1, -0.5, True, "x"])
def test_settings_out_of_range(rate: Any) -> None:
    with pytest.raises(RecipeError, match=r"rate must be above 0 and at most 0\.95"):
        make_defense("dropout", {"rate": rate})
