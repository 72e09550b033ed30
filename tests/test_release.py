"""Releases: made once, cached by what they depend on and nothing else, shaped by members only."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprivacy.backends import open_backend
from edgeprivacy.cache import Cache
from edgeprivacy.confidences import Confidences
from edgeprivacy.data.dataset import Dataset
from edgeprivacy.data.loading import DataSpec, load_source
from edgeprivacy.data.splits import Shares, Split, make_split
from edgeprivacy.device_runner import open_runner
from edgeprivacy.files import sha256_file
from edgeprivacy.recipe import Recipe
from edgeprivacy.recipe_toml import merge
from edgeprivacy.release import Release, ReleaseMaker, planned_artifacts, steps_per_release

pytestmark = [pytest.mark.tflite, pytest.mark.litert]

STEPS = ("train", "train_plain", "compress", "quantize_aware", "convert")
SHORT: dict[str, Any] = {
    "defense": "wemem",
    "training.epochs": 2,
    "prune.iterations": 2,
    "prune.finetune_epochs": 2,
}


def recipe_of(**dotted: Any) -> Recipe:
    return Recipe.build(merge({}, SHORT | {key.replace("__", "."): value for key, value in dotted.items()}))


class Counting:
    """A real session whose steps are counted; `stop_at` ends the run there, as Ctrl-C would."""

    def __init__(self, session: Any, counts: Counter[str], stop_at: str | None = None) -> None:
        self._session, self._counts, self._stop_at = session, counts, stop_at

    def __getattr__(self, name: str) -> Any:
        if name in STEPS:
            self._counts[name] += 1
            if name == self._stop_at:
                raise KeyboardInterrupt
        return getattr(self._session, name)


class Workshop:
    """Digits, sessions by recipe, and a cache."""

    def __init__(self, folder: Path) -> None:
        self.source, self.folder, self.opened = load_source(DataSpec()), folder, {}

    @property
    def data(self) -> Dataset:
        return self.source.pool

    def split(self, shadows: int = 2) -> Split:
        return make_split(self.source, "half", Shares(), 0, shadows)

    def session(self, recipe: Recipe) -> Any:
        kept = recipe.model_dump_json(include={"model", "training", "prune", "cluster", "quantize"})
        if kept not in self.opened:
            self.opened[kept] = open_backend("tflite").open(recipe, 10, (64,))
        self.opened[kept].recipe = recipe
        return self.opened[kept]

    def make(
        self,
        recipe: Recipe,
        *indices: int,
        cache: str = "cache",
        data: Dataset | None = None,
        shadows: int = 2,
        stop_at: str | None = None,
    ) -> tuple[list[Release], Counter[str], list[str]]:
        """The releases, how often each step was taken, and the finished steps in words."""
        counts: Counter[str] = Counter()
        said: list[str] = []
        maker = ReleaseMaker(
            recipe,
            "tflite",
            lambda: Counting(self.session(recipe), counts, stop_at),
            self.data if data is None else data,
            self.split(shadows),
            open_runner("host"),
            Cache(self.folder / cache),
            said.append,
        )
        return [maker.make(index) for index in indices], counts, said


@pytest.fixture(scope="module")
def shop(keras: Any, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="module")
def first(shop: Workshop):
    return shop.make(recipe_of(), 0, 1, 2)


def hashes(release: Release) -> dict[str, str]:
    return {made.plan.name: sha256_file(made.file) for made in release.artifacts}


def test_a_release_holds_the_original_and_every_arm_in_every_format(first, shop) -> None:
    releases, counts, said = first
    assert [release.index for release in releases] == [0, 1, 2]
    for release in releases:
        assert [made.plan for made in release.artifacts] == list(planned_artifacts(recipe_of(), "tflite"))
        assert [made.plan.name for made in release.artifacts] == [
            "original-float32",
            "prune60-float32.wemem",
            "prune60-int8.wemem",
        ]
        assert (release.trained, release.cached) == (("original", "wemem"), ())
        for made in release.artifacts:
            assert made.meta["facts"]["sha256"] == sha256_file(made.file)
            assert made.meta["facts"]["size_bytes"] == made.file.stat().st_size
            assert made.meta["parity"]["max_abs"] < (0.2 if "int8" in made.plan.name else 1e-5)
    assert counts == {"train": 3, "train_plain": 15, "compress": 3, "convert": 9}  # five sub-models each
    assert len(said) == 3 * steps_per_release(recipe_of(), "tflite")
    assert len({name for release in releases for name in hashes(release).values()}) == 9


def test_every_file_answers_the_same_rows_in_the_same_order(first, shop) -> None:
    split, data = shop.split(), shop.data
    ids = np.concatenate([split.roles["pool"], split.roles["test"]])
    for release in first[0]:
        for made in release.artifacts:
            found = Confidences.load(made.confidences)
            np.testing.assert_array_equal(found.row_ids, ids)
            np.testing.assert_array_equal(found.labels, data.take(ids).y)
            assert (found.grid is not None) == ("int8" in made.plan.name)
    # and the networks learned their members
    hits = (
        found.probabilities[: len(split.roles["pool"])].argmax(axis=1)
        == found.labels[: len(split.roles["pool"])]
    )
    assert hits[split.members(2)].mean() > 0.5


def test_the_second_time_nothing_is_made_and_no_backend_opened(first, shop) -> None:
    def refuse() -> Any:
        raise AssertionError("the backend was opened")

    split, cache = shop.split(), Cache(shop.folder / "cache")
    maker = ReleaseMaker(recipe_of(), "tflite", refuse, shop.data, split, open_runner("host"), cache)
    for before in first[0]:
        again = maker.make(before.index)
        assert (again.trained, again.cached) == ((), ("original", "wemem"))
        assert again.artifacts == before.artifacts


def test_a_process_that_finds_everything_cached_imports_no_framework(first, shop) -> None:
    program = f"""
