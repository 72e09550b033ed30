"""Sixteen adaptive releases of Location-30 from two one-thread workers, against the loop that everybody
writes (torch DataLoader over a per-row Dataset, plain Adam, validation and test accuracy every epoch, one
model after another) and against a lean loop on sliced tensors, both in one process of one thread.

Ours is `make_releases` with an empty cache: the real thing, conversion and collection included. The baselines
train two releases and are scaled. Early stopping ends each loop's runs at other epochs, so the ratio is that
of seconds an epoch; seconds a release stand beside it. Run it by `make bench`, or:

    python tests/benchmarks/bench_releases.py [--backend tflite|executorch] [--data bangkok] [--jobs 2]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import nn

from edgeprivacy.backends.table import BACKENDS
from edgeprivacy.compressing import _publish as publish
from edgeprivacy.compressing import prepare
from edgeprivacy.compression.magnitude import iterative_sparsity, magnitude_mask
from edgeprivacy.data.dataset import Source
from edgeprivacy.data.splits import Split
from edgeprivacy.environment import package_versions
from edgeprivacy.recipe import Recipe, Run
from edgeprivacy.release import Release
from edgeprivacy.release_audit import audit_releases
from edgeprivacy.shadows import make_releases

ARCHIVE = Path(__file__).parents[3] / "shared" / "data" / "location30.tgz"
RELEASES, BASELINE_RELEASES = 16, 2
ASKED = {"tflite": 5.0, "executorch": 4.0}


@dataclass
class Loop:
    """What a baseline took: wall and processor seconds, epochs and test accuracy of each release."""

    seconds: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)


class PerRow(torch.utils.data.Dataset):
    """Rows one by one, as in every tutorial."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        return torch.from_numpy(self.x[row]), int(self.y[row])


class Rows:
    """Batches of sliced tensors; a new order each time where they are shuffled."""

    def __init__(self, x: np.ndarray, y: np.ndarray, batch: int, shuffle: bool) -> None:
        self.x, self.y, self.batch, self.shuffle = torch.from_numpy(x), torch.from_numpy(y), batch, shuffle

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        x, y = self.x, self.y
        if self.shuffle:
            order = torch.randperm(len(y))
            x, y = x[order], y[order]
        return iter(zip(x.split(self.batch), y.split(self.batch), strict=True))


def network(features: int, classes: int, dropout: float) -> nn.Sequential:
    """The built-in mlp, without its softmax."""
    model = nn.Sequential(
        *(nn.Linear(features, 256), nn.ReLU(), nn.Dropout(dropout)),
        *(nn.Linear(256, 128), nn.ReLU(), nn.Dropout(dropout)),
        nn.Linear(128, classes),
    )
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_normal_(layer.weight)
    return model


def accuracy(model: nn.Module, batches: Any) -> float:
    """Share of rows whose top class is right."""
    model.eval()
    right = rows = 0
    with torch.no_grad():
        for x, y in batches:
            right += int((model(x).argmax(1) == y).sum())
            rows += len(y)
    return right / rows


def one_release(
    recipe: Recipe, model: nn.Sequential, train: Any, validation: Any, test: Any, fused: bool
) -> tuple[int, float]:
    """An original and its iterative pruning with early stopping; epochs trained, and test accuracy.

    Args:
        test: Looked at every epoch, and not used, as everybody does; None to look once at the end.
    """
    training, prune = recipe.training, recipe.prune
    masks: dict[nn.Parameter, torch.Tensor] = {}

    def fit(epochs: int) -> tuple[dict[str, torch.Tensor], int]:
        settings = {"lr": training.learning_rate, "weight_decay": training.weight_decay}
        optimizer = torch.optim.Adam(model.parameters(), **settings, **({"fused": True} if fused else {}))
        best, best_state, waited, epoch = -1.0, {}, 0, 0
        while epoch < epochs and waited <= training.patience:
            epoch += 1
            model.train()
            for x, y in train:
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
                with torch.no_grad():
                    for weight, mask in masks.items():
                        weight *= mask
            reached = accuracy(model, validation)
            if test is not None:
                accuracy(model, test)
            if reached > best:
                best, best_state, waited = reached, deepcopy(model.state_dict()), 0
            else:
                waited += 1
        return best_state, epoch

    best, total = fit(training.epochs)
    model.load_state_dict(best)
    for sparsity in iterative_sparsity(prune.sparsity, prune.iterations):
        for layer in (model[0], model[3]):
            mask = magnitude_mask(layer.weight.detach().numpy(), sparsity)
            masks[layer.weight] = torch.from_numpy(mask).float()
        best, epochs = fit(prune.finetune_epochs)
        total += epochs
    model.load_state_dict(best)
    return total, accuracy(model, test if test is not None else validation)


