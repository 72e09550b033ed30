"""A user's own training function in the place of the built-in trainer of originals. No framework here."""

from __future__ import annotations

from typing import Any

from edgeprivacy.backends.base import Material
from edgeprivacy.data.factories import call_factory, load_factory, parameters
from edgeprivacy.errors import ModelError


def train_by_function(reference: str, model: Any, material: Material, epochs: int, seed: int) -> Any:
    """Call the function with those of these that it names: model (with fresh weights), x, y, validation_x,
    validation_y, classes, epochs, seed. What it returns, or the model where it returns None.

    Raises:
        ModelError: It cannot be loaded, takes parameters that nothing fills, or raises.
    """
    function = load_factory(reference, "training function", error=ModelError)
    offered = {
        "model": model,
        "x": material.train.x,
        "y": material.train.y,
        "validation_x": material.validation.x,
        "validation_y": material.validation.y,
        "classes": material.train.classes,
        "epochs": epochs,
        "seed": seed % 2**32,
    }
    named = parameters(function)
    wanted = {name: value for name, value in offered.items() if name in named}
    trained = call_factory(function, reference, "training", error=ModelError, **wanted)
    return model if trained is None else trained
