"""What a search may try: candidates, ranges, and what is refused before anything is made."""

from __future__ import annotations

from typing import Any

import pytest

from edgeprivacy.defenses import make_defense
from edgeprivacy.defenses.base import defenses
from edgeprivacy.defenses.ranges import Span
from edgeprivacy.errors import EdgePrivacyError, RecipeError
from edgeprivacy.recipe import Recipe
from edgeprivacy.tuning.budget import Budget, parse_size
from edgeprivacy.tuning.section import TuneSection
from edgeprivacy.tuning.space import Candidate, Space

PINNED = {"prune.sparsity": [0.6]}


def space(recipe: dict[str, Any] | None = None, **section: Any) -> Space:
    return Space(Recipe.build({"backend": "tflite", **(recipe or {})}), TuneSection.build(section))


class Ends:
    """Suggests the same end of every range."""

    def __init__(self, high: bool) -> None:
        self.high, self.asked = high, []

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        self.asked.append(name)
        return high if self.high else low

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        return int(self.suggest_float(name, low, high))

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        self.asked.append(name)
        return choices[-1 if self.high else 0]


@pytest.mark.parametrize("name", defenses.names())
def test_every_defense_can_be_searched_by_what_it_says_itself(name: str) -> None:
    if name == "none":
        return
    made = space(defenses=[name], space=PINNED)
    (candidate,) = made.candidates
    assert made.defaults(candidate).recipe.defense.settings == {}
    for high in (False, True):
        ends = Ends(high)
        setting = made.ask(candidate, ends)
        assert ends.asked == [f"{name}.{key}" for key in make_defense(name).search]
        for key, values in make_defense(name).search.items():
            ends_of = (values.high, values.low) if isinstance(values, Span) else (values[-1], values[0])
            end = ends_of[0] if high else ends_of[1]
            if end == getattr(make_defense(name), key):
                assert f"{name}.{key}" not in setting.changes, "what is the default is no change"
            else:
                assert setting.recipe.defense.settings[key] == pytest.approx(end)
                assert f"{name}.{key}" in setting.changes


def test_a_composition_searches_what_its_parts_do() -> None:
    made = space(defenses=["wemem:swmr+relaxloss"], space=PINNED)
    (candidate,) = made.candidates
    keys = {"wemem:swmr.order", "wemem:swmr.weight_decay_risky", "wemem:swmr.threshold", "relaxloss.alpha"}
    assert set(made.searched(candidate)) == {f"wemem:swmr+relaxloss.{key}" for key in keys}
    setting = made.ask(candidate, Ends(high=True))
    assert setting.recipe.defense.settings["relaxloss.alpha"] == 2.0


def test_keys_of_the_recipe_and_of_a_defense() -> None:
    made = space(
        defenses=["relaxloss", "hamp"],
        backends="tflite,executorch",
        space={
            "prune.sparsity": [0.5, 0.9],
            "training.epochs": {"low": 3, "high": 9},
            "relaxloss.alpha": {"low": 0.3, "high": 0.4},
        },
    )
    assert [c.name for c in made.candidates] == [
        *("relaxloss (tflite)", "relaxloss (executorch)", "hamp (tflite)", "hamp (executorch)")
    ]
    setting = made.ask(made.candidates[1], Ends(high=True))
    recipe = setting.recipe
    assert (recipe.backend, recipe.prune.sparsity, recipe.training.epochs) == ("executorch", 0.9, 9)
    assert recipe.defense.settings == {"alpha": 0.4} and isinstance(recipe.training.epochs, int)
    assert setting.told == "prune.sparsity 0.9, training.epochs 9, relaxloss.alpha 0.4"
    assert made.baseline("tflite").recipe.prune.sparsity == made.base.prune.sparsity


def test_the_recipe_s_own_settings_are_its_candidate_s_defaults() -> None:
    made = space({"defense": {"name": "relaxloss", "alpha": 0.7}}, defenses=["relaxloss", "hamp"])
    first, second = (made.defaults(candidate).recipe.defense for candidate in made.candidates)
    assert (first.settings, second.settings) == ({"alpha": 0.7}, {})
    assert made.baseline("tflite").recipe.defense.settings == {}


