"""The loop above the frameworks against a second writing of early stopping. No framework is imported."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprivacy.backends.fitting import fit
from edgeprivacy.defenses import Pass


class Recorder:
    """Answers given accuracies, and counts its epochs in place of weights."""

    def __init__(self, accuracies: list[float]) -> None:
        self.accuracies, self.epochs, self.runs, self.told = accuracies, 0, [], []

    def run_epoch(self, order, weight_decay, optimizer, epoch=0) -> None:
        self.told.append(epoch)
        self.runs.append((sorted(order.tolist()), order.tolist(), weight_decay, optimizer))

    def validate(self) -> float:
        self.epochs += 1
        return self.accuracies[self.epochs - 1]

    def weights(self):
        return [np.array(self.epochs)]


def one_pass(epoch: int) -> list[Pass]:
    return [Pass(np.arange(10), 0.5)]


def naive(accuracies: list[float], patience: int, first: int) -> tuple[int, int]:
    """Epochs run, and the epoch (from 1) of the best weights."""
    counter, best, where = 0, -np.inf, len(accuracies)
    for number, accuracy in enumerate(accuracies, 1):
        if number <= first:
            continue
        if accuracy > best:
            best, where, counter = accuracy, number, 0
        else:
            counter += 1
            if counter > patience:
                return number, where
    return len(accuracies), where


@settings(deadline=None, max_examples=200)
@given(
    accuracies=st.lists(st.integers(0, 6), min_size=1, max_size=25),
    patience=st.integers(0, 6),
    first=st.integers(0, 8),
)
def test_it_stops_once_more_than_patience_epochs_bring_nothing(accuracies, patience, first) -> None:
    values = [value / 6 for value in accuracies]
    network = Recorder(values)
    first = min(first, len(values) - 1)
    result = fit(
        network,
        one_pass,
        epochs=len(values),
        patience=patience,
        batch_size=4,
        rng=np.random.default_rng(0),
        first_counted=first,
    )
    ran, best = naive(values, patience, first)
    assert (network.epochs, int(result.best[0]), int(result.last[0])) == (ran, best, ran)
    assert result.accuracies == tuple(values[:ran])
    assert result.best_epoch == best - 1
    assert result.steps == 3 * ran  # 10 rows in batches of 4
    assert result.summary("x")["validation_accuracy"] == pytest.approx(values[best - 1], abs=1e-6)


def test_patience_five_stops_after_six_epochs_without_improvement() -> None:
    network = Recorder([0.5, 0.6] + [0.6] * 20)
    result = fit(network, one_pass, epochs=22, patience=5, batch_size=4, rng=np.random.default_rng(0))
    assert network.epochs == 8 and result.best_epoch == 1


def test_passes_run_in_order_shuffled_with_their_decay_and_optimizer() -> None:
    def passes(epoch: int) -> list[Pass]:
        return [Pass(np.arange(5, 9), 0.1, "risky"), Pass(np.arange(5), 0.2)]

    network = Recorder([0.1, 0.2])
    result = fit(network, passes, epochs=2, patience=5, batch_size=3, rng=np.random.default_rng(0))
    assert [(rows, decay, name) for rows, _, decay, name in network.runs] == [
        ([5, 6, 7, 8], 0.1, "risky"),
        ([0, 1, 2, 3, 4], 0.2, "general"),
    ] * 2
    assert network.runs[0][1] != network.runs[2][1] or network.runs[1][1] != network.runs[3][1]
    assert network.told == [0, 0, 1, 1]
    assert result.steps == 2 * (2 + 2)


def test_without_a_pass_the_phase_ends() -> None:
    network = Recorder([0.3] * 9)
    result = fit(
        network,
        lambda epoch: one_pass(epoch) if epoch < 2 else [],
        epochs=9,
        patience=9,
        batch_size=4,
        rng=np.random.default_rng(0),
    )
    assert network.epochs == 2 and result.steps == 6
    empty = fit(network, lambda epoch: [], epochs=9, patience=9, batch_size=4, rng=np.random.default_rng(0))
    assert empty.accuracies == () and empty.summary("x")["validation_accuracy"] is None
    assert int(empty.best[0]) == int(empty.last[0]) == 2
