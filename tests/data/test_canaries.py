"""Canaries: what each kind is made of, and that nothing else of the data moves."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, chisquare, kstest

from edgeprivacy.data.canaries import (
    CANARY_KINDS,
    NEAR_DUPLICATE_NOISE,
    CanarySpec,
    insert_canaries,
    with_canaries,
)
from edgeprivacy.data.dataset import Dataset, Source
from edgeprivacy.data.splits import Shares, Split, make_split
from edgeprivacy.errors import DataError, RecipeError

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


DESIGNS = ("half", "given", "disjoint")


def source() -> Source:
    data = rows()
    return Source(data, data.ids[:1800])


@pytest.mark.parametrize("design", DESIGNS)
def test_canaries_join_the_pool_by_independent_coins_and_nothing_else_moves(design: str) -> None:
    before, plain = source(), make_split(source(), design, Shares(), 3, 6)
    after, split = insert_canaries(before, plain, CanarySpec(400))
    canaries = split.canaries
    assert canaries.sum() == 400 == len(split.canary_ids) and split.canary_kind == "mislabelled"
    np.testing.assert_array_equal(split.membership[:, ~canaries], plain.membership[:, ~canaries])
    assert split.roles["pool"][~canaries].tolist() == plain.roles["pool"][~canaries].tolist()
    for role in ("test", "validation", "reference", "calibration"):
        assert split.roles[role].tolist() == plain.roles[role].tolist()
    for model in range(split.models):
        assert not split.audited(model)[canaries].any()
        np.testing.assert_array_equal(split.audited(model)[~canaries], plain.audited(model)[~canaries])
    coins = split.membership[:, canaries]
    assert binomtest(int(coins.sum()), coins.size).pvalue > 1e-3
    for first in range(split.models):  # neither complements nor copies of one another
        for second in range(first):
            assert binomtest(int((coins[first] == coins[second]).sum()), 400).pvalue > 1e-4
    split.check(after.pool)
    if design == "given":
        assert not np.isin(split.canary_ids, after.train_ids).any() and len(after.train_ids) == 1400
        took = [row_id.removeprefix("canary:mislabelled:") for row_id in split.canary_ids]
        assert np.isin(took, before.train_ids).all()


def test_more_models_leave_the_coins_as_they_are() -> None:
    few, many = (
        insert_canaries(source(), make_split(source(), "half", Shares(), 3, n), CanarySpec(100))[1]
        for n in (2, 5)
    )
    np.testing.assert_array_equal(few.membership, many.membership[:3])
    assert few.canary_ids.tolist() == many.canary_ids.tolist()
    assert few.release_sha256(1) == many.release_sha256(1)


def test_the_split_says_so_and_is_read_back(tmp_path) -> None:
    plain = make_split(source(), "half", Shares(), 3, 2)
    _, split = insert_canaries(source(), plain, CanarySpec(100, "ood"))
    split.save(tmp_path / "split.json")
    again = Split.load(tmp_path / "split.json")
    assert again.sha256 == split.sha256 != plain.sha256 and again.canary_kind == "ood"
    np.testing.assert_array_equal(again.canaries, split.canaries)
    inside = int(split.members(0)[split.canaries].sum())
    told = split.describe()
    assert told["canaries"] == {"kind": "ood", "number": 100, "members": inside}
    assert told["counts"]["members"] == split.members(0).sum() - inside
    assert "100 training rows were turned into canaries (ood); a fair coin" in told["text"]
    assert "audit file" in told["text"] and "shipped" not in told["text"]
    assert "canaries" not in plain.describe() and "canaries" not in plain.to_dict()


def test_too_many_canaries_are_refused() -> None:
    split = make_split(source(), "given", Shares(), 3, 2)
    with pytest.raises(DataError, match=r"too many.*451.*20 to 450"):
        insert_canaries(source(), split, CanarySpec(451))
    insert_canaries(source(), split, CanarySpec(450))


def test_a_class_that_is_left_to_canaries_alone_is_refused() -> None:
    data = rows(classes=2)
    y = np.zeros(3000, dtype=np.int64)
    y[::600] = 1
    few = Source(Dataset(data.x, y, data.ids, 2, data.class_names, "rows"))
    failed = 0
    for seed in range(30):
        try:
            split = make_split(few, "half", Shares(), seed, 0)
        except DataError:
            continue
        try:
            after, split = insert_canaries(few, split, CanarySpec(540))
            own = split.members(0) & ~split.canaries
            assert after.pool.take(split.roles["pool"][own]).y.any()
        except DataError as error:
            assert "class '1' is absent from the target's members" in str(error)
            failed += 1
    assert failed
