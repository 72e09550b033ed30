"""One network a class: what a network of all classes could not learn, and classes that share one."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from edgeprivacy.attacks import attacks, score_target, scores_for_all_targets
from edgeprivacy.attacks.shokri import LEAST_PAIRS


def contrary(make_signals, **how):
    """Members of even classes are surer than non-members, members of odd classes less sure by as much.

    The same vectors come from every class, so that nothing but the label tells which rule holds.
    """
    signals = make_signals(versions=0, **how)
    rng = np.random.default_rng(0)
    even = signals.labels % 2 == 0
    sure = np.where(even, signals.members, ~signals.members)
    top = np.clip(np.where(sure, 0.7, 0.5) + rng.normal(0, 0.05, sure.shape), 0.3, 0.95)
    p = np.repeat(((1 - top) / 4)[:, :, None], 5, axis=2)
    p[:, :, 0] = top
    return replace(signals, probabilities=p.astype(np.float32))


def test_each_class_has_a_rule_of_its_own(make_signals):
    signals = contrary(make_signals, models=5, rows=400)
    own = score_target(attacks["shokri"], signals)
    common = score_target(attacks["nn.unlabelled"], signals).values
    assert own.pooled_rows == 0 and own.notes == ()
    for label in range(5):
        rows = signals.labels == label
        assert roc_auc_score(signals.members[0, rows], own.values[rows]) > 0.95
    assert roc_auc_score(signals.members[0], own.values) > 0.95
    assert abs(roc_auc_score(signals.members[0], common) - 0.5) < 0.15


@pytest.mark.parametrize(("inside", "outside", "shares"), [(20, 20, False), (19, 30, True), (0, 60, True)])
def test_a_class_needs_enough_pairs_on_either_side(make_signals, inside, outside, shares):
    """Of one shadow, so that pairs are rows; the class's own rule is contrary to that of all others."""
    assert LEAST_PAIRS == 40
    signals = contrary(make_signals, models=2, rows=1200)
    labels = np.where(signals.labels == 3, 1, signals.labels)
    odd = np.flatnonzero(labels == 1)
    known = signals.members[1]
    few = np.concatenate([odd[known[odd]][:inside], odd[~known[odd]][:outside]])
    labels[odd] = 0
    labels[few] = 1
    audited = signals.audited.copy()
    # Of the sure classes only: what is left of the odd rows is not learned from.
    audited[1, np.setdiff1d(odd, few)] = False
    # As many on either side in all, or the balanced sample would drop some of these few.
    kept = np.flatnonzero(audited[1])
    surplus = kept[known[kept]], kept[~known[kept]]
    longer = max(surplus, key=len)
    drop = longer[labels[longer] != 1][: abs(len(surplus[0]) - len(surplus[1]))]
    audited[1, drop] = False
    scores = score_target(attacks["shokri"], replace(signals, labels=labels, audited=audited))
    assert scores.pooled_rows == (len(few) if shares else 0)
    assert bool(scores.notes) == shares
    if shares:
        assert scores.notes == ("classes with too few rows to learn from, which share a network: 1",)
        # Class 2 is not the last to be learned: the network that is shared saw it all the same.
        moved = signals.probabilities.copy()
        moved[1, labels == 2] = moved[1, labels == 2][::-1]
        other = score_target(
            attacks["shokri"], replace(signals, labels=labels, audited=audited, probabilities=moved)
        )
        assert not np.array_equal(other.values[few], scores.values[few])
        np.testing.assert_array_equal(other.values[labels == 0], scores.values[labels == 0])
    area = roc_auc_score(signals.members[0, few], scores.values[few])
    assert area < 0.3 if shares else area > 0.7


def test_all_targets_are_scored_without_their_own_rows(make_signals):
    signals = contrary(make_signals, models=4, rows=300)
    together = scores_for_all_targets(attacks["shokri"], signals)
    flipped = signals.members.copy()
    flipped[::2] = ~flipped[::2]
    other = scores_for_all_targets(attacks["shokri"], replace(signals, members=flipped))
    assert np.mean((together[1::2] > 0.5) == (other[1::2] < 0.5)) > 0.95  # learned from the flipped half
    np.testing.assert_array_equal(together[::2], other[::2])  # flipped themselves, but learned from the rest
