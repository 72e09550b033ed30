"""The stages of a release: each from the cache, or made by the backend's session and kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.backends.base import Compressed, Material, Session, Weights
from edgeprivacy.backends.planning import low_bits_of, planned_steps
from edgeprivacy.backends.table import BACKENDS, backend_versions
from edgeprivacy.cache import Cache, read_meta
from edgeprivacy.compression.grid import grid_told
from edgeprivacy.confidences import Confidences, LabelSets
from edgeprivacy.converters import Request
from edgeprivacy.converters.parity import parity
from edgeprivacy.data.dataset import Dataset
from edgeprivacy.defenses import Defense, Preparation, TrainingRows
from edgeprivacy.device_runner import Queries, Runner
from edgeprivacy.files import read_npz, sha256_arrays, sha256_file, write_json, write_npz
from edgeprivacy.multi_label import as_two_classes
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

ORIGINAL_FORMAT = "float32"
RELEASE_VERSION = {"tflite": 4, "executorch": 5}
"""By backend. Raised when the same inputs would give another release: it is part of every key."""


@dataclass(frozen=True)
class Making:
    """One release being made: its rows, its seed, and the arms of which something was made, not found.

    Attributes:
        given: File of weights that are this release's original.
    """

    material: Material
    seed: int
    given: Path | None = None
    trained: set[str] = field(default_factory=set)

    @property
    def rows(self) -> TrainingRows:
        """The training rows before anything is prepared of them."""
        return TrainingRows.of(self.material.train.y, self.material.train.classes)


@dataclass(frozen=True)
class Arm:
    """One defense at work on one release, and what it knows of the rows."""

    name: str
    defense: Defense
    rows: TrainingRows


@dataclass(frozen=True)
class Original:
    """An original's weights, the key that stands for them, and how they were trained."""

    weights: Weights
    key: str
    history: tuple[dict[str, Any], ...] = ()


