"""Canaries: what each kind is made of, and that nothing else of the data moves."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chisquare, kstest

from edgeprivacy.data.canaries import CANARY_KINDS, NEAR_DUPLICATE_NOISE, CanarySpec, with_canaries
from edgeprivacy.data.dataset import Dataset
from edgeprivacy.errors import RecipeError

CHOSEN = np.arange(0, 3000, 3)
COPIED = np.setdiff1d(np.arange(3000), CHOSEN)


def rows(dtype: str = "float32", classes: int = 4) -> Dataset:
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.uniform(-5, 5, 3000), rng.uniform(0, 200, 3000), np.full(3000, 7.0)])
    ids = np.array([f"r:{row}" for row in range(3000)])
    labels = rng.integers(0, classes, 3000)
    return Dataset(np.abs(x).astype(dtype), labels, ids, classes, tuple(map(str, range(classes))), "rows")


@pytest.mark.parametrize("kind", CANARY_KINDS)
def test_only_the_chosen_rows_change_and_their_ids_say_so(kind: str) -> None:
    before = rows()
    kept = before.x.copy(), before.y.copy()
    after = with_canaries(before, CHOSEN, COPIED, kind, 0)
    np.testing.assert_array_equal(after.x[COPIED], before.x[COPIED])
    np.testing.assert_array_equal(after.y[COPIED], before.y[COPIED])
    assert after.ids[COPIED].tolist() == before.ids[COPIED].tolist()
    assert after.ids[CHOSEN].tolist() == [f"canary:{kind}:r:{row}" for row in CHOSEN]
    assert after.x.dtype == before.x.dtype and after.sha256 != before.sha256
    np.testing.assert_array_equal(before.x, kept[0])  # the source's own arrays are not written to
    np.testing.assert_array_equal(before.y, kept[1])


@pytest.mark.parametrize("kind", CANARY_KINDS)
def test_the_seed_decides(kind: str) -> None:
    first, again, other = (with_canaries(rows(), CHOSEN, COPIED, kind, seed).sha256 for seed in (1, 1, 2))
    assert first == again != other


def test_mislabelled_rows_keep_their_inputs_and_get_each_other_label_alike() -> None:
    before = rows()
    after = with_canaries(before, CHOSEN, COPIED, "mislabelled", 0)
    np.testing.assert_array_equal(after.x, before.x)
    moved = (after.y - before.y)[CHOSEN] % 4
    assert (moved != 0).all()
    assert chisquare(np.bincount(moved, minlength=4)[1:]).pvalue > 1e-3


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_near_duplicates_stand_close_to_a_row_of_another_label(dtype: str) -> None:
    before = rows(dtype)
    after = with_canaries(before, CHOSEN, COPIED, "near-duplicate", 0)
    least, most = before.x[COPIED].min(axis=0), before.x[COPIED].max(axis=0)
    width = (most - least).astype(float)
    step = NEAR_DUPLICATE_NOISE * width + (0.5 if dtype == "uint8" else 1e-4)
    others = before.x[COPIED].astype(float)
    for row in CHOSEN[:200]:
        near = (np.abs(others - after.x[row].astype(float)) <= step).all(axis=1)
        assert near.any() and (before.y[COPIED][near] != after.y[row]).any()
    assert (after.x[CHOSEN] >= least).all() and (after.x[CHOSEN] <= most).all()
    assert (after.x[CHOSEN, 2] == before.x[0, 2]).all()  # an input without a range is left alone


def test_rows_from_outside_are_uniform_within_each_range_and_over_labels() -> None:
    before = rows()
    after = with_canaries(before, CHOSEN, COPIED, "ood", 0)
    for column in (0, 1):
        low, high = before.x[COPIED, column].min(), before.x[COPIED, column].max()
        assert kstest((after.x[CHOSEN, column] - low) / (high - low), "uniform").pvalue > 1e-3
    assert chisquare(np.bincount(after.y[CHOSEN], minlength=4)).pvalue > 1e-3


def test_a_request_in_words() -> None:
    assert CanarySpec.parse("500") == CanarySpec(500, "mislabelled")
    assert CanarySpec.parse(" 40 : ood ") == CanarySpec(40, "ood")
    assert CanarySpec.parse("500").text == "500:mislabelled"
    for text, words in (
        ("many", "number"),
        ("", "number"),
        ("-5", "number"),
        ("500:", "no canaries of the kind"),
        ("500:mislabeled", "did you mean.*mislabelled"),
        ("19", "too few"),
        ("9" * 30, "too many"),
    ):
        with pytest.raises(RecipeError, match=words):
            CanarySpec.parse(text)
