"""Which weights are chosen and what is done with them, against sorting by hand; the probe's loss."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from edgeprivacy.defenses import Batch, make_defense
from edgeprivacy.defenses.cwrf import Rewinding
from edgeprivacy.errors import RecipeError


def rewinding(**options: Any) -> Rewinding:
    found = make_defense("cwrf", options).rewinding()
    assert found is not None
    return found


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("rate", [0.03, 0.25, 1.0])
def test_the_largest_scores_among_the_weights_that_are_left(scope, rate) -> None:
    rng = np.random.default_rng(0)
    shapes = [(12, 7), (7,), (7, 3)]
    weights = [rng.normal(size=shape) for shape in shapes]
    weights[0][rng.random((12, 7)) < 0.6] = 0
    scores = [np.round(rng.random(shape), 2) for shape in shapes]
    chosen = rewinding(rate=rate, scope=scope).chosen(scores, weights)
    groups = [[k] for k in range(3)] if scope == "layer" else [[0, 1, 2]]
    for group in groups:
        places = [(k, *at) for k in group for at in np.ndindex(shapes[k]) if weights[k][at] != 0]
        ranked = sorted(places, key=lambda place: -scores[place[0]][place[1:]])
        expected = set(ranked[: round(rate * len(places))])
        found = {(k, *at) for k in group for at in np.ndindex(shapes[k]) if chosen[k][at]}
        assert found == expected


@pytest.mark.parametrize("arm", ["rewind", "remove", "tune-rewound"])
def test_where_fine_tuning_starts_and_what_it_leaves(arm) -> None:
    trained, initial = [np.array([1.0, 2, 3, 4])], [np.array([-1.0, -2, -3, -4])]
    start, frozen = rewinding(arm=arm).start([np.array([True, False, False, True])], trained, initial)
    expected = [0, 2, 3, 0] if arm == "remove" else [-1, 2, 3, -4]
    assert start[0].tolist() == expected
    held = [False, True, True, False] if arm == "tune-rewound" else [True, False, False, True]
    assert frozen[0].tolist() == held


def test_the_probes_loss_is_its_equation() -> None:
    torch = pytest.importorskip("torch", reason="needs the extra executorch")
    from edgeprivacy.backends.executorch.ops import TorchOps

    rng = np.random.default_rng(1)
    z, y, q = rng.normal(size=(6, 3)), rng.integers(0, 3, 6), rng.dirichlet(np.ones(3), 6)
    member = np.array([1, 0, 1, 0, 1, 0])
    columns = {"member": torch.tensor(member), "untrained": torch.tensor(q)}
    loss = (
        rewinding(weight=0.3)
        .probe()
        .loss(TorchOps(), Batch(torch.tensor(z), torch.tensor(y), torch.tensor(0.0), columns))
    )
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    learning = [-math.log(p[k, y[k]]) for k in range(6) if member[k]]
    forgetting = [sum(p[k] * np.log(p[k] / q[k])) for k in range(6) if not member[k]]
    expected = 0.7 * sum(learning) / 3 + 0.3 * sum(forgetting) / 3
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_compositions() -> None:
    both = make_defense("cwrf+relaxloss", {"rate": 0.1, "relaxloss.alpha": 0.5})
    assert both.rewinding() == rewinding(rate=0.1) and both.for_original() == make_defense(
        "relaxloss", {"alpha": 0.5}
    )
    assert make_defense("wemem+hamp").rewinding() is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0}, "rate must be above 0 and at most 1"),
        ({"weight": 2}, "weight must be between 0 and 1"),
        ({"epochs": 0}, "epochs must be a whole number"),
        ({"scope": "all"}, "scope must be one of global, layer"),
        ({"arm": "keep"}, "arm must be one of rewind, remove, tune-rewound"),
    ],
)
def test_settings_out_of_range(options, message) -> None:
    with pytest.raises(RecipeError, match=message):
        make_defense("cwrf", options)