def baseline(recipe: Recipe, source: Source, split: Split, everybody: bool, count: int) -> Loop:
    """Train the first releases by a loop of the usual kind, one after another, one thread."""
    torch.set_num_threads(1)
    data, batch, loop = source.pool, recipe.training.batch_size, Loop()

    def batches(rows: Any, shuffle: bool) -> Any:
        x, y = np.ascontiguousarray(rows.x, dtype=np.float32), rows.y
        if everybody:
            return torch.utils.data.DataLoader(PerRow(x, y), batch_size=batch, shuffle=shuffle)
        return Rows(x, y, batch, shuffle)

    validation, test = (batches(data.take(split.roles[role]), False) for role in ("validation", "test"))
    for number in range(count):
        torch.manual_seed(number)
        train = batches(data.take(split.roles["pool"][split.members(number)]), True)
        model = network(data.x.shape[1], data.classes, recipe.model.dropout)
        started, computed = time.perf_counter(), time.process_time()
        epochs, reached = one_release(
            recipe, model, train, validation, test if everybody else None, not everybody
        )
        loop.seconds.append(time.perf_counter() - started)
        loop.processor.append(time.process_time() - computed)
        loop.epochs.append(epochs)
        loop.accuracies.append(reached if everybody else accuracy(model, test))
    return loop


@dataclass
class Ours:
    """Wall seconds of our stages for all releases, and the epochs they trained.

    `start` is what a worker needs to import the framework and to open the session, measured alone; a baseline
    is not charged for its imports either. `processor` is what training computed, over all workers.
    """

    start: float
    train: float
    processor: float
    convert: float
    collect: float
    attack: float
    epochs: int
    accuracy: float

    @property
    def rest(self) -> float:
        """Seconds that are not training."""
        return self.convert + self.collect + self.attack


def ours(recipe: Recipe, source: Source, split: Split, folder: Path, jobs: int) -> Ours:
    """All releases from an empty cache; again without the files; again without the confidences alone: what
    each stage costs in the real workers is the difference."""
    cache = folder / "cache"

    def run() -> tuple[float, float, list[Release]]:
        began, computed = time.perf_counter(), _processor_seconds_of_ended_children()
        releases = make_releases(recipe, source.pool, split, cache, jobs=jobs)
        return time.perf_counter() - began, _processor_seconds_of_ended_children() - computed, releases

    whole, whole_processor, _ = run()
    for stage in ("artifact", "confidences"):
        shutil.rmtree(cache / stage)
    untrained, untrained_processor, _ = run()
    shutil.rmtree(cache / "confidences")
    collect, _, releases = run()
    start = opening(recipe, source)
    publish(folder, releases[0])
    began = time.perf_counter()
    audit = audit_releases(recipe, Run(jobs=jobs), source, split, releases, folder, time.monotonic())
    attack = time.perf_counter() - began
    phases = [
        phase
        for stage in ("original", "compressed")
        for path in (cache / stage).glob("*/*/meta.json")
        for phase in json.loads(path.read_text())["history"]
    ]
    return Ours(
        start,
        train=whole - untrained,
        processor=whole_processor - untrained_processor,
        convert=max(0.0, untrained - collect - start),
        collect=collect,
        attack=attack,
        epochs=sum(phase.get("epochs", 0) for phase in phases),
        accuracy=audit.artifacts[1].utility.test_accuracy.value,
    )


