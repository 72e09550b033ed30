from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chi2_contingency

from edgeprivacy.data.dataset import Dataset, Source
from edgeprivacy.data.loading import DataSpec, load_source
from edgeprivacy.data.splits import ROLES, Shares, Split, make_split
from edgeprivacy.data.streams import stream
from edgeprivacy.errors import DataError, RecipeError, UsageError


def source(rows: int, classes: int = 3, train: int | None = None, distinct: bool = True) -> Source:
    x = np.arange(rows if distinct else 40, dtype=np.float32)
    x = np.resize(x, rows)[:, None] * np.ones(2, np.float32)
    y = np.arange(rows) % classes
    ids = np.array([f"r:{row}" for row in range(rows)])
    names = tuple(map(str, range(classes)))
    pool = Dataset(x, y.astype(np.int64), ids, classes, names, "rows")
    return Source(pool, None if train is None else ids[:train])


@pytest.fixture(scope="module")
def digits() -> Source:
    return load_source(DataSpec())


@pytest.mark.parametrize("design", ["half", "disjoint"])
def test_roles_are_disjoint_cover_everything_and_have_their_shares(design: str) -> None:
    data = source(1000)
    split = make_split(data, design, Shares(), seed=1, shadows=2)
    assert {role: len(ids) for role, ids in split.roles.items()} == dict(
        pool=720, test=140, validation=60, reference=40, calibration=40
    )
    together = np.concatenate([split.roles[role] for role in ROLES])
    assert sorted(together.tolist()) == sorted(data.pool.ids.tolist())


def test_the_halves_of_the_test_rows_are_alike_where_the_data_lies_by_class() -> None:
    data = source(2000, classes=4)
    by_class = np.sort(data.pool.y)
    ordered = Source(Dataset(data.pool.x, by_class, data.pool.ids, 4, data.pool.class_names, "rows"), None)
    split = make_split(ordered, "half", Shares(), seed=1, shadows=0)
    labels = ordered.pool.take(split.roles["test"]).y
    population, held_out = split.test_halves()
    assert sorted([*population, *held_out]) == list(range(len(labels)))
    table = [np.bincount(labels[half], minlength=4) for half in (population, held_out)]
    assert np.min(table) > 0 and chi2_contingency(table).pvalue > 0.001
    assert all(np.array_equal(a, b) for a, b in zip((population, held_out), split.test_halves(), strict=True))


@settings(deadline=None, max_examples=30)
@given(st.integers(60, 400), st.integers(0, 2**32), st.integers(0, 5))
def test_every_size_is_dealt_out_completely(rows: int, seed: int, shadows: int) -> None:
    split = make_split(source(rows, classes=2), "half", Shares(), seed, shadows)
    together = np.concatenate(list(split.roles.values()))
    assert len(together) == rows == len(set(together.tolist()))
    for role, share in Shares().to_dict().items():
        assert abs(len(split.roles[role]) - share * rows) < 1


def test_the_same_seed_gives_the_same_split_and_another_another(digits: Source) -> None:
    first, again, other = (make_split(digits, "half", Shares(), seed, 4) for seed in (3, 3, 4))
    assert first.sha256 == again.sha256 != other.sha256
    np.testing.assert_array_equal(first.membership, again.membership)
    assert first.roles["test"].tolist() != other.roles["test"].tolist()


