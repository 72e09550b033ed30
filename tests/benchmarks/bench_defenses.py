"""What each defense costs, against no defense in the same run, on both backends: processor seconds of what it
prepares, of the original where it trains that, and of the pruning phase. Binary rows of Location-30's shape,
WeMem's schedule (5 x 21 epochs), no early stop. Asked: at most 0.4x of the undefended pruning phase for RSW,
0.6x for SWMR.

Every defense of the registry is measured, and compositions that are named. Run it by `make bench`, or:

    python tests/benchmarks/bench_defenses.py [--backend tflite|executorch] [NAME ...]
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from edgeprivacy.backends import open_backend
from edgeprivacy.backends.base import Material, Session
from edgeprivacy.backends.planning import planned_steps
from edgeprivacy.backends.table import BACKENDS
from edgeprivacy.data.dataset import Dataset
from edgeprivacy.defenses import Defense, TrainingRows, defenses, make_defense
from edgeprivacy.environment import package_versions
from edgeprivacy.errors import EdgePrivacyError
from edgeprivacy.recipe import Recipe
from edgeprivacy.release_stages import Making, Original
from edgeprivacy.release_stages import _SubModels as SubModels

FEATURES, CLASSES, TRAIN_ROWS, OTHER_ROWS = 446, 30, 1800, 300
LIMITS = {"wemem": 0.4, "wemem:swmr": 0.6}
ORIGINAL_EPOCHS = 30
RUNS = 3


def location_like() -> Material:
    """Binary rows around a prototype of each class."""
    rng = np.random.default_rng(0)
    rows = TRAIN_ROWS + 3 * OTHER_ROWS
    y = rng.integers(0, CLASSES, rows)
    x = (rng.random((CLASSES, FEATURES))[y] * 0.5 > rng.random((rows, FEATURES))).astype(np.float32)
    ids = np.arange(rows).astype(np.str_)
    data = Dataset(x, y, ids, CLASSES, tuple(map(str, range(CLASSES))), "location-like")
    parts = np.split(ids, np.cumsum([TRAIN_ROWS, OTHER_ROWS, OTHER_ROWS]))
    return Material(*(data.take(part) for part in parts))


def least(function: Callable[[], object], runs: int = RUNS) -> float:
    """Least processor seconds of several runs, of which the first compiles: on a busy machine steadier than
    those of the clock."""
    seconds = []
    for _ in range(runs):
        started = time.process_time()
        function()
        seconds.append(time.process_time() - started)
    return min(seconds)


class Costs:
    """Measures defenses on one backend.

    Args:
        backend: Its name.
    """

    def __init__(self, backend: str) -> None:
        self.material = location_like()
        settings = {"epochs": ORIGINAL_EPOCHS, "patience": 10_000}
        self.recipe = Recipe.build(
            {"backend": backend, "data": {"source": "location-like"}, "training": settings}
        )
        self.session: Session = open_backend(backend).open(self.recipe, CLASSES, (FEATURES,))
        self.making = Making(self.material, seed=0)
        self.original = least(lambda: self.session.train(self.material, 0))
        weights, summary = self.session.train(self.material, 0)
        self._plain = Original(weights, "", (summary,))
        self.pruning = self._pruning(make_defense("none"), self.making.rows)

    def measure(self, name: str) -> tuple[float | None, float | None, float, str]:
        """Seconds of training the original and of preparing, None where the defense does neither, seconds of
        the pruning phase, and the causes."""
        defense = make_defense(name)
        if (chosen_from := defense.candidates()) is not None:
            defense = chosen_from.defenses[0]
        defense = defense.planned(*planned_steps(self.recipe, defense, TRAIN_ROWS))
        rows, prepared = self.making.rows, None
        for preparation in defense.preparations():
            started = time.process_time()
            array = preparation.make(self.making.rows, SubModels(self.session, self.making, self._plain))
            prepared = (prepared or 0.0) + time.process_time() - started
            rows = rows.knowing(preparation.name, array)
        by, original = defense.for_original(), None
        if by is not None:
            original = least(lambda: self.session.train(self.material, 0, defense=by, rows=rows), 2)
        return original, prepared, self._pruning(defense, rows), causes(defense, rows, self.recipe)

    def _pruning(self, defense: Defense, rows: TrainingRows) -> float:
        weights = self._plain.weights
        return least(lambda: self.session.compress(weights, self.material, defense, rows, 0))


def causes(defense: Defense, rows: TrainingRows, recipe: Recipe) -> str:
    """What makes a defense's phases longer or shorter, from what it declares; "-" for nothing."""
    found = [preparation.told for preparation in defense.preparations()]
    if defense.private() is not None:
        found.append("per-row gradients")
    if defense.opponent() is not None:
        found.append("a second network")
    if defense.wants_others:
        found.append("reference rows beside each batch")
    if defense.admm() is not None:
        found.append("ADMM in the place of the schedule")
    if defense.rewinding() is not None:
        found.append("scored weights, a last fine-tuning")
    if any(type(part).loss is not Defense.loss for part in getattr(defense, "parts", (defense,))):
        found.append("a loss of its own")
    if defense.mixing:
        found.append("blended rows")
    share = seen_share(defense, rows, recipe)
    if abs(share - 1) > 0.005:
        found.append(f"{'fewer' if share < 1 else 'more'} rows ({share:.0%})")
    return ", ".join(found) or "-"


def seen_share(defense: Defense, rows: TrainingRows, recipe: Recipe) -> float:
    """Rows that one pruning iteration passes, as a share of those without a defense."""
    epochs, seen = recipe.prune.finetune_epochs, 0
    for epoch in range(epochs):
        passes = defense.epoch(rows, epoch, epochs, recipe.training.weight_decay, np.random.default_rng(0))
        if not passes:
            break
        seen += sum(len(entry.rows) for entry in passes)
    return seen / (epochs * len(rows.labels))


def report(backend: str, names: list[str]) -> None:
    """A line a defense, then those that have a limit."""
    costs = Costs(backend)
    print(
        f"{backend}: none: original {costs.original:.2f} s, pruning phase {costs.pruning:.2f} s", flush=True
    )
    pruning = {}
    for name in names:
        try:
            original, prepared, pruning[name], why = costs.measure(name)
        except EdgePrivacyError as error:
            print(f"{backend}: {name}: not measured: {error}", flush=True)
            continue
        parts = [f"pruning phase {pruning[name] / costs.pruning:.2f}x"]
        if original is not None:
            parts.insert(0, f"original {original / costs.original:.2f}x")
        if prepared is not None:
            parts.insert(0, f"prepared {prepared / costs.original:.2f} originals")
        print(f"{backend}: {name}: {', '.join(parts)}: {why}", flush=True)
    for name in filter(pruning.__contains__, LIMITS):
        ratio = pruning[name] / costs.pruning
        print(
            f"{backend}: {name}: {ratio:.2f}x of the undefended pruning phase (asked: at most "
            f"{LIMITS[name]}x: {'met' if ratio <= LIMITS[name] else 'NOT met'})",
            flush=True,
        )


def main() -> None:
    """Both backends, or the one that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="defenses (default: all that are registered)")
    parser.add_argument("--backend", choices=list(BACKENDS), help="default: both")
    asked = parser.parse_args()
    print(
        f"# {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {platform.machine()}; {package_versions()}"
    )
    names = asked.names or [name for name in defenses.names() if name != "none"]
    for backend in [asked.backend] if asked.backend else BACKENDS:
        report(backend, names)


if __name__ == "__main__":
    main()