class Stages:
    """Makes the stages of one recipe's releases with one of its backends.

    Args:
        open_session: Opens the backend for this recipe. Called only when something has to be made.
        data: All rows, for what is the same in every release.
        runner: Runs a file that was just converted, to compare its answers with the framework's.
        probe: Rows of that comparison.
    """

    def __init__(
        self,
        recipe: Recipe,
        backend: str,
        open_session: Callable[[], Session],
        data: Dataset,
        runner: Runner,
        cache: Cache,
        probe: Dataset,
    ) -> None:
        self.recipe, self.cache, self.runner = recipe, cache, runner
        self._open_session = open_session
        self._base = {
            "release_version": RELEASE_VERSION[backend],
            "backend": backend,
            "versions": backend_versions(backend),
            "model": model_identity(recipe),
            "training": training_identity(recipe),
            "classes": data.classes,
            "scale": recipe.input_scale(data.input_shape),
        }
        if data.label_sets:
            self._base["label_sets"] = True
        told = (probe.x, probe.y) if data.label_sets else (probe.x,)
        self._probe, self._probe_hash = probe, sha256_arrays(*told)

    @cached_property
    def session(self) -> Session:
        """The backend, opened when it is first needed; what can fail for the model's reasons fails here."""
        session = self._open_session()
        session.check()
        return session

    def original(self, making: Making, arm: Arm | None = None) -> Original:
        """The release's plain original; with an arm the one that its defense trains."""
        material, seed = making.material, making.seed
        given = making.given if arm is None else None
        by = None if arm is None else arm.defense.for_original()
        content = {
            **self._base,
            "rows": rows_identity(material.train, material.validation),
            "seed": seed,
            "given": None if given is None else sha256_file(given),
        }
        if by is not None:
            content["defense"] = defense_identity(by)
            content |= _reference_identity(by, material)
        key = self.cache.key("original", content)

        def make(folder: Path) -> None:
            if given is not None:
                weights, summary = self.session.load_weights(given), {"phase": "given"}
            else:
                rows = None if arm is None else arm.rows
                weights, summary = self.session.train(material, seed, defense=by, rows=rows)
            save_weights(folder / "weights.npz", weights)
            write_json(folder / "meta.json", {"history": [summary]})

        entry, new = self.cache.entry("original", key, make)
        if new:
            making.trained.add("original" if arm is None else arm.name)
        return Original(load_weights(entry / "weights.npz"), key, tuple(read_meta(entry)["history"]))

    def arm(self, name: str, defense: Defense, making: Making, original: Original) -> Arm:
        """A defense with all that it wants to know of the release's rows."""
        rows = making.rows
        defense = defense.planned(*planned_steps(self.recipe, defense, len(rows.labels)))
        for preparation in defense.preparations():
            rows = rows.knowing(preparation.name, *self._prepared(preparation, making, original))
        defense.check(rows)
        return Arm(name, defense, rows)

    def kept(self, stage: str, content: Mapping[str, Any], make: Callable[[Path], None]) -> dict[str, Any]:
        """The meta.json of an entry of the cache, made first if it is not there."""
        entry, _ = self.cache.entry(stage, self.cache.key(stage, content), make)
        return read_meta(entry)

    def _prepared(
        self, preparation: Preparation, making: Making, original: Original
    ) -> tuple[NDArray[Any], list[str]]:
        """What a preparation made, and what it found to tell."""
        train, validation = making.material.train, making.material.validation
        content = {
            **self._base,
            "rows": rows_identity(train, validation) if preparation.validates else rows_identity(train),
            "seed": making.seed,
            **preparation.identity,
        }
        if preparation.asks_original:
            content["original"] = original.key
        key = self.cache.key(preparation.name, content)

        def make(folder: Path) -> None:
            models = _SubModels(self.session, making, original)
            write_npz(folder / "scores.npz", scores=preparation.make(making.rows, models))
            write_json(folder / "meta.json", {"found": models.found})

        entry, _ = self.cache.entry(preparation.name, key, make)
        # Entries of before tell nothing.
        found = read_meta(entry)["found"] if (entry / "meta.json").exists() else []
        return read_npz(entry / "scores.npz")["scores"], found

    def compressed(self, original: Original, arm: Arm, making: Making) -> tuple[Compressed, str]:
        """The pruned and clustered model, and its key."""
        recipe, low_bits = self.recipe, self.recipe.quantize.low_bits
        key = self.cache.key(
            "compressed",
            {
                "original": original.key,
                "defense": defense_identity(arm.defense),
                "phases": recipe.defense_phases if recipe.cluster.clusters else "all",
                "prune": recipe.prune.model_dump(mode="json"),
                "cluster": recipe.cluster.model_dump(mode="json"),
                "seed": making.seed,
                **({"grid": recipe.quantize.model_dump(exclude={"qat_epochs"})} if low_bits else {}),
                # Members, and the validation rows that end phases, are in the original's key.
                **_reference_identity(arm.defense, making.material),
            },
        )

        def make(folder: Path) -> None:
            compressed = self.session.compress(
                original.weights, making.material, arm.defense, arm.rows, making.seed
            )
            save_weights(folder / "weights.npz", compressed.weights)
            write_json(
                folder / "meta.json",
                {
                    "history": [
                        {"phase": "defense", "notes": [*arm.defense.notes(arm.rows), *self._grid_told(arm)]},
                        # A guarantee is of all training that the rows went through.
                        *(original.history if arm.defense.private() is not None else ()),
                        *compressed.history,
                    ],
                    "sparsity": list(compressed.request.sparsity),
                    "clusters": list(compressed.request.clusters),
                    "bits": list(compressed.request.bits),
                },
            )

        entry, new = self.cache.entry("compressed", key, make)
        if new:
            making.trained.add(arm.name)
        meta = read_meta(entry)
        request = Request(
            ORIGINAL_FORMAT, tuple(meta["sparsity"]), tuple(meta["clusters"]), tuple(meta.get("bits", ()))
        )
        weights = load_weights(entry / "weights.npz")
        return Compressed(weights, request, history=tuple(meta["history"])), key

    def _grid_told(self, arm: Arm) -> list[str]:
        grid = low_bits_of(self.recipe, arm.defense)
        return [f"quantize.weight_bits: {grid_told(grid)}"] if grid and self.recipe.quantize.low_bits else []

    def quantized(
        self, compressed: Compressed, compressed_key: str, arm: Arm, making: Making
    ) -> tuple[Compressed, str]:
        """The compressed model after quantization-aware training, and its key."""
        recipe = self.recipe
        key = self.cache.key(
            "quantized",
            {
                "compressed": compressed_key,
                "phases": recipe.defense_phases,
                "quantize": recipe.quantize.model_dump(mode="json", include={"qat_epochs"}),
                "seed": making.seed,
                # Before this stood here torch's graphs for this phase dropped at their own rates.
                **({} if arm.defense.dropout is None else {"dropout": arm.defense.dropout}),
            },
        )

        def make(folder: Path) -> None:
            ready = self.session.quantize_aware(
                compressed, making.material, arm.defense, arm.rows, making.seed
            )
            assert ready.quantized is not None
            save_weights(folder / "weights.npz", ready.quantized)
            write_json(folder / "meta.json", {"history": list(ready.history)})

        entry, new = self.cache.entry("quantized", key, make)
        if new:
            making.trained.add(arm.name)
        weights, history = load_weights(entry / "weights.npz"), tuple(read_meta(entry)["history"])
        return Compressed(compressed.weights, compressed.request, weights, history), key

    def file(
        self, backend: str, format: str, ready: Compressed, ready_key: str, material: Material
    ) -> tuple[Path, dict[str, Any]]:
        """The file of a model in a format, and what was read back from it."""
        key = self.cache.key(
            "artifact",
            {
                "of": ready_key,
                "format": format,
                "calibration": rows_identity(material.calibration),
                "probe": self._probe_hash,
            },
        )
        name = f"model{BACKENDS[backend].formats[format]}"

        def make(folder: Path) -> None:
            file = folder / name
            probe = self._probe
            facts, expected = self.session.convert(ready, format, material.calibration.x, file, probe.x)
            # Labels say how independent ones are to be read; those of one class are not needed.
            asked = Queries(probe.x, probe.ids, probe.y)
            answered = self.runner.collect([file], asked)[0]
            max_abs, flips = _parity(expected, answered, probe)
            write_json(
                folder / "meta.json",
                {
                    "facts": facts.to_dict(),
                    "parity": {"max_abs": max_abs, "top1_flips": flips, "rows": len(self._probe)},
                    "history": list(ready.history),
                },
            )

        entry, _ = self.cache.entry("artifact", key, make)
        return entry / name, read_meta(entry)


