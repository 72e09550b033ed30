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
from dataclasses import dataclass
from functools import partial

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from edgeprivacy.backends import open_backend
from edgeprivacy.backends.base import Compressed, Material, Session
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


def least(*functions: Callable[[], object], runs: int) -> list[float]:
    """Least processor seconds of each function in several runs, of which the first compiles; they take turns.
    On a busy machine processor seconds are steadier than those of the clock."""
    seconds: list[list[float]] = [[] for _ in functions]
    for _ in range(runs):
        for function, taken in zip(functions, seconds, strict=True):
            started = time.process_time()
            function()
            taken.append(time.process_time() - started)
    return [min(taken) for taken in seconds]


@dataclass(frozen=True)
class Cost:
    """What one defense costs.

    Attributes:
        prepared: Processor seconds of what it prepares of the rows, as a multiple of a plain original's; None
            where it prepares nothing.
        original: The original's under the defense, likewise; None where it leaves the plain one.
        pruning: The pruning phase's, as a multiple of the undefended one's.
        causes: Why, in a few words.
    """

    prepared: float | None
    original: float | None
    pruning: float
    causes: str


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
        self._plain = self._trained()
        (self.original,) = least(self._trained, runs=2)
        (self.pruning,) = least(self._undefended, runs=2)

    def measure(self, name: str) -> Cost:
        """Prepare, train and compress under a defense, in turns with no defense."""
        defense = make_defense(name)
        if (chosen_from := defense.candidates()) is not None:
            defense = chosen_from.defenses[0]
        defense = defense.planned(*planned_steps(self.recipe, defense, TRAIN_ROWS))
        rows, prepared = self.making.rows, None
        for preparation in defense.preparations():
            models = SubModels(self.session, self.making, self._plain)
            started = time.process_time()
            array = preparation.make(self.making.rows, models)
            prepared = (prepared or 0.0) + (time.process_time() - started) / self.original
            rows = rows.knowing(preparation.name, array)
        original = None
        if (by := defense.for_original()) is not None:
            defended = partial(self.session.train, self.material, 0, defense=by, rows=rows)
            plain, own = least(self._trained, defended, runs=2)
            original = own / plain
        undefended, phase = least(self._undefended, partial(self._compressed, defense, rows), runs=3)
        return Cost(prepared, original, phase / undefended, causes(defense, rows, self.recipe))

    def _trained(self) -> Original:
        weights, summary = self.session.train(self.material, 0)
        return Original(weights, "", (summary,))

    def _compressed(self, defense: Defense, rows: TrainingRows) -> Compressed:
        return self.session.compress(self._plain.weights, self.material, defense, rows, 0)

    def _undefended(self) -> Compressed:
        return self._compressed(make_defense("none"), self.making.rows)


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
    measured: dict[str, Cost] = {}
    for name in names:
        try:
            cost = measured[name] = costs.measure(name)
        except EdgePrivacyError as error:
            print(f"{backend}: {name}: not measured: {error}", flush=True)
            continue
        parts = [f"pruning phase {cost.pruning:.2f}x"]
        if cost.original is not None:
            parts.insert(0, f"original {cost.original:.2f}x")
        if cost.prepared is not None:
            parts.insert(0, f"prepared {cost.prepared:.2f} originals")
        print(f"{backend}: {name}: {', '.join(parts)}: {cost.causes}", flush=True)
    for name in filter(measured.__contains__, LIMITS):
        ratio, limit = measured[name].pruning, LIMITS[name]
        print(
            f"{backend}: {name}: {ratio:.2f}x of the undefended pruning phase (asked: at most {limit}x: "
            f"{'met' if ratio <= limit else 'NOT met'})",
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
