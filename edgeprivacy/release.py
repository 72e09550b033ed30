"""Recipe + split -> release: the one function that makes the file that ships and every shadow of it.

A shadow is a release of another membership. It therefore passes the same training, defense, compression,
converter and runner: the attacker is adaptive by construction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.backends.base import Compressed, Material, Session
from edgeprivacy.cache import Cache
from edgeprivacy.confidences import Confidences
from edgeprivacy.converters import Request
from edgeprivacy.data.dataset import Dataset
from edgeprivacy.data.splits import Split
from edgeprivacy.defenses import make_defense
from edgeprivacy.device_runner import Queries, Runner
from edgeprivacy.files import sha256_arrays, sha256_file
from edgeprivacy.recipe import Recipe
from edgeprivacy.release_choice import Chooser
from edgeprivacy.release_stages import ORIGINAL_FORMAT, Making, Stages
from edgeprivacy.seeding import derive_seed

PARITY_ROWS = 500
ORIGINAL_ARM = "original"


@dataclass(frozen=True)
class PlannedArtifact:
    """One file of a release: which arm of the comparison, which format, which backend, and its name."""

    name: str
    arm: str
    format: str
    backend: str


@dataclass(frozen=True)
class MadeArtifact:
    """One file of a release, in the cache.

    Attributes:
        meta: Facts read back from the file, parity, history.
        confidences: Path of the collected confidences (.npz).
    """

    plan: PlannedArtifact
    file: Path
    meta: dict[str, Any]
    confidences: Path

    def published_name(self, canaries: str | None) -> str:
        """Name of the file in the output folder; one trained on canaries says that it is not to ship."""
        return f"{self.plan.name}{'' if canaries is None else '.audit-only'}{self.file.suffix}"


@dataclass(frozen=True)
class Release:
    """Everything one membership gave: all arms in all formats. `trained` and `cached` name arms."""

    index: int
    artifacts: tuple[MadeArtifact, ...]
    trained: tuple[str, ...]
    cached: tuple[str, ...]


def planned_artifacts(recipe: Recipe, backend: str) -> tuple[PlannedArtifact, ...]:
    """All files that a backend makes of a release of this recipe: the uncompressed original, then every arm
    and format."""
    prefix = f"{backend}-" if len(recipe.backends) > 1 else ""
    name = f"{prefix}original-{ORIGINAL_FORMAT}"
    arms = [
        PlannedArtifact(recipe.artifact_name(format, arm.name, backend), arm.name, format, backend)
        for arm in recipe.arms
        for format in recipe.formats_of(backend)
    ]
    return (PlannedArtifact(name, ORIGINAL_ARM, ORIGINAL_FORMAT, backend), *arms)


def every_artifact(recipe: Recipe) -> tuple[PlannedArtifact, ...]:
    """All files of a release, of all backends and versions; the original stands once a backend."""
    first, *others = [
        [plan for backend in version.backends for plan in planned_artifacts(version, backend)]
        for version in recipe.all_versions
    ]
    return (*first, *(plan for plans in others for plan in plans if plan.arm != ORIGINAL_ARM))


class ReleaseMaker:
    """Makes releases of one recipe with one of its backends, in one process: holds the compiled session and
    the cache.

    Args:
        backend: Which of the recipe's backends.
        open_session: Opens the backend for this recipe. Called only when something has to be made: a release
            that is cached whole needs no framework.
        data: All rows.
        runner: Where the files are run.
        step: Called with a few words after each finished step.
    """

    def __init__(
        self,
        recipe: Recipe,
        backend: str,
        open_session: Callable[[], Session],
        data: Dataset,
        split: Split,
        runner: Runner,
        cache: Cache,
        step: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.recipe, self.backend, self.data, self.split = recipe, backend, data, split
        self.runner, self.cache, self._step = runner, cache, step
        self.queries, self._queries_hash = release_queries(data, split)
        # Spread over the rows, which may lie in the order of their classes.
        test = split.roles["test"]
        spread = np.linspace(0, len(test) - 1, min(PARITY_ROWS, len(test))).round().astype(int)
        probe = data.take(test[spread])
        self._stages = Stages(recipe, backend, open_session, data, runner, cache, probe)
        self._chooser = Chooser(self._stages, self._apart)

    @property
    def session(self) -> Session:
        """The backend, opened when it is first needed; what can fail for the model's reasons fails here."""
        return self._stages.session

    def make(self, index: int) -> Release:
        """The release of one membership: 0 is the target, the others are shadows."""
        stages, making = self._stages, self._making(index)
        original = stages.original(making)
        self._step(ORIGINAL_ARM)
        first, *plans = planned_artifacts(self.recipe, self.backend)
        made = [
            self._file(first, Compressed(original.weights, Request(ORIGINAL_FORMAT)), original.key, making)
        ]
        for section in self.recipe.arms:
            defense, choice = self._chooser.settled(
                section.name, make_defense(section.name, section.settings)
            )
            arm = stages.arm(section.name, defense, making, original)
            start = original if defense.for_original() is None else stages.original(making, arm)
            compressed, key = stages.compressed(start, arm, making)
            self._step(section.name)
            for plan in plans:
                if plan.arm != section.name:
                    continue
                ready, ready_key = compressed, key
                if plan.format.startswith("qat"):
                    ready, ready_key = stages.quantized(compressed, key, arm, making)
                made.append(self._file(plan, ready, ready_key, making, choice))
        confidences = self._collect(made)
        arms = [ORIGINAL_ARM, *(arm.name for arm in self.recipe.arms)]
        return Release(
            index,
            tuple(
                MadeArtifact(plan, file, meta, path)
                for (plan, file, meta), path in zip(made, confidences, strict=True)
            ),
            trained=tuple(arm for arm in arms if arm in making.trained),
            cached=tuple(arm for arm in arms if arm not in making.trained),
        )

    def _making(self, index: int) -> Making:
        given = self.recipe.model.weights
        material = self._material(self.split.roles["pool"][self.split.members(index)])
        seed = derive_seed(self.recipe.seed, "release", index)
        return Making(material, seed, Path(given) if given and index == 0 else None)

    def _apart(self) -> tuple[Making, Dataset]:
        """A release that is never measured, of half of the pool by a coin of its own, and the other half."""
        pool = self.split.roles["pool"]
        seed = derive_seed(self.recipe.seed, "release apart")
        inside = np.random.default_rng(seed).random(len(pool)) < 0.5
        return Making(self._material(pool[inside]), seed), self.data.take(pool[~inside])

    def _material(self, train: NDArray[np.str_]) -> Material:
        others = ("validation", "reference", "calibration")
        return Material(self.data.take(train), *(self.data.take(self.split.roles[role]) for role in others))

    def _file(
        self,
        plan: PlannedArtifact,
        ready: Compressed,
        key: str,
        making: Making,
        choice: str | None = None,
    ) -> tuple[PlannedArtifact, Path, dict[str, Any]]:
        file, meta = self._stages.file(plan.backend, plan.format, ready, key, making.material)
        if choice is not None:
            # Not kept with the file: the same settings given by hand make the same one.
            meta = {**meta, "history": [{"phase": "choice", "notes": [choice]}, *meta["history"]]}
        self._step(plan.name)
        return plan, file, meta

    def _collect(self, made: list[tuple[PlannedArtifact, Path, dict[str, Any]]]) -> list[Path]:
        """Confidences of all files on the same rows."""
        files = [file for _, file, _ in made]
        paths = collected(self.runner, self.cache, files, self.queries, self._queries_hash)
        self._step("collect")
        return paths