def test_half_the_target_is_a_fair_coin_a_row() -> None:
    """Independent, not balanced: the number of members over seeds has the variance of a binomial."""
    counts = []
    together = np.zeros(2)
    for seed in range(400):
        members = make_split(source(250, 2), "half", Shares(), seed, 0).members(0)
        counts.append(members.sum())
        together += [np.sum(members[::2] & members[1::2]), len(members) // 2]
    assert binomtest(int(np.sum(counts)), 400 * 180).pvalue > 1e-4
    assert 0.75 < np.var(counts) / (180 / 4) < 1.3  # balanced members would give 0
    assert binomtest(int(together[0]), int(together[1]), 0.25).pvalue > 1e-4  # neighbours are independent


@pytest.mark.parametrize("shadows", [2, 3, 8, 15])
def test_each_row_is_in_exactly_half_of_the_shadows(digits: Source, shadows: int) -> None:
    split = make_split(digits, "half", Shares(), 0, shadows)
    count = split.membership[1:].sum(axis=0)
    if shadows % 2 == 0:
        assert (count == shadows // 2).all()
    else:
        assert set(count.tolist()) == {shadows // 2, shadows // 2 + 1}
        assert binomtest(int((count > shadows // 2).sum()), len(count)).pvalue > 1e-4


@pytest.mark.parametrize("shadows", [7, 16])
def test_the_number_of_in_shadows_predicts_nothing_about_membership(shadows: int) -> None:
    """One of the two tests of fairness, over many targets; the single shadows predict nothing either."""
    table = np.zeros((2, shadows + 1))
    agreement = np.zeros(shadows)
    total = 0
    for seed in range(40):
        split = make_split(source(1000), "half", Shares(), seed, shadows)
        member, count = split.members(0), split.membership[1:].sum(axis=0)
        np.add.at(table, (member.astype(int), count), 1)
        agreement += (split.membership[1:] == member).sum(axis=1)
        total += len(member)
    table = table[:, table.sum(axis=0) > 0]
    if shadows % 2 == 0:
        assert table.shape[1] == 1  # constant, so it cannot
    else:
        assert chi2_contingency(table).pvalue > 1e-4
    for agreed in agreement:
        assert binomtest(int(agreed), total).pvalue > 1e-4


@pytest.mark.parametrize("design", ["half", "given", "disjoint"])
def test_more_shadows_leave_target_and_earlier_shadows_as_they_are(design: str) -> None:
    data = source(1000, train=400)
    few, many = (make_split(data, design, Shares(), 5, shadows) for shadows in (3, 10))
    np.testing.assert_array_equal(few.membership, many.membership[:4])
    assert few.sha256 != many.sha256
    for model in range(4):
        assert few.release_sha256(model) == many.release_sha256(model)
    assert len({many.release_sha256(model) for model in range(11)}) == 11


def test_pairs_of_shadows_are_complements_and_different_pairs_are_not_related() -> None:
    split = make_split(source(4000), "half", Shares(), 0, 6)
    shadows = split.membership[1:]
    np.testing.assert_array_equal(shadows[0], ~shadows[1])
    agree = int((shadows[0] == shadows[2]).sum())
    assert binomtest(agree, shadows.shape[1]).pvalue > 1e-4


def test_without_its_partner_the_shadows_of_a_shadow_tell_nothing() -> None:
    split = make_split(source(1000), "half", Shares(), 0, 7)
    assert [split.partner(model) for model in range(8)] == [None, 2, 1, 4, 3, 6, 5, None]
    for model in range(1, 7):
        others = [k for k in range(1, 7) if k not in (model, split.partner(model))]
        assert set(split.membership[others].sum(axis=0).tolist()) == {2}


def test_given_takes_the_train_rows_as_they_are() -> None:
    data = source(1640, train=1000)
    split = make_split(data, "given", Shares(), 2, 4)
    assert set(split.train_ids(0).tolist()) == {f"r:{row}" for row in range(1000)}
    sizes = {role: len(ids) for role, ids in split.roles.items()}
    assert sizes == dict(pool=1360, test=140, validation=60, reference=40, calibration=40)
    assert split.audited(0).all() and (split.audited(0) & ~split.members(0)).sum() == 360
    others = np.concatenate([ids for role, ids in split.roles.items() if role != "pool"])
    assert not set(others.tolist()) & set(split.train_ids(0).tolist())
    # Shadows draw from the union: train rows are OUT of some and non-members IN others.
    first = split.members(1)
    assert 0.4 < first[split.members(0)].mean() < 0.6 and 0.4 < first[~split.members(0)].mean() < 0.6
    text = split.describe()["text"]
    assert "1000 train rows" in text and "360" in text and "differ from the target in size" in text


def test_given_needs_known_train_rows() -> None:
    with pytest.raises(DataError, match=r"needs to know the train rows.*--train"):
        make_split(source(100), "given", Shares(), 0, 0)


def test_rows_of_two_paths_are_not_mixed_by_a_coin() -> None:
    data = source(200, train=100)
    two_paths = Source(data.pool, data.train_ids, one_path=False)
    with pytest.raises(DataError, match=r"different paths"):
        make_split(two_paths, "half", Shares(), 0, 0)
    make_split(two_paths, "given", Shares(), 0, 0)


def test_disjoint_keeps_target_and_shadows_apart() -> None:
    split = make_split(source(2000), "disjoint", Shares(), 0, 5)
    target, shadow = split.audited(0), split.audited(1)
    np.testing.assert_array_equal(target, ~shadow)
    assert abs(int(target.sum()) - int(shadow.sum())) <= 1
    assert not (split.members(0) & ~target).any() and 0.4 < split.members(0)[target].mean() < 0.6
    for model in range(1, 6):
        np.testing.assert_array_equal(split.audited(model), shadow)
        assert not (split.members(model) & target).any()
    np.testing.assert_array_equal(split.members(1)[shadow], ~split.members(2)[shadow])


def test_an_independent_label_must_hold_for_some_rows_and_not_for_others() -> None:
    rng = np.random.default_rng(0)
    rows, y = source(400).pool, rng.integers(0, 2, (400, 2))

    def split(labels: np.ndarray) -> Split:
        pool = Dataset(rows.x, labels, rows.ids, 2, ("even", "rare"), "rows")
        return make_split(Source(pool, None), "half", Shares(), seed=1, shadows=2)

    assert split(y).models == 3
    for value in (0, 1):
        constant = y.copy()
        constant[:, 1] = value
        with pytest.raises(DataError, match=r"label 'rare' is the same in all of the data"):
            split(constant)
        constant[:3, 1] = 1 - value
        with pytest.raises(DataError, match=r"label 'rare' is the same in all of the (test|members|target)"):
            split(constant)


def test_an_absent_class_is_named_with_its_role() -> None:
    x = np.arange(600, dtype=np.float32)[:, None]
    y = np.zeros(600, np.int64)
    y[::2] = 1
    y[3] = 2  # one row cannot be in members and test alike

    def pool(labels: np.ndarray, names: tuple[str, ...]) -> Source:
        ids = np.arange(600).astype(str)
        return Source(Dataset(x, labels, ids, len(names), names, "rows"), ids[:300])

    with pytest.raises(DataError, match=r"class 'rare' is absent from "):
        make_split(pool(y, ("a", "b", "rare")), "half", Shares(), 0, 4)
    with pytest.raises(DataError, match=r"class 'rare' is absent from the test rows|shadow"):
        make_split(pool(y, ("a", "b", "rare")), "given", Shares(), 0, 0)
    y[3], y[450:] = 0, 2
    with pytest.raises(DataError, match=r"class 'rare' is absent from the train rows"):
        make_split(pool(y, ("a", "b", "rare")), "given", Shares(), 0, 0)
    with pytest.raises(DataError, match=r"class 'never' is absent from the data"):
        make_split(pool(y, ("a", "b", "rare", "never")), "half", Shares(), 0, 0)


def test_too_few_rows() -> None:
    with pytest.raises(DataError, match=r"too few rows.*reference|too few rows.*calibration"):
        make_split(source(9, 2), "half", Shares(), 0, 0)
    with pytest.raises(DataError, match=r"too few hold-out rows"):
        make_split(source(100, 2, train=95), "given", Shares(), 0, 0)


def test_bad_arguments() -> None:
    with pytest.raises(UsageError, match=r"did you mean 'half'"):
        make_split(source(100), "halve", Shares(), 0, 0)
    with pytest.raises(UsageError, match=r"negative"):
        make_split(source(100), "half", Shares(), -1, 0)
    with pytest.raises(UsageError, match=r"negative"):
        make_split(source(100), "half", Shares(), 0, -1)
    with pytest.raises(RecipeError, match=r"sum to 1"):
        Shares(pool=0.9)
    with pytest.raises(RecipeError, match=r"share 'test'"):
        Shares(test=0.0, pool=0.86)
    with pytest.raises(UsageError, match=r"no such model"):
        make_split(source(200), "half", Shares(), 0, 2).members(3)


@pytest.mark.parametrize("design", ["half", "given", "disjoint"])
def test_saved_and_loaded_again(tmp_path: Path, design: str) -> None:
    data = source(501, train=203)
    split = make_split(data, design, Shares(), 9, 3)
    split.save(tmp_path / "split.json")
    loaded = Split.load(tmp_path / "split.json")
    assert loaded.sha256 == split.sha256 and loaded.describe() == split.describe()
    for model in range(4):
        np.testing.assert_array_equal(loaded.members(model), split.members(model))
        np.testing.assert_array_equal(loaded.audited(model), split.audited(model))
    loaded.check(data.pool)
    with pytest.raises(DataError, match=r"not what the split was made from"):
        loaded.check(source(500).pool)


def test_a_changed_or_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    make_split(source(200), "half", Shares(), 0, 1).save(path)
    content = json.loads(path.read_text())
    content["roles"]["test"][0], content["roles"]["pool"][0] = (
        content["roles"]["pool"][0],
        content["roles"]["test"][0],
    )
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"changed after it was written"):
        Split.load(path)
    content["members"] = ["zz"]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"damaged"):
        Split.load(path)
    path.write_text("{}")
    with pytest.raises(DataError, match=r"not a saved split"):
        Split.load(path)
    with pytest.raises(DataError, match=r"does not exist"):
        Split.load(tmp_path / "none.json")


def test_what_the_report_says(digits: Source) -> None:
    split = make_split(digits, "half", Shares(), 0, 16)
    said = json.loads(json.dumps(split.describe()))
    assert "trained on half of the pool" in said["text"]
    assert said["counts"]["members"] + said["counts"]["nonmembers"] == said["counts"]["pool"] == 1294
    assert said["shadows"] == 16 and said["sha256"] == split.sha256
    assert said["overlaps"] == {"by_id": 0, "by_content": {}}


def test_content_that_stands_in_two_roles_is_counted() -> None:
    data = source(400, distinct=False)  # ten copies of each of 40 rows
    split = make_split(data, "half", Shares(), 0, 0)
    found = split.describe()["overlaps"]["by_content"]
    row = dict(zip(data.pool.ids.tolist(), data.pool.x[:, 0].tolist(), strict=True))
    members = {row[i] for i in split.train_ids(0).tolist()}
    test = [row[i] for i in split.roles["test"].tolist()]
    assert found["test also in members"] == sum(value in members for value in test)
    assert found["rows that repeat an earlier row"] == 360


def test_streams_of_other_names_and_seeds_differ() -> None:
    drawn = {
        tuple(stream(seed, *names).integers(0, 2**62, 4).tolist())
        for seed in (0, 1)
        for names in (("target",), ("shadows", 0), ("shadows", 1), ("roles",), ())
    }
    assert len(drawn) == 10
    assert stream(7, "a").random() == stream(7, "a").random()