@pytest.mark.parametrize(
    ("prune", "tried"),
    [
        ({}, (0.6, 0.8, 0.9)),
        ({"schedule": "one-shot", "sparsity": 0.7}, (0.6, 0.7, 0.8, 0.9)),
        ({"schedule": "structured", "sparsity": 0.5}, (0.3, 0.5, 0.7)),
        ({"schedule": "none"}, None),
        ({"sparsity": 0}, None),
        ({"schedule": "finetune"}, None),
        ({"schedule": "untrained"}, None),
    ],
)
def test_compression_is_searched_where_the_recipe_prunes(prune: Any, tried: Any) -> None:
    made = space({"backend": "executorch", "prune": prune}, defenses=["hamp"])
    assert made.searched(made.candidates[0]).get("prune.sparsity") == tried
    assert made.searched(made.control("executorch")).get("prune.sparsity") == tried
    assert made.defaults(made.candidates[0]).recipe.prune == made.base.prune


@pytest.mark.parametrize(
    ("recipe", "section", "tried"),
    [
        ({}, {"max_size": "90KiB"}, (4, 8)),
        ({"quantize": {"weight_bits": 3}}, {"max_size": "90KiB"}, (3, 4, 8)),
        ({}, {}, None),
        ({"formats": ["float32"]}, {"max_size": "90KiB"}, None),
        ({"formats": ["int8", "qat-int8"]}, {"max_size": "90KiB"}, None),
        ({"cluster": {"clusters": 8}}, {"max_size": "90KiB"}, None),
        ({}, {"max_size": "90KiB", "space": {"quantize.outer_bits": [8]}}, None),
    ],
)
def test_bits_are_searched_where_a_size_is_asked_for(recipe: Any, section: Any, tried: Any) -> None:
    made = space(recipe, defenses=["hamp", "defensive-quantization"], **section)
    plain, own_grid = (made.searched(candidate) for candidate in made.candidates)
    assert plain.get("quantize.weight_bits") == tried and "quantize.weight_bits" not in own_grid
    assert made.searched(made.control("tflite")).get("quantize.weight_bits") == tried


@pytest.mark.parametrize(
    ("said", "tried"),
    [
        ({"prune.sparsity": [0.6]}, None),
        ({"prune.sparsity": [0.5, 0.6]}, (0.5, 0.6)),
        ({"prune.sparsity": [0.7]}, (0.7,)),
        ({"prune.schedule": ["iterative", "one-shot"]}, None),
    ],
)
def test_a_recipe_s_own_word_on_pruning_stands(said: Any, tried: Any) -> None:
    made = space(defenses=["hamp"], space=said)
    assert made.searched(made.candidates[0]).get("prune.sparsity") == tried


def test_few_settings_are_all_tried_and_each_once() -> None:
    made = space(defenses=["wemem", "relaxloss"])
    few = made.few(made.candidates[0], 6)
    assert few is not None and few[0].changes == {}
    order = {"low-to-high": {}, "high-to-low": {"wemem.order": "high-to-low"}}
    sparsity = {value: {"prune.sparsity": value} if value != 0.6 else {} for value in (0.6, 0.8, 0.9)}
    expected = [{**s, **o} for s in sparsity.values() for o in order.values()]
    assert sorted(map(str, (dict(s.changes) for s in few))) == sorted(map(str, expected))
    assert made.few(made.candidates[0], 5) is None and made.few(made.candidates[1], 99) is None
    of_none = made.few(made.control("tflite"), 3)
    assert of_none is not None and [s.recipe.prune.sparsity for s in of_none] == [0.6, 0.8, 0.9]
    assert {s.recipe.defense.name for s in of_none} == {"none"}