def release_queries(data: Dataset, split: Split) -> tuple[Queries, str]:
    """The rows that every file of a release answers, pool and test rows in order, and their hash."""
    rows = data.take(np.concatenate([split.roles["pool"], split.roles["test"]]))
    return Queries(rows.x, rows.ids, rows.y), sha256_arrays(rows.x, rows.ids, rows.y)


def collected(
    runner: Runner, cache: Cache, files: Sequence[Path], queries: Queries, queries_hash: str
) -> list[Path]:
    """Paths of the confidences of files on rows; those not collected yet are run, in one call."""
    keys = [
        cache.key(
            "confidences",
            {"file": sha256_file(file), "queries": queries_hash, "runner": runner.identity(file)},
        )
        for file in files
    ]
    folders = [cache.folder / "confidences" / key[:2] / key for key in keys]
    missing = [position for position, folder in enumerate(folders) if not folder.is_dir()]
    if missing:
        answers = runner.collect([files[position] for position in missing], queries)
        for position, confidences in zip(missing, answers, strict=True):
            cache.entry("confidences", keys[position], partial(_save_confidences, confidences))
    return [folder / "confidences.npz" for folder in folders]


def steps_per_release(recipe: Recipe, backend: str) -> int:
    """How often `step` is called for one release of one backend."""
    return 2 + len(recipe.arms) + len(planned_artifacts(recipe, backend))


def _save_confidences(confidences: Confidences, folder: Path) -> None:
    confidences.save(folder / "confidences.npz")


__all__ = [
    "MadeArtifact",
    "PlannedArtifact",
    "Release",
    "ReleaseMaker",
    "collected",
    "every_artifact",
    "planned_artifacts",
    "release_queries",
    "steps_per_release",
]
