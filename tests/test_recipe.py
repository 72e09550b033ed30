"""Recipes: validated, resolved, hashed, and the same after a trip through TOML."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprivacy.errors import EXIT_USAGE, RecipeError
from edgeprivacy.recipe import ABLATION, Recipe, Run
from edgeprivacy.recipe_toml import merge, parse_version, read_toml

# Another valid value for every key of the recipe: all of them are made or measured.
CHANGES: dict[str, Any] = {
    "versions": [{"prune": {"sparsity": 0.9}}],
    "backend": "executorch",
    "defense": "wemem",
    "compare": ["less-data"],
    "defense_phases": "pruning",
    "seed": 1,
    "formats": ["float32"],
    "data.source": "rows.npz",
    "data.label": "class",
    "data.header": False,
    "data.train": "t.npz",
    "data.holdout": "h.npz",
    "data.split_column": "part",
    "data.drop_overlap": True,
    "split.design": "disjoint",
    "model.source": "cnn",
    "model.weights": "w.h5",
    "model.dropout": 0.2,
    "model.scale": 2.0,
    "training.epochs": 9,
    "training.patience": 9,
    "training.batch_size": 9,
    "training.learning_rate": 0.01,
    "training.weight_decay": 0.0,
    "training.function": "train.py:run",
    "prune.schedule": "one-shot",
    "prune.sparsity": 0.5,
    "prune.iterations": 3,
    "prune.finetune_epochs": 9,
    "prune.layers": ["dense"],
    "cluster.clusters": 16,
    "cluster.epochs": 3,
    "quantize.weight_bits": 4,
    "quantize.outer_bits": 4,
    "quantize.grid_epochs": 3,
    "quantize.qat_epochs": 3,
    "audit.shadows": 3,
    "audit.attacks": ["gap"],
    "audit.bootstrap": 200,
    "audit.permutations": 300,
    "audit.canaries": "40:ood",
}
SHARES = {"pool": 0.70, "test": 0.16, "validation": 0.06, "reference": 0.04, "calibration": 0.04}


def build(**dotted: Any) -> Recipe:
    return Recipe.build(merge({}, {key.replace("__", "."): value for key, value in dotted.items()}))


def test_the_defaults_are_those_of_the_papers_schedule() -> None:
    recipe = Recipe()
    assert (recipe.training.epochs, recipe.training.patience, recipe.training.batch_size) == (100, 5, 128)
    assert (recipe.training.learning_rate, recipe.training.weight_decay) == (1e-3, 5e-4)
    assert (recipe.prune.sparsity, recipe.prune.iterations, recipe.prune.finetune_epochs) == (0.6, 5, 21)
    assert (recipe.audit.shadows, recipe.formats, recipe.model.dropout) == (16, ("float32", "int8"), 0.1)


@pytest.mark.parametrize(
    ("content", "place", "meant"),
    [
        ({"sede": 1}, "sede", "seed"),
        ({"prune": {"sparcity": 0.5}}, "prune.sparcity", "sparsity"),
        ({"audit": {"shadow": 2}}, "audit.shadow", "shadows"),
        ({"compare": [{"name": "none", "settings": {}, "nam": 1}]}, "compare.0.nam", "name"),
        ({"formats": ["int88"]}, "formats", "int8"),
        ({"backend": "tflit"}, "backend", "tflite"),
        ({"split": {"design": "haf"}}, "split.design", "half"),
    ],
)
def test_a_misspelt_word_gets_its_place_and_the_closest_known_one(content, place, meant) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.build(content)
    assert place in caught.value.what
    assert caught.value.hint == f"did you mean '{meant}'?"
    assert caught.value.exit_code == EXIT_USAGE == 2
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("prune.sparsity", 1.0),
        ("prune.sparsity", -0.1),
        ("prune.iterations", 1),
        ("prune.finetune_epochs", 0),
        ("cluster.clusters", 1),
        ("cluster.clusters", 257),
        ("audit.shadows", -1),
        ("audit.permutations", 199),
        ("training.learning_rate", 0),
        ("training.learning_rate", float("inf")),
        ("training.weight_decay", float("nan")),
        ("training.batch_size", 0),
        ("model.dropout", 1.0),
        ("model.scale", 0),
        ("seed", -1),
        ("seed", 2**31),
        ("seed", "one"),
        ("formats", []),
        ("formats", ["int8", "int8"]),
        ("split.pool", 0.5),
        ("split.pool", 1.0),
        ("compare", ["none"]),
        ("prune", 3),
        ("defense", {"settings": {"window": 3}}),
        ("defense", {"name": "wemem:rmr", "threshold": float("nan")}),
    ],
)
def test_values_out_of_range_are_one_clear_line(key: str, value: Any) -> None:
    with pytest.raises(RecipeError, match=f"{key}|{key.split('.')[0]}|each defense") as caught:
        build(**{key: value})
    assert "\n" not in str(caught.value)
    assert "Value error" not in str(caught.value)


@pytest.mark.parametrize("key", CHANGES)
def test_every_key_that_is_made_or_measured_changes_the_id(key: str) -> None:
    assert build(**{key: CHANGES[key]}).id != Recipe().id


def test_the_shares_change_the_id_and_no_key_was_forgotten() -> None:
    assert Recipe.build({"split": SHARES}).id != Recipe().id
    known = {f"split.{share}" for share in SHARES}  # moved together
    for name, field in Recipe.model_fields.items():
        inner = getattr(field.annotation, "model_fields", None)
        section = inner is not None and name != "defense"
        known |= {f"{name}.{key}" for key in inner} if section else {name}
    assert known == CHANGES.keys() | {f"split.{share}" for share in SHARES}


def test_how_it_is_run_stands_outside_the_identity(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('seed = 4\n[run]\njobs = 7\nfail_if = ["auc>0.6"]\nout = "x"\n')
    assert Recipe.load(path).id == build(seed=4).id
    assert Run.build(read_toml(path)["run"]).jobs == 7
    with pytest.raises(RecipeError, match="did you mean 'jobs'"):
        Run.build({"jbos": 2})


def test_the_same_recipe_written_in_another_way_has_the_same_id(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('[prune]\nsparsity = 0.60\n[defense]\nname = "wemem"\nwindow = 30\n')
    flags = Recipe.build({"defense": {"name": "wemem", "settings": {"window": 30}}})
    assert Recipe.load(path) == flags
    assert Recipe.load(path).id == flags.id
    assert len(flags.id) == 16 and int(flags.id, 16) >= 0


def test_flags_win_over_the_file_and_leave_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("[audit]\nshadows = 3\nbootstrap = 500\n[prune]\nsparsity = 0.5\n")
    recipe = Recipe.load(path, {"audit.shadows": 8, "defense.name": "wemem"})
    assert (recipe.audit.shadows, recipe.audit.bootstrap, recipe.prune.sparsity) == (8, 500, 0.5)
    assert recipe.defense.name == "wemem"


def test_merging_changes_no_argument() -> None:
    content = {"defense": {"name": "wemem", "settings": {"window": 3}}}
    merged = merge(content, {"defense.settings.window": 4, "audit.shadows": 1})
    assert merged["defense"]["settings"]["window"] == 4
    assert content == {"defense": {"name": "wemem", "settings": {"window": 3}}}


@pytest.mark.parametrize("content", [{"audit": 4}, {"audit": [1]}, {"audit": "x"}])
def test_a_value_where_a_section_belongs_is_an_error_under_flags_too(content: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="audit"):
        Recipe.build(merge(content, {"audit.shadows": 3}))


def test_a_value_where_all_settings_belong_is_an_error() -> None:
    with pytest.raises(RecipeError):
        merge(5, {"jobs": 3})  # type: ignore[arg-type]
    with pytest.raises(RecipeError):
        merge([], {})  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["seed = ", "[audit\n", "\x00", "seed = 1\nseed = 2\n"])
def test_a_file_that_is_no_toml_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(RecipeError, match="is not TOML"):
        Recipe.load(path)


def test_missing_binary_and_folder_recipes(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="does not exist"):
        Recipe.load(tmp_path / "none.toml")
    with pytest.raises(RecipeError, match="cannot be read"):
        Recipe.load(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(RecipeError, match="cannot be read"):
        Recipe.load(tmp_path / "binary.toml")


WORDS = st.text(min_size=1, max_size=20)
SETTINGS = st.dictionaries(
    WORDS, st.one_of(st.booleans(), st.integers(-(2**40), 2**40), st.floats(-1e9, 1e9), WORDS), max_size=3
)
ARM = st.builds(lambda name, given_: {"name": name, "settings": given_}, WORDS, SETTINGS)


@settings(deadline=None, max_examples=60)
@given(
    defense=ARM,
    compare=st.lists(ARM, max_size=2),
    texts=st.fixed_dictionaries({"source": WORDS, "label": WORDS, "train": WORDS}),
    layers=st.one_of(st.just("all"), st.lists(WORDS, max_size=3)),
    rate=st.floats(1e-12, 10),
)
def test_toml_brings_back_the_very_recipe(tmp_path_factory, defense, compare, texts, layers, rate) -> None:
    if len({arm["name"] for arm in (defense, *compare)}) < 1 + len(compare):
        compare = []
    recipe = Recipe.build(
        {
            "defense": defense,
            "compare": compare,
            "data": texts,
            "prune": {"layers": layers},
            "training": {"learning_rate": rate},
        }
    )
    path = tmp_path_factory.mktemp("toml") / "recipe.toml"
    path.write_text(recipe.to_toml(), encoding="utf-8")
    again = Recipe.load(path)
    assert again == recipe
    assert again.id == recipe.id


def test_the_saved_recipe_has_every_default_filled_in() -> None:
    saved = tomllib.loads(build(audit__shadows=2).to_toml())
    assert saved["audit"] == {"shadows": 2, "attacks": [], "bootstrap": 1000, "permutations": 200}
    assert saved["prune"]["iterations"] == 5 and saved["training"]["patience"] == 5


def test_one_thing_to_compare_with_may_be_a_word_or_a_table() -> None:
    word = Recipe.build({"defense": "wemem", "compare": "none"})
    table = Recipe.build({"defense": "wemem", "compare": {"name": "none"}})
    listed = Recipe.build({"defense": {"name": "wemem"}, "compare": ["none"]})
    assert word == table == listed
    assert [arm.name for arm in word.arms] == ["wemem", "none"]
    given_ = Recipe.build({"compare": {"name": "wemem", "window": 3, "order": "high-to-low"}})
    assert given_.compare[0].settings == {"window": 3, "order": "high-to-low"}


@pytest.mark.parametrize(
    ("changes", "format", "defense", "name"),
    [
        ({}, "int8", "wemem", "prune60-int8.wemem"),
        ({"prune.sparsity": 0.57}, "float32", "none", "prune57-float32.none"),
        ({"prune.sparsity": 0.625}, "float16", "none", "prune62.5-float16.none"),
        ({"cluster.clusters": 16}, "qat-int8", "wemem:swmr", "prune60-cluster16-qat-int8.wemem-swmr"),
        ({"quantize.weight_bits": 4}, "int8", "none", "prune60-bits4-int8.none"),
        ({"quantize.outer_bits": 4}, "int8", "selena", "prune60-bits8-4-int8.selena"),
        ({"prune.schedule": "none"}, "dynamic", "less-data", "dense-dynamic.less-data"),
        ({"prune.sparsity": 0, "cluster.clusters": 8}, "int8", "wemem:rmr", "cluster8-int8.wemem-rmr"),
    ],
)
def test_names_say_what_was_done(changes, format, defense, name) -> None:
    assert build(**changes).artifact_name(format, defense) == name


def test_built_in_networks_scale_by_the_kind_of_data_never_by_its_rows() -> None:
    assert Recipe().input_scale((64,)) == 16
    assert build(data__source="x.npz").input_scale((64,)) == 1
    assert build(data__source="x.npz").input_scale((8, 8, 3)) == 255
    assert build(data__train="t.npz", data__holdout="h.npz").input_scale((64,)) == 1
    assert build(model__scale=3.0).input_scale((64,)) == 3


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(Exception, match="frozen"):
        Recipe().seed = 3  # type: ignore[misc]


def test_two_backends_share_a_recipe_and_take_the_formats_that_are_theirs() -> None:
    both = Recipe.build({"backend": ["tflite", "executorch"], "formats": ["int8", "float16", "ptl-int8"]})
    assert both == Recipe.build({"backend": "tflite, executorch", "formats": ["int8", "float16", "ptl-int8"]})
    assert both.backends == ("tflite", "executorch")
    assert both.formats_of("tflite") == ("int8", "float16")
    assert both.formats_of("executorch") == ("int8", "ptl-int8")
    assert both.artifact_name("int8", "none", "tflite") == "tflite-prune60-int8.none"
    assert Recipe().artifact_name("int8", "none", "tflite") == "prune60-int8.none"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"backend": "tflite,tflite"}, "^recipe key 'backend': each backend can stand once"),
        ({"compare": ["none", "none"]}, "^recipe: each defense can stand once"),
        ({"backend": ""}, "no backend"),
        ({"backend": "tflite,executorch", "formats": ["float16"]}, "none of them is a format of executorch"),
        ({"formats": ["ptl-int8"]}, "no format of tflite"),
        ({"prune": {"schedule": "structured"}}, "no pruning schedule of tflite"),
    ],
)
def test_what_no_backend_can_do_is_refused(content: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        Recipe.build(content)


def test_structured_pruning_removes_channels_and_is_named_so() -> None:
    recipe = Recipe.build({"backend": "executorch", "prune": {"schedule": "structured", "sparsity": 0.5}})
    assert recipe.artifact_name("int8", "wemem") == "channels50-int8.wemem"


def test_other_versions_differ_in_compression_alone() -> None:
    recipe = Recipe.build(
        {
            "defense": "wemem",
            "seed": 3,
            "versions": [
                parse_version("prune.sparsity=0.9; formats=['int8']"),
                parse_version("prune.schedule = none; cluster.clusters=16"),
                *ABLATION,
            ],
        }
    )
    names = [[v.artifact_name(f, "wemem") for f in v.formats] for v in recipe.all_versions]
    assert names == [
        ["prune60-float32.wemem", "prune60-int8.wemem"],
        ["prune90-int8.wemem"],
        ["cluster16-float32.wemem", "cluster16-int8.wemem"],
        ["finetuned-float32.wemem", "finetuned-int8.wemem"],
        ["prune60-untrained-float32.wemem", "prune60-untrained-int8.wemem"],
    ]
    for version in recipe.all_versions[1:]:
        assert version.versions == () and version.seed == 3 and version.defense == recipe.defense
        assert version.audit == recipe.audit and version.training == recipe.training


@pytest.mark.parametrize(
    ("versions", "says"),
    [
        ([{"seed": 1}], "cannot differ in"),
        ([{"prune": {"sparsty": 0.9}}], "unknown recipe key 'prune.sparsty'"),
        ([{"prune": {"sparsity": 2}}], "prune.sparsity"),
        ([{"prune": {"sparsity": 0.6}}], "prune60-float32, prune60-int8 twice"),
        ([{"formats": ["tiff"]}], "no format"),
    ],
)
def test_a_version_that_cannot_be_is_refused(versions: list[Any], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        Recipe.build({"versions": versions})


def test_a_version_in_words() -> None:
    assert parse_version("prune.sparsity=0.9") == {"prune": {"sparsity": 0.9}}
    assert parse_version("prune.schedule=one-shot;formats=['int8']") == {
        "prune": {"schedule": "one-shot"},
        "formats": ["int8"],
    }
    for wrong in ("prune90", "=3", "prune.sparsity=0..9"):
        with pytest.raises(RecipeError, match="version"):
            parse_version(wrong)
    with pytest.raises(RecipeError, match="with a semicolon between"):
        parse_version("prune.sparsity=0.9,cluster.clusters=16")


def test_a_recipe_with_versions_is_saved_and_loaded(tmp_path: Path) -> None:
    recipe = Recipe.build({"versions": [{"prune": {"sparsity": 0.9}, "formats": ["int8"]}]})
    (tmp_path / "r.toml").write_text(recipe.to_toml())
    assert Recipe.load(tmp_path / "r.toml") == recipe


def test_a_part_of_a_composed_defense_is_set_by_table_or_by_dotted_key(tmp_path) -> None:
    by_table, by_key = tmp_path / "table.toml", tmp_path / "key.toml"
    by_table.write_text('[defense]\nname = "wemem+relaxloss"\n[defense.settings.relaxloss]\nalpha = 0.4\n')
    by_key.write_text('[defense]\nname = "wemem+relaxloss"\nsettings = { "relaxloss.alpha" = 0.4 }\n')
    recipe = Recipe.load(by_table)
    assert recipe == Recipe.load(by_key)
    assert recipe.defense.settings == {"relaxloss.alpha": 0.4}
    again = tmp_path / "again.toml"
    again.write_text(recipe.to_toml())
    assert Recipe.load(again) == recipe
    assert recipe.artifact_name("int8", recipe.defense.name) == "prune60-int8.wemem+relaxloss"
