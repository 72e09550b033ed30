"""Recipe + split -> release: the one function that makes the file that ships and every shadow of it.

A shadow is a release of another membership. It therefore passes the same training, defense, compression,
converter and runner: the attacker is adaptive by construction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.backends.base import Compressed, Material, Session, Weights
from edgeprivacy.backends.table import BACKENDS, backend_versions
from edgeprivacy.cache import Cache, read_meta
from edgeprivacy.confidences import Confidences
from edgeprivacy.converters import Request
from edgeprivacy.converters.parity import parity
from edgeprivacy.data.dataset import Dataset
from edgeprivacy.data.splits import Split
from edgeprivacy.defenses import Defense, TrainingRows, make_defense
from edgeprivacy.defenses.wemem import (
    MEMORABILITY_EPOCHS,
    MEMORABILITY_FOLDS,
    assign_folds,
    fold_memorability,
)
from edgeprivacy.device_runner import Queries, Runner
from edgeprivacy.files import read_npz, sha256_arrays, sha256_file, write_json, write_npz
from edgeprivacy.recipe import Recipe
from edgeprivacy.release_keys import (
    defense_identity,
    load_weights,
    model_identity,
    rows_identity,
    save_weights,
    training_identity,
)
from edgeprivacy.seeding import derive_seed, generator

PARITY_ROWS = 500
ORIGINAL_ARM = "original"
ORIGINAL_FORMAT = "float32"
# Raised when the same inputs would give another release: it is part of every key.
RELEASE_VERSION = 4


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


@dataclass(frozen=True)
class _Arm:
    """One defense at work on one release; `trained` collects the stages that were made, not found."""

    defense: Defense
    material: Material
    rows: TrainingRows
    seed: int
    trained: list[str] = field(default_factory=list)


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
        self._open_session = open_session
        self.runner, self.cache, self._step = runner, cache, step
        self._base = {
            "release_version": RELEASE_VERSION,
            "backend": backend,
            "versions": backend_versions(backend),
            "model": model_identity(recipe),
            "training": training_identity(recipe),
            "classes": data.classes,
            "scale": recipe.input_scale(data.input_shape),
        }
        self.queries, self._queries_hash = release_queries(data, split)
        # Spread over the rows, which may lie in the order of their classes.
        test = split.roles["test"]
        spread = np.linspace(0, len(test) - 1, min(PARITY_ROWS, len(test))).round().astype(int)
        self._probe = data.take(test[spread]).x
        self._probe_hash = sha256_arrays(self._probe)

    @cached_property
    def session(self) -> Session:
        """The backend, opened when it is first needed; what can fail for the model's reasons fails here."""
        session = self._open_session()
        session.check()
        return session

    def make(self, index: int) -> Release:
        """The release of one membership: 0 is the target, the others are shadows."""
        seed = derive_seed(self.recipe.seed, "release", index)
        pool = self.split.roles["pool"]
        material = Material(
            self.data.take(pool[self.split.members(index)]),
            *(self.data.take(self.split.roles[role]) for role in ("validation", "reference", "calibration")),
        )
        trained: list[str] = []
        original, key = self._original(material, index, seed, trained)
        made = []
        self._step("original")
        plain = Compressed(original, Request(ORIGINAL_FORMAT))
        plans = planned_artifacts(self.recipe, self.backend)
        made.append(self._artifact(plans[0], plain, key, material))
        for section in self.recipe.arms:
            defense = make_defense(section.name, section.settings)
            rows = self._training_rows(defense, material, seed)
            defense.check(rows)
            arm = _Arm(defense, material, rows, seed)
            compressed, arm_key = self._compressed(original, key, arm)
            self._step(section.name)
            for plan in plans:
                if plan.arm != section.name:
                    continue
                ready, ready_key = compressed, arm_key
                if plan.format.startswith("qat"):
                    ready, ready_key = self._quantized(compressed, arm_key, arm)
                made.append(self._artifact(plan, ready, ready_key, material))
            if arm.trained:
                trained.append(section.name)
        confidences = self._collect(made)
        arms = [ORIGINAL_ARM, *(arm.name for arm in self.recipe.arms)]
        return Release(
            index,
            tuple(
                MadeArtifact(plan, file, meta, path)
                for (plan, file, meta), path in zip(made, confidences, strict=True)
            ),
            trained=tuple(arm for arm in arms if arm in trained),
            cached=tuple(arm for arm in arms if arm not in trained),
        )

    def _original(self, material: Material, index: int, seed: int, trained: list[str]) -> tuple[Weights, str]:
        given = Path(self.recipe.model.weights) if self.recipe.model.weights and index == 0 else None
        key = self.cache.key(
            "original",
            {
                **self._base,
                "rows": rows_identity(material.train, material.validation),
                "seed": seed,
                "given": None if given is None else sha256_file(given),
            },
        )

        def make(folder: Path) -> None:
            if given is not None:
                weights, summary = self.session.load_weights(given), {"phase": "given"}
            else:
                weights, summary = self.session.train(material, seed)
            save_weights(folder / "weights.npz", weights)
            write_json(folder / "meta.json", {"history": [summary]})

        entry, new = self.cache.entry("original", key, make)
        if new:
            trained.append(ORIGINAL_ARM)
        return load_weights(entry / "weights.npz"), key

    def _training_rows(self, defense: Defense, material: Material, seed: int) -> TrainingRows:
        train = material.train
        if not defense.needs_memorability:
            return TrainingRows(train.y, train.classes)
        key = self.cache.key(
            "memorability",
            {
                **self._base,
                "rows": rows_identity(train),
                "seed": seed,
                "folds": MEMORABILITY_FOLDS,
                "epochs": MEMORABILITY_EPOCHS,
            },
        )

        def make(folder: Path) -> None:
            fold = assign_folds(train.y, MEMORABILITY_FOLDS, generator(seed, "folds"))

            def true_class_probability(k: int) -> NDArray[np.float64]:
                part = train.take(train.ids[fold == k])
                weights = self.session.train_plain(
                    part, MEMORABILITY_EPOCHS, derive_seed(seed, "memorability", k)
                )
                probabilities = self.session.predict(weights, train.x)
                return np.asarray(probabilities[np.arange(len(train)), train.y], dtype=np.float64)

            write_npz(
                folder / "scores.npz",
                scores=fold_memorability(true_class_probability, fold, MEMORABILITY_FOLDS),
            )

        entry, _ = self.cache.entry("memorability", key, make)
        return TrainingRows(train.y, train.classes, read_npz(entry / "scores.npz")["scores"])

    def _compressed(self, original: Weights, original_key: str, arm: _Arm) -> tuple[Compressed, str]:
        recipe = self.recipe
        key = self.cache.key(
            "compressed",
            {
                "original": original_key,
                "defense": defense_identity(arm.defense),
                "phases": recipe.defense_phases if recipe.cluster.clusters else "all",
                "prune": recipe.prune.model_dump(mode="json"),
                "cluster": recipe.cluster.model_dump(mode="json"),
                "seed": arm.seed,
            },
        )

        def make(folder: Path) -> None:
            compressed = self.session.compress(original, arm.material, arm.defense, arm.rows, arm.seed)
            save_weights(folder / "weights.npz", compressed.weights)
            write_json(
                folder / "meta.json",
                {
                    "history": [
                        {"phase": "defense", "notes": arm.defense.notes(arm.rows)},
                        *compressed.history,
                    ],
                    "sparsity": list(compressed.request.sparsity),
                    "clusters": list(compressed.request.clusters),
                },
            )

        entry, new = self.cache.entry("compressed", key, make)
        if new:
            arm.trained.append("compressed")
        meta = read_meta(entry)
        request = Request(ORIGINAL_FORMAT, tuple(meta["sparsity"]), tuple(meta["clusters"]))
        weights = load_weights(entry / "weights.npz")
        return Compressed(weights, request, history=tuple(meta["history"])), key

    def _quantized(self, compressed: Compressed, compressed_key: str, arm: _Arm) -> tuple[Compressed, str]:
        recipe = self.recipe
        key = self.cache.key(
            "quantized",
            {
                "compressed": compressed_key,
                "phases": recipe.defense_phases,
                "quantize": recipe.quantize.model_dump(mode="json"),
                "seed": arm.seed,
            },
        )

        def make(folder: Path) -> None:
            ready = self.session.quantize_aware(compressed, arm.material, arm.defense, arm.rows, arm.seed)
            assert ready.quantized is not None
            save_weights(folder / "weights.npz", ready.quantized)
            write_json(folder / "meta.json", {"history": list(ready.history)})

        entry, new = self.cache.entry("quantized", key, make)
        if new:
            arm.trained.append("quantized")
        return (
            Compressed(
                compressed.weights,
                compressed.request,
                load_weights(entry / "weights.npz"),
                tuple(read_meta(entry)["history"]),
            ),
            key,
        )

    def _artifact(
        self, plan: PlannedArtifact, ready: Compressed, ready_key: str, material: Material
    ) -> tuple[PlannedArtifact, Path, dict[str, Any]]:
        key = self.cache.key(
            "artifact",
            {
                "of": ready_key,
                "format": plan.format,
                "calibration": rows_identity(material.calibration),
                "probe": self._probe_hash,
            },
        )

        name = f"model{BACKENDS[plan.backend].formats[plan.format]}"

        def make(folder: Path) -> None:
            file = folder / name
            facts, expected = self.session.convert(
                ready, plan.format, material.calibration.x, file, self._probe
            )
            answered = self.runner.collect([file], _unlabelled(self._probe))[0]
            max_abs, flips = parity(expected, answered.probabilities)
            write_json(
                folder / "meta.json",
                {
                    "facts": facts.to_dict(),
                    "parity": {"max_abs": max_abs, "top1_flips": flips, "rows": len(self._probe)},
                    "history": list(ready.history),
                },
            )

        entry, _ = self.cache.entry("artifact", key, make)
        self._step(plan.name)
        return plan, entry / name, read_meta(entry)

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


def _unlabelled(x: NDArray[Any]) -> Queries:
    return Queries(x, np.arange(len(x)).astype(np.str_), np.full(len(x), -1, dtype=np.int64))


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
