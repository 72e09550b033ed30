"""False alarms and coverage over hundreds of simulated audits whose truth is known.

    python tests/benchmarks/honest_audits.py [AUDITS]

First, audits of models that leak nothing: each attack's scores are tested for membership (rank sum, level
5 %), and all attacks together go through the permuted-labels null test at its own level. Second, audits whose
AUC, TPR at 1 % FPR and balanced accuracy are known in closed form: how often 95 % intervals hold the truth.
Third, randomized response, whose epsilon is known: how often the one-run bound lies above it.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit
from scipy.stats import binom, norm

from edgeprivacy import nulls
from edgeprivacy.attacks import attacks, score_target, shadow_calibration
from edgeprivacy.metrics.epsilon import one_run_audit
from edgeprivacy.metrics.intervals import balanced_accuracy_interval, bootstrap
from edgeprivacy.metrics.null_tests import rank_sum_test
from edgeprivacy.metrics.roc import Roc

MODELS, ROWS, POPULATION = 7, 240, 120
MEMBERS = 2000
LEVEL = 0.05
TRUE_EPSILON = 1.0


def simulate() -> Callable[..., Any]:
    """The simulated models of the attacks' tests."""
    path = Path(__file__).parents[1] / "attacks" / "conftest.py"
    spec = importlib.util.spec_from_file_location("simulated", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Callable[..., Any] = module.simulate
    return found


def honest_audit(seed: int) -> tuple[dict[str, float], bool | None]:
    """p-value of each attack on models that remember nothing, and whether the null test passed."""
    signals = simulate()(models=MODELS, rows=ROWS, population=POPULATION, gain=0.0, seed=seed)
    members, scores = signals.members[0], {}
    for name in attacks.names():
        attack = attacks[name]
        if name.endswith(".faithful") or attack.missing(signals, shadow_calibration(signals, 0)):
            continue
        scores[name] = score_target(attack, signals, seed=seed).values
    found = {
        name: rank_sum_test(values[members], values[~members]).p_value for name, values in scores.items()
    }
    return found, nulls.permuted_labels(scores, members, 200, seed).passed


def known_audit(seed: int) -> dict[str, bool]:
    """Whether each interval holds the truth of two Gaussians that lie 1 apart."""
    rng, shift = np.random.default_rng(seed), 1.0
    scores = np.concatenate([rng.normal(shift, 1, MEMBERS), rng.normal(0, 1, MEMBERS)])
    inside = np.arange(2 * MEMBERS) < MEMBERS
    roc = Roc.from_scores(scores, inside)
    drawn = bootstrap(roc, (0.01, 0.001), 1000, seed)
    called = scores > shift / 2
    hits, alarms = int(called[inside].sum()), int(called[~inside].sum())
    truths = {
        "auc": (norm.cdf(shift / np.sqrt(2)), drawn.auc_interval()),
        "tpr at 1% fpr": (norm.sf(norm.isf(0.01) - shift), drawn.tpr_interval(0.01)),
        "tpr at 0.1% fpr": (norm.sf(norm.isf(0.001) - shift), drawn.tpr_interval(0.001)),
        "balanced accuracy": (
            norm.cdf(shift / 2),
            balanced_accuracy_interval(hits, MEMBERS, alarms, MEMBERS),
        ),
    }
    return {name: bool(low <= truth <= high) for name, (truth, (low, high)) in truths.items()}


def one_run_exceeds(seed: int) -> bool:
    """Whether the one-run bound lies above the truth: each of 2,000 coins told rightly with odds e^1."""
    rng = np.random.default_rng(seed)
    coins = rng.random(MEMBERS) < 0.5
    told = np.where(rng.random(MEMBERS) < expit(TRUE_EPSILON), coins, ~coins)
    return (
        one_run_audit(told.astype(float), coins, drawn="independent_coins", seed=seed).epsilon > TRUE_EPSILON
    )


def main(audits: int) -> int:
    """Print both tables; 1 where a rate is beyond what chance allows."""
    began, bad = time.monotonic(), 0
    most = int(binom.isf(0.001, audits, LEVEL))  # some fifty attacks are looked at
    with ProcessPoolExecutor(2) as pool:
        honest = list(pool.map(honest_audit, range(audits), chunksize=4))
        known = list(pool.map(known_audit, range(audits), chunksize=16))
    print(f"{audits} audits of models that remember nothing, {ROWS} rows, {MODELS - 1} shadows; "
          f"at {LEVEL:.0%} an attack may be wrong up to {most} times")  # fmt: skip
    for name in honest[0][0]:
        wrong = sum(found[name] < LEVEL for found, _ in honest)
        bad += wrong > most
        print(f"  {name:28s} {wrong:3d}  {wrong / audits:6.1%}{'  TOO OFTEN' if wrong > most else ''}")
    exceeded = sum(map(one_run_exceeds, range(audits)))
    bad += exceeded > int(binom.isf(0.01, audits, LEVEL))
    alarms = sum(passed is False for _, passed in honest)
    allowed = int(binom.isf(0.05, audits, nulls.FAMILY_LEVEL))
    bad += alarms > allowed
    print(f"null test permuted-labels: {alarms} false alarms of {audits}; its level allows {allowed}")
    print(f"95 % intervals over {audits} audits of known truth, {MEMBERS} + {MEMBERS} rows")
    for name in known[0]:
        print(f"  {name:18s} covers {sum(entry[name] for entry in known) / audits:6.1%}")
    print(f"one-run epsilon above the true {TRUE_EPSILON:g}: {exceeded} of {audits} (level {LEVEL:.0%})")
    print(f"{time.monotonic() - began:.0f} s")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200))