class _SubModels:
    """`edgeprivacy.defenses.SubModels` of one release."""

    def __init__(self, session: Session, making: Making, original: Original) -> None:
        self._session, self._making, self._original = session, making, original
        self.found: list[str] = []

    def tell(self, text: str) -> None:
        self.found.append(text)

    @property
    def inputs(self) -> NDArray[Any]:
        return self._making.material.train.x

    def rng(self, purpose: str) -> np.random.Generator:
        return generator(self._making.seed, purpose)

    def answers(
        self, rows: NDArray[np.intp], purpose: str, number: int, epochs: int | None = None
    ) -> NDArray[np.float32]:
        train = self._making.material.train
        part, seed = train.take(train.ids[rows]), derive_seed(self._making.seed, purpose, number)
        if epochs is None:
            weights, _ = self._session.train(replace(self._making.material, train=part), seed)
        else:
            weights = self._session.train_plain(part, epochs, seed)
        return told_answers(self._session.predict(weights, train.x), train)

    def original_answers(self) -> NDArray[np.float32]:
        return told_answers(
            self._session.predict(self._original.weights, self.inputs), self._making.material.train
        )


def _reference_identity(defense: Defense, material: Material) -> dict[str, str]:
    """Of the reference rows, for keys of what a defense trains with them."""
    return {"reference": rows_identity(material.reference)} if defense.wants_reference else {}


def told_answers(answers: NDArray[np.float32], rows: Dataset) -> NDArray[np.float32]:
    """Answers as defenses take them: of rows with independent labels what they say of a row as a whole."""
    return as_two_classes(answers, rows.y, rows.source) if rows.label_sets else answers


def _parity(expected: NDArray[np.float32], answered: Confidences, rows: Dataset) -> tuple[float, int]:
    """See `parity`; of independent labels each for itself, and the rows of which a label is answered
    otherwise."""
    if answered.sets is None:
        return parity(expected, answered.probabilities)
    here, there = LabelSets(expected, answered.sets.truth), answered.sets
    largest, _ = parity(expected, there.answers)
    return largest, int((here.right != there.right).any(axis=1).sum())
