import numpy as np
import pytest
from scipy.stats import norm

from edgeprivacy.metrics.intervals import (
    balanced_accuracy_interval,
    binomial_interval,
    bootstrap,
    support,
)
from edgeprivacy.metrics.roc import Roc


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [
        (84, 10_000, 0.0067, 0.0104),
        (10, 10_000, 0.00048, 0.00184),
        (0, 10_000, 0.0, 0.00037),
        (5, 10, 0.1871, 0.8129),
        (0, 10, 0.0, 0.3085),
        (10, 10, 0.6915, 1.0),
    ],
)
def test_clopper_pearson_constants(k, n, low, high):
    found = binomial_interval(k, n)
    assert found == pytest.approx((low, high), abs=6e-5)


def test_no_trials_know_nothing():
    assert binomial_interval(0, 0) == (0.0, 1.0)


def test_support_counts_expected_false_positives():
    assert [support(0.001, n) for n in (10_000, 9_999, 1_000, 999)] == ["ok", "low", "low", "none"]
    assert support(0.29, 100) == "ok" and support(0.01, 100) == "low"


def resampled_by_hand(scores, members, fprs, resamples, rng):
    """Draw rows, sort, count: the textbook bootstrap."""
    inside, outside = scores[members], scores[~members]
    areas, rates = np.empty(resamples), np.empty((resamples, len(fprs)))
    for b in range(resamples):
        a = rng.choice(inside, len(inside))
        z = np.sort(rng.choice(outside, len(outside)))
        areas[b] = (np.searchsorted(z, a, "left") + np.searchsorted(z, a, "right")).mean() / (2 * len(z))
        for j, fpr in enumerate(fprs):
            allowed = int(fpr * len(z) + 1e-9)
            rates[b, j] = 1.0 if allowed >= len(z) else (a > z[len(z) - 1 - allowed]).mean()
    return areas, rates


@pytest.mark.parametrize("grid", [None, 1.0, 0.25])
def test_samples_have_the_distribution_of_resampled_rows(grid):
    rng = np.random.default_rng(0)
    members = np.arange(1500) < 600
    scores = rng.normal(0.8 * members, 1.0)
    if grid:
        scores = np.round(scores / grid) * grid
    fprs = (0.1, 0.01, 0.001, 1.0, 0.0)
    roc = Roc.from_scores(scores, members)
    ours = bootstrap(roc, fprs, resamples=4000, seed=1)
    areas, rates = resampled_by_hand(scores, members, fprs, 4000, rng)
    assert ours.auc_samples.mean() == pytest.approx(areas.mean(), abs=4 * areas.std() / np.sqrt(2000))
    assert ours.auc_samples.std() == pytest.approx(areas.std(), rel=0.06)
    for q in (0.025, 0.5, 0.975):
        for j in range(len(fprs)):
            tolerance = 0.12 * rates[:, j].std() + 1 / 600
            assert np.quantile(ours.tpr_samples[:, j], q) == pytest.approx(
                np.quantile(rates[:, j], q), abs=tolerance
            )
        assert np.quantile(ours.auc_samples, q) == pytest.approx(np.quantile(areas, q), abs=0.1 * areas.std())


def test_auc_on_merged_bins_keeps_its_mean_and_spread():
    rng = np.random.default_rng(3)
    members = np.arange(20_000) < 10_000
    roc = Roc.from_scores(rng.normal(members, 1.0), members)
    samples = bootstrap(roc, (0.01,), resamples=3000, seed=0).auc_samples
    assert samples.mean() == pytest.approx(roc.auc, abs=4 * samples.std() / np.sqrt(3000))
    # DeLong's variance, from the placements.
    inside, outside = norm.cdf(rng.normal(1, 1, 10_000)), norm.sf(rng.normal(0, 1, 10_000) - 1)
    delong = np.sqrt(inside.var() / 10_000 + outside.var() / 10_000)
    assert samples.std() == pytest.approx(delong, rel=0.06)


def test_nearly_nothing_found_has_an_interval_with_width():
    scores = np.append(np.linspace(0, 0.5, 500), np.linspace(0.6, 1, 500))
    members = np.arange(1000) < 500  # every non-member above every member
    result = bootstrap(Roc.from_scores(scores, members), (0.01,), resamples=200)
    low, high = result.tpr_interval(0.01)
    assert low == 0.0 and high == pytest.approx(binomial_interval(0, 500)[1])
    assert result.auc_interval() == pytest.approx((0.0, binomial_interval(0, 500)[1]))
    perfect = bootstrap(Roc.from_scores(-scores, members), (0.01,), resamples=200)
    assert perfect.auc_interval() == pytest.approx((binomial_interval(500, 500)[0], 1.0))
    assert perfect.tpr_interval(0.01)[0] == pytest.approx(binomial_interval(500, 500)[0])


def test_a_limit_that_was_not_asked_for_is_an_error():
    roc = Roc.from_scores(np.arange(10.0), np.arange(10) % 2 == 0)
    with pytest.raises(KeyError):
        bootstrap(roc, (0.1,), resamples=10).tpr_interval(0.2)


def test_seed_level_and_order_of_limits():
    rng = np.random.default_rng(0)
    members = np.arange(400) < 200
    roc = Roc.from_scores(rng.normal(members, 1.0), members)
    first, again, turned = (bootstrap(roc, f, 300, seed=4) for f in ((0.1, 0.01), (0.1, 0.01), (0.01, 0.1)))
    assert np.array_equal(first.tpr_samples, again.tpr_samples)
    assert np.array_equal(first.tpr_samples, turned.tpr_samples[:, ::-1])
    wide, narrow = first.auc_interval(0.999), first.auc_interval(0.8)
    assert wide[0] < narrow[0] < roc.auc < narrow[1] < wide[1]


def test_intervals_cover_the_truth():
    """150 simulated audits: 95 % intervals of AUC and of TPR at 10 % and 2 % FPR hold the true values."""
    rng = np.random.default_rng(0)
    truth = [norm.sf(norm.isf(f) - 1) for f in (0.1, 0.02)]
    covered = np.zeros(3)
    for trial in range(150):
        members = np.arange(1000) < 500
        result = bootstrap(Roc.from_scores(rng.normal(members, 1.0), members), (0.1, 0.02), 400, seed=trial)
        spans = [result.auc_interval(), result.tpr_interval(0.1), result.tpr_interval(0.02)]
        values = [norm.cdf(1 / np.sqrt(2)), *truth]
        covered += [low <= value <= high for (low, high), value in zip(spans, values, strict=True)]
    assert (covered >= 0.88 * 150).all()


def test_balanced_accuracy_interval_covers_and_never_collapses():
    rng = np.random.default_rng(0)
    hits, alarms = rng.binomial(60, 0.7, 400), rng.binomial(90, 0.2, 400)
    spans = [balanced_accuracy_interval(int(h), 60, int(a), 90) for h, a in zip(hits, alarms, strict=True)]
    assert np.mean([low <= 0.75 <= high for low, high in spans]) > 0.93
    low, high = balanced_accuracy_interval(50, 50, 0, 50)
    assert 0.9 < low < 0.99 and high == 1.0
