"""Speed of LiRA, RMIA and the bootstrap against the plain way of writing them, as ratios within one run.

    python tests/benchmarks/bench_attacks.py

Each line: name, ratio, what was measured. Loops are timed on a part and scaled, and say so.
"""

from __future__ import annotations

import os
import platform
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy
from scipy.stats import norm

from edgeprivacy.attacks import Signals, attacks
from edgeprivacy.attacks.rmia import rmia_scores
from edgeprivacy.metrics.intervals import bootstrap
from edgeprivacy.metrics.roc import Roc


def seconds(function: Callable[[], Any], repeats: int = 3) -> float:
    """Shortest of a few runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def lira(shadows: int = 64, rows: int = 50_000, part: int = 1_000) -> None:
    """Online LiRA against a loop over rows that calls scipy.stats.norm.logpdf twice."""
    rng = np.random.default_rng(0)
    members = rng.random((shadows + 1, rows)) < 0.5
    p_y = 1 / (1 + np.exp(-(rng.normal(1, 2, rows) + rng.normal(0, 1, members.shape) + members)))
    probabilities = np.stack([p_y, 1 - p_y], axis=-1).astype(np.float32)
    signals = Signals(probabilities, np.zeros(rows, int), members, np.ones_like(members), 1e-30)
    phi = signals.logit_confidence  # both sides start from it

    def loop() -> list[float]:
        scores = []
        for row in range(part):
            inside, outside = phi[1:, row][members[1:, row]], phi[1:, row][~members[1:, row]]
            scores.append(
                norm.logpdf(phi[0, row], np.median(inside), np.std(inside) + 1e-30)
                - norm.logpdf(phi[0, row], np.median(outside), np.std(outside) + 1e-30)
            )
        return scores

    np.testing.assert_allclose(attacks["lira.online"](signals, 0).values[:part], loop(), rtol=1e-6, atol=1e-6)
    ours, theirs = seconds(lambda: attacks["lira.online"](signals, 0)), seconds(loop, 1) * rows / part
    report("lira.online", theirs / ours, f"{shadows} shadows x {rows} rows: {ours:.3f} s; "
           f"per-row loop of scipy {theirs:.1f} s (measured on {part} rows, scaled)")  # fmt: skip


def rmia(size: int = 20_000, part: int = 5_000) -> None:
    """RMIA's pairwise tests by sorting, against the rows-by-population array."""
    rng = np.random.default_rng(0)
    x, x_out, z, z_out = (rng.uniform(0.01, 1, size) for _ in range(4))

    def array() -> np.ndarray[Any, Any]:
        r_x, r_z = x[:part] / (0.65 * x_out[:part] + 0.35), z / (0.65 * z_out + 0.35)
        return np.asarray((r_x[:, None] / r_z[None, :] > 2.0).mean(axis=1))

    def ours() -> np.ndarray[Any, Any]:
        return rmia_scores(x, x_out, z, z_out, 0.3)

    np.testing.assert_allclose(ours()[:part], array(), atol=2 / size)
    fast, slow = seconds(ours), seconds(array, 1) * size / part
    ratio = slow / fast
    memory = []
    for function in (ours, array):
        tracemalloc.start()
        function()
        memory.append(tracemalloc.get_traced_memory()[1] / 2**20)
        tracemalloc.stop()
    report("rmia.offline", ratio, f"{size} x {size}: {1e3 * fast:.1f} ms, peak {memory[0]:.1f} MiB; "
           f"array {slow:.1f} s, {memory[1] * size / part:.0f} MiB ({part} rows, scaled)")  # fmt: skip


def resampling(side: int = 25_000, resamples: int = 1_000, part: int = 20) -> None:
    """Bootstrap of AUC and TPR at three FPRs against drawing, sorting and counting the rows themselves."""
    rng = np.random.default_rng(0)
    members = np.arange(2 * side) < side
    scores = rng.normal(members, 1.0)
    fprs = (0.01, 0.001, 0.0001)
    inside, outside = scores[members], scores[~members]

    def loop() -> None:
        for _ in range(part):
            a, z = rng.choice(inside, side), np.sort(rng.choice(outside, side))
            # Counting by binary search in the sorted side: the fastest plain way, ties included.
            np.searchsorted(z, a, "left").sum() + np.searchsorted(z, a, "right").sum()
            for fpr in fprs:
                (a > z[side - 1 - int(fpr * side)]).mean()

    def curve_loop() -> None:
        for _ in range(part):
            rows = np.append(rng.choice(side, side), side + rng.choice(side, side))
            roc = Roc.from_scores(scores[rows], members[rows])
            _ = roc.auc, [roc.tpr_at_fpr(fpr) for fpr in fprs]

    roc = Roc.from_scores(scores, members)
    grid = (*fprs, *roc.thinned()[0])
    ours = seconds(lambda: bootstrap(Roc.from_scores(scores, members), fprs, resamples))
    band = seconds(lambda: bootstrap(Roc.from_scores(scores, members), grid, resamples))
    for name, function in (("bootstrap (binary search)", loop), ("bootstrap (ROC curve)", curve_loop)):
        theirs = seconds(function, 1) * resamples / part
        report(name, theirs / ours, f"{resamples} resamples of {side} + {side}: {ours:.3f} s, with a band of "
               f"{len(grid)} FPRs {band:.3f} s; raw scores {theirs:.1f} s ({part}, scaled)")  # fmt: skip


def report(name: str, ratio: float, details: str) -> None:
    """One line of the table."""
    machine = (
        f"{os.cpu_count()} cores, Python {platform.python_version()}, numpy {np.__version__}, "
        f"scipy {scipy.__version__}"
    )
    print(f"{name:26s} {ratio:8.0f}x  {details} ({machine})", flush=True)


if __name__ == "__main__":
    lira()
    rmia()
    resampling()