import sys
from pathlib import Path
from edgeprivacy.cache import Cache
from edgeprivacy.data.loading import DataSpec, load_source
from edgeprivacy.data.splits import Shares, make_split
from edgeprivacy.device_runner import open_runner
from edgeprivacy.recipe import Recipe
from edgeprivacy.recipe_toml import merge
from edgeprivacy.release import ReleaseMaker
source = load_source(DataSpec())
recipe = Recipe.build(merge({{}}, {SHORT!r}))
split = make_split(source, "half", Shares(), 0, 2)
cache = Cache(Path(sys.argv[1]))
maker = ReleaseMaker(recipe, "tflite", None, source.pool, split, open_runner("host"), cache)
print(len([maker.make(index) for index in range(3)]), *[
    name for name in ("tensorflow", "tf_keras", "keras", "torch") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(shop.folder / "cache")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["3"]


def test_another_format_is_only_converted(first, shop) -> None:
    releases, counts, _ = shop.make(recipe_of(formats=["float32", "float16", "int8"]), 0, 1)
    assert counts == {"convert": 2}
    for before, after in zip(first[0], releases, strict=False):
        assert after.trained == ()
        assert hashes(before).items() < hashes(after).items()


def test_attacks_gates_and_the_number_of_shadows_make_nothing_anew(first, shop) -> None:
    recipe = recipe_of(audit__attacks=["gap"], audit__shadows=4, audit__bootstrap=200)
    releases, counts, _ = shop.make(recipe, 0, 1, 2, shadows=4)
    assert counts == {} and [release.artifacts for release in releases] == [r.artifacts for r in first[0]]
    _, counts, _ = shop.make(recipe, 3, shadows=4)
    assert counts["train"] == counts["compress"] == 1


def test_another_defense_or_setting_keeps_the_original_and_the_scores(first, shop) -> None:
    (release,), counts, _ = shop.make(recipe_of(compare=["none"]), 0)
    assert counts == {"compress": 1, "convert": 2}
    assert (release.trained, release.cached) == (("none",), ("original", "wemem"))
    wider = {"name": "wemem", "settings": {"window": 30}}
    (release,), counts, _ = shop.make(recipe_of(defense=wider), 0)
    assert counts == {"compress": 1, "convert": 2}
    assert release.cached == ("original",)
    assert hashes(release)["original-float32"] == hashes(first[0][0])["original-float32"]
    assert hashes(release)["prune60-float32.wemem"] != hashes(first[0][0])["prune60-float32.wemem"]


@pytest.mark.parametrize("change", [{"seed": 1}, {"training__weight_decay": 0.0}])
def test_what_shapes_the_original_makes_everything_anew(first, shop, change) -> None:
    (release,), counts, _ = shop.make(recipe_of(**change), 0)
    assert counts == {"train": 1, "train_plain": 5, "compress": 1, "convert": 3}
    assert not set(hashes(release).values()) & set(hashes(first[0][0]).values())


def changed(data: Dataset, row_id: str) -> Dataset:
    """The same data but for the content of one row."""
    x = data.x.copy()
    x[data.positions[str(row_id)]] = 16 - x[data.positions[str(row_id)]]
    return replace(data, x=x)


def test_rows_that_are_no_members_shape_no_byte_of_the_files_and_members_do(first, shop) -> None:
    """Each in a cache of its own, so that all is made again."""
    split, pool = shop.split(), shop.split().roles["pool"]
    inside = split.members(0)
    expected = hashes(first[0][0])
    outsiders = changed(changed(shop.data, pool[~inside][5]), split.roles["test"][3])
    outsiders = changed(outsiders, split.roles["reference"][0])
    (release,), counts, _ = shop.make(recipe_of(), 0, cache="outsider", data=outsiders)
    assert counts["train"] == 1 and counts["convert"] == 3
    assert hashes(release) == expected
    (release,), _, _ = shop.make(recipe_of(), 0, cache="member", data=changed(shop.data, pool[inside][5]))
    assert not set(hashes(release).values()) & set(expected.values())


def test_what_was_finished_before_an_interruption_is_kept(shop, first) -> None:
    with pytest.raises(KeyboardInterrupt):
        shop.make(recipe_of(), 0, cache="interrupted", stop_at="compress")
    (release,), counts, _ = shop.make(recipe_of(), 0, cache="interrupted")
    # the original, its file and the five sub-models were there
    assert counts == {"compress": 1, "convert": 2}
    assert hashes(release) == hashes(first[0][0])
    assert release.trained == ("wemem",)


def test_given_weights_are_the_targets_original_and_shadows_are_trained(shop, first, tmp_path) -> None:
    session = shop.session(recipe_of())
    weights = session.initial_weights(99)
    session._model.set_weights(weights)
    session._model.save(str(tmp_path / "given.keras"))
    recipe = recipe_of(model__weights=str(tmp_path / "given.keras"))
    releases, counts, _ = shop.make(recipe, 0, 1)
    assert counts["train"] == 0  # shadow 1 is the one that was trained before
    assert hashes(releases[1])["original-float32"] == hashes(first[0][1])["original-float32"]
    answered = Confidences.load(releases[0].artifacts[0].confidences)
    rows = shop.data.take(answered.row_ids)
    np.testing.assert_allclose(answered.probabilities, session.predict(weights, rows.x), atol=1e-5)
    assert releases[0].artifacts[0].meta["history"] == []