def _processor_seconds_of_ended_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def opening(recipe: Recipe, source: Source) -> float:
    """Seconds that a fresh process takes to import the backend and to open a session."""
    code = (
        "import sys, time; began = time.perf_counter()\n"
        "from edgeprivacy.backends.table import open_backend\n"
        "from edgeprivacy.recipe import Recipe\n"
        "open_backend(sys.argv[1]).open(Recipe.build({'data': {'source': 'location'}}), "
        "int(sys.argv[2]), (int(sys.argv[3]),))\n"
        "print(time.perf_counter() - began)"
    )
    arguments = [recipe.backend, str(source.pool.classes), str(source.pool.x.shape[1])]
    process = [sys.executable, "-c", code, *arguments]
    ended = subprocess.run(process, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return float(ended.stdout.splitlines()[-1])


def report(backend: str, recipe: Recipe, source: Source, split: Split, jobs: int, count: int) -> None:
    """Measure both sides in this run, and print a line a figure."""
    with tempfile.TemporaryDirectory(prefix="edgeprivacy-bench-") as folder:
        made = ours(recipe, source, split, Path(folder), jobs)
    releases, total = split.models, made.start + made.train + made.rest
    print(
        f"{backend}: {releases} releases, {jobs} workers: training {made.train:.1f} s, {made.epochs} epochs, "
        f"{1e3 * made.train / made.epochs:.1f} ms each; import and opening {made.start:.1f} s\n"
        f"{backend}: convert {made.convert:.1f} s, collect {made.collect:.1f} s, attack {made.attack:.1f} s: "
        f"{made.rest / total:.0%} of {total:.1f} s (asked: below a third); test accuracy of the file "
        f"{made.accuracy:.3f}",
        flush=True,
    )
    for name, everybody in (("the loop that everybody writes", True), ("a lean loop", False)):
        loop = baseline(recipe, source, split, everybody, count)
        epochs = sum(loop.epochs)
        scaled = sum(loop.seconds) / epochs * made.epochs
        by_release = float(np.mean(loop.seconds)) * releases
        by_processor = sum(loop.processor) / epochs * made.epochs / made.processor
        asked = f" (asked {ASKED[backend]:.0f}x)" if everybody else ""
        print(
            f"{backend}: {scaled / made.train:.1f}x {name}{asked}, {scaled / (made.train + made.start):.1f}x "
            f"with our start: {1e3 * sum(loop.seconds) / epochs:.1f} ms an epoch, {epochs} epochs in {count} "
            f"releases, scaled to our epochs (scaled to {releases} releases {by_release / made.train:.1f}x); "
            f"by processor time {by_processor:.2f}x a core; test accuracy {np.mean(loop.accuracies):.3f}",
            flush=True,
        )


def main() -> None:
    """Both backends that are installed, or the one that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", choices=list(BACKENDS), help="default: all")
    parser.add_argument("--data", type=Path, help="Location-30's file `bangkok` (CSV, class first)")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--releases", type=int, default=RELEASES)
    parser.add_argument("--baselines", type=int, default=BASELINE_RELEASES, help="releases a baseline trains")
    asked = parser.parse_args()
    if asked.data is None and not ARCHIVE.is_file():
        print("releases: skipped, Location-30 is not beside the project (give it with --data)")
        return
    print(
        f"# {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {platform.machine()}; {package_versions()}"
    )
    with tempfile.TemporaryDirectory(prefix="edgeprivacy-bench-") as folder:
        file = asked.data
        if file is None:
            with tarfile.open(ARCHIVE) as archive:
                archive.extract("bangkok", folder, filter="data")
            file = Path(folder) / "bangkok"
        for backend in [asked.backend] if asked.backend else BACKENDS:
            recipe = Recipe.build(
                {
                    "backend": backend,
                    "data": {"source": str(file), "header": False, "label": "0"},
                    "audit": {"shadows": asked.releases - 1},
                }
            )
            source, split = prepare(recipe, Run())
            report(backend, recipe, source, split, asked.jobs, asked.baselines)


if __name__ == "__main__":
    main()