def test_values_that_cannot_be_together_are_left_out() -> None:
    """Each of them can be: clusters without a grid, a grid without clusters."""

    def check(recipe: Recipe) -> None:
        if recipe.cluster.clusters and recipe.quantize.low_bits:
            raise RecipeError("not both")

    tried = {**PINNED, "cluster.clusters": [0, 16], "quantize.weight_bits": [4, 8]}
    made = space(
        defenses=["selena"], space={**tried, "selena.left_out": [2, 8], "selena.sub_models": [5, 25]}
    )
    narrower = made.checked_by(check)
    few = narrower.few(narrower.control("tflite"), 4)
    assert few is not None and [dict(setting.changes) for setting in few] == [
        *({}, {"quantize.weight_bits": 4}, {"cluster.clusters": 16})
    ]
    assert len(made.few(made.control("tflite"), 4) or ()) == 4, "without the check"
    pinned = {"selena.left_out": [2, 8], "selena.sub_models": [5, 25], "selena.temperature": [1.0]}
    made = space(defenses=["selena"], space={**PINNED, **pinned, "selena.weight_decay": [1e-4]})
    few = made.few(made.candidates[0], 9)
    assert few is not None and len(few) > 3
    asked = [(s.changes.get("selena.sub_models"), s.changes.get("selena.left_out")) for s in few]
    assert (5, 8) not in asked and (5, 2) in asked, "of five sub-models not eight can leave a row out"


def test_a_composition_may_be_set_by_plain_names() -> None:
    recipe = {"defense": {"name": "wemem:swmr+relaxloss", "alpha": 0.5}}
    made = space(recipe, defenses=["wemem:swmr+relaxloss"], space=PINNED)
    assert made.defaults(made.candidates[0]).recipe.defense.settings == {"relaxloss.alpha": 0.5}
    setting = made.ask(made.candidates[0], Ends(high=True))
    assert setting is not None and setting.recipe.defense.settings["relaxloss.alpha"] != 0.5


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"defenses": ["relax"]}, "relaxloss"),
        ({"defenses": ["none"]}, "leave 'none' out"),
        ({"defenses": []}, "one or more"),
        ({"defenses": ["relaxloss"], "backends": ["tflit"]}, "tflite"),
        ({"defenses": ["relaxloss"], "space": {"relaxloss.alph": [1.0]}}, "alpha"),
        ({"defenses": ["relaxloss"], "space": {"relaxloss.alpha": {"low": -1.0, "high": 1.0}}}, "alpha"),
        ({"defenses": ["relaxloss"], "space": {"prune.sparsity": {"low": 0.1, "high": 1.5}}}, "sparsity"),
        ({"defenses": ["relaxloss"], "space": {"prune.sparsity": {"low": 0.9, "high": 0.1}}}, "a range"),
        ({"defenses": ["relaxloss"], "space": {"prune.sparsity": []}}, "a list of values"),
        ({"defenses": ["relaxloss"], "space": {"audit.shadows": [2, 4]}}, "nothing to search"),
        ({"defenses": ["relaxloss"], "space": {"prune.sparsty": [0.5]}}, "sparsity"),
        ({"defenses": ["relaxloss"], "backends": ["tflite", "tflite"]}, "can stand once"),
        ({"trials": 0}, "trials"),
        ({"trails": 3}, "trials"),
    ],
)
def test_what_cannot_be_searched_is_told_at_once(section: dict[str, Any], said: str) -> None:
    with pytest.raises(EdgePrivacyError) as caught:
        space(**section)
    assert caught.value.exit_code == 2 and said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "count"), [("60KiB", 61440), ("1.5 MB", 1_500_000), ("400", 400), ("2mib", 2097152)]
)
def test_sizes(text: str, count: int) -> None:
    assert parse_size(text) == count == Budget.parse(None, text).size


@pytest.mark.parametrize("text", ["", "big", "-3KiB", "0", "0.5", "3 GiBs", "1e3"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(EdgePrivacyError, match="is no size"):
        parse_size(text)


def test_candidates_are_named_by_defense_and_backend() -> None:
    assert Candidate("tflite", "wemem:swmr").name == "wemem:swmr (tflite)"
