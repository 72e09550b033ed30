"""Speed of LiRA, RMIA, the bootstrap and the one-run bound against a peer or plain code, in one run.

    python tests/benchmarks/bench_attacks.py

Each line: name, ratio, what was measured. Loops are timed on a part and scaled, and say so. The peer is
installed into a folder of its own, for this run only; without a package index its line says so.
"""

from __future__ import annotations

import importlib
import os
import platform
import subprocess
import sys
import tempfile
import time
import tracemalloc
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from scipy.stats import binom, norm

from edgeprivacy.attacks import Signals, attacks
from edgeprivacy.attacks.rmia import rmia_scores
from edgeprivacy.metrics.epsilon import one_run_audit
from edgeprivacy.metrics.intervals import bootstrap
from edgeprivacy.metrics.roc import Roc

PEER = "tensorflow-privacy==0.8.12"  # 0.9.0 holds no advanced_mia


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

    def by_sorting() -> np.ndarray[Any, Any]:
        """One pass without a loop over rows: shadows of the other side are sorted to the end."""
        found = []
        for side in (members[1:], ~members[1:]):
            count, some = side.sum(axis=0), np.where(side, phi[1:], np.inf)
            ordered = np.sort(some, axis=0)
            middle = [ordered[where, np.arange(rows)] for where in ((count - 1) // 2, count // 2)]
            mean = np.where(side, phi[1:], 0).sum(axis=0) / count
            spread = np.sqrt((np.where(side, phi[1:] - mean, 0) ** 2).sum(axis=0) / count) + 1e-30
            found.append(norm.logpdf(phi[0], (middle[0] + middle[1]) / 2, spread))
        return np.asarray(found[0] - found[1])

    scores = attacks["lira.online"](signals, 0).values
    np.testing.assert_allclose(scores[:part], loop(), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(scores, by_sorting(), rtol=1e-6, atol=1e-6)
    ours, theirs = seconds(lambda: attacks["lira.online"](signals, 0)), seconds(loop, 1) * rows / part
    size = f"{shadows} shadows x {rows} rows: {ours:.3f} s"
    report("lira.online", theirs / ours, f"{size}; "
           f"per-row loop of scipy {theirs:.1f} s (measured on {part} rows, scaled)")  # fmt: skip
    one_pass = seconds(by_sorting)
    report("lira.online", one_pass / ours, f"{size}; one pass of numpy by sorting {one_pass:.3f} s")
    with tempfile.TemporaryDirectory() as folder:
        peer = peer_lira(Path(folder))
        if peer is None:
            print(f"lira.online                not measured against {PEER}: it could not be installed")
            return
        sides = [
            [phi[1:, row][side[1:, row]][:, None] for row in range(rows)] for side in (members, ~members)
        ]
        target = [phi[0, row : row + 1] for row in range(rows)]

        def theirs_all() -> Any:
            return peer.compute_score_lira(target, sides[0], sides[1])

        np.testing.assert_allclose(scores, -theirs_all(), rtol=1e-6, atol=1e-6)
        slow = seconds(theirs_all, 1)
        report("lira.online", slow / ours, f"{size}; {PEER} advanced_mia {slow:.1f} s")


def peer_lira(folder: Path) -> Any:
    """tensorflow-privacy's module of LiRA; None where it cannot be had. Its package is not imported whole:
    that would ask for an older TensorFlow."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--ignore-requires-python"]
    done = subprocess.run([*pip, "--target", str(folder), PEER], capture_output=True)
    if done.returncode:
        return None
    name = "tensorflow_privacy"
    for part in ("", ".privacy", ".privacy.privacy_tests"):
        package = types.ModuleType(name + part)
        package.__path__ = [str(folder / (name + part).replace(".", "/"))]
        sys.modules[name + part] = package
    inner = f"{name}.privacy.privacy_tests.membership_inference_attack"
    package = types.ModuleType(inner)
    package.__path__ = [str(folder / inner.replace(".", "/"))]
    sys.modules[inner] = package
    return importlib.import_module(f"{inner}.advanced_mia")


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


def one_run(side: int = 25_000) -> None:
    """The one-run bound of epsilon, against bisection over scipy's binomial for one number of guesses."""
    rng = np.random.default_rng(0)
    members = np.zeros(2 * side, dtype=bool)
    members[rng.permutation(2 * side)[:side]] = True
    scores = rng.normal(members, 1.0)

    def ours() -> Any:
        return one_run_audit(scores, members, drawn="independent_coins", delta=1e-5)

    def loop() -> float:
        """Every number of guesses on one half, then the best of them on the other: the bound at delta."""
        found = ours()
        guesses, correct, m = found.guessed_in + found.guessed_out, found.correct, found.n_canaries
        low, high = 0.0, 10.0
        while high - low > 1e-6:
            epsilon = (low + high) / 2
            q = np.exp(epsilon) / (1 + np.exp(epsilon))
            mass = binom.pmf(np.arange(correct), guesses, q)[::-1]
            alpha = (np.cumsum(mass) / np.arange(1, correct + 1)).max()
            p = binom.sf(correct - 1, guesses, q) + 2 * m * 1e-5 * alpha
            low, high = (epsilon, high) if p <= 0.05 else (low, epsilon)
        return low

    assert abs(loop() - ours().epsilon) < 1e-5
    fast, slow = seconds(ours), seconds(loop)
    report("one-run epsilon", slow / fast, f"{side} + {side} canaries, 8 numbers of guesses on one half, "
           f"best on the other, delta 1e-5: {fast:.3f} s; plainly, one: {slow:.3f} s")  # fmt: skip


def report(name: str, ratio: float, details: str) -> None:
    """One line of the table."""
    machine = (
        f"{os.cpu_count()} cores, Python {platform.python_version()}, numpy {np.__version__}, "
        f"scipy {scipy.__version__}"
    )
    print(f"{name:26s} {ratio:8.3g}x  {details} ({machine})", flush=True)


if __name__ == "__main__":
    lira()
    rmia()
    resampling()
    one_run()
