"""Asking for canaries: in a recipe or by a flag, checked before anything is made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeprivacy.audit_notes import audit_notes
from edgeprivacy.compressing import prepare
from edgeprivacy.errors import DataError, RecipeError, UsageError
from edgeprivacy.files import sha256_json
from edgeprivacy.recipe import Recipe, Run
from edgeprivacy.recipe_template import commented_toml
from edgeprivacy.release import MadeArtifact, PlannedArtifact

pytestmark = pytest.mark.tflite


def recipe(**audit: object) -> Recipe:
    return Recipe.build({"audit": {"shadows": 4, **audit}})


def test_it_is_written_in_one_way_and_shapes_the_identity_only_where_asked_for(tmp_path: Path) -> None:
    short, whole, kind = (recipe(canaries=value) for value in (500, "500:mislabelled", "500:ood"))
    assert short == whole and short.audit.canaries == "500:mislabelled"
    assert len({recipe().id, short.id, kind.id}) == 3
    content = Recipe().model_dump(mode="json", exclude={"versions"})
    assert content["audit"].pop("canaries") is None
    assert [content["quantize"].pop(f"{name}_bits") for name in ("weight", "outer")] == [8, 8]
    content["quantize"].pop("grid_epochs")
    assert Recipe().id == sha256_json(content)[:16]  # as it was before there were canaries or packed bits
    for one in (recipe(), kind):
        path = tmp_path / f"{one.id}.toml"
        path.write_text(commented_toml(one))
        assert Recipe.load(path) == one
        path.write_text(one.to_toml())
        assert Recipe.load(path) == one


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("50:odd", "did you mean 'ood'"),
        ("3", "too few"),
        ("some", "number"),
        (True, "string"),
        (2.5, "string"),
    ],
)
def test_what_cannot_be_meant_is_one_line(value: object, words: str) -> None:
    with pytest.raises(RecipeError, match=words) as caught:
        recipe(canaries=value)
    assert "\n" not in str(caught.value)


def test_the_data_hold_the_canaries_before_anything_is_made() -> None:
    asked = recipe(canaries="60:near-duplicate")
    source, split = prepare(asked, Run())
    plain, _ = prepare(recipe(), Run())
    assert split.canaries.sum() == 60 == np.char.startswith(source.pool.ids, "canary:near-duplicate:").sum()
    assert source.pool.sha256 != plain.pool.sha256 and len(source.pool) == len(plain.pool) == 1797
    split.check(source.pool)
    notes = " ".join(audit_notes(asked, source, split, []))
    assert "audit files, not to ship" in notes and "60 training rows were turned into canaries" in notes
    with pytest.raises(DataError, match="too many canaries"):
        prepare(recipe(canaries=1000), Run())


def test_a_trained_model_cannot_learn_them(tmp_path: Path) -> None:
    for name in ("w.h5", "t.npz", "h.npz"):
        rng = np.random.default_rng(len(name))
        x, y = rng.normal(size=(400, 4)).astype(np.float32) + ord(name[0]), np.arange(400) % 4
        np.savez(tmp_path / name, x=x, y=y)
    (tmp_path / "w.h5.npz").rename(tmp_path / "w.h5")
    given = Recipe.build(
        {
            "model": {"weights": str(tmp_path / "w.h5")},
            "data": {"train": str(tmp_path / "t.npz"), "holdout": str(tmp_path / "h.npz")},
            "audit": {"canaries": "20", "shadows": 2},
        }
    )
    with pytest.raises(UsageError, match=r"cannot learn canaries.*--weights"):
        prepare(given, Run())


def test_a_file_that_learned_them_says_so_in_its_name() -> None:
    plan = PlannedArtifact("prune60-int8.wemem", "wemem", "int8", "tflite")
    made = MadeArtifact(plan, Path("cache/model.tflite"), {}, Path("c.npz"))
    assert made.published_name(None) == "prune60-int8.wemem.tflite"
    assert made.published_name("500:ood") == "prune60-int8.wemem.audit-only.tflite"


def test_a_gate_about_canaries_needs_them() -> None:
    run = Run(fail_if=("auc[canaries]>0.7",))
    with pytest.raises(UsageError, match=r"there are none; --canaries 500"):
        prepare(recipe(), run)
    prepare(recipe(canaries=60), run)
