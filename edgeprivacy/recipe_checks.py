"""Whether a recipe's parts go together: model, defenses, gates and data. Everything here costs nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgeprivacy.backends.table import BACKENDS
from edgeprivacy.data.checks import row_digests
from edgeprivacy.data.dataset import Dataset
from edgeprivacy.data.factories import is_factory
from edgeprivacy.data.splits import Split
from edgeprivacy.defenses import Defense, TrainingRows, defenses, make_defense
from edgeprivacy.defenses.accountant import check_accountant
from edgeprivacy.errors import DataError, ModelError, RecipeError, UsageError, did_you_mean
from edgeprivacy.gate import parse_gate
from edgeprivacy.gate_grammar import BOUNDS, refuse_bounds
from edgeprivacy.measuring import chosen_attacks
from edgeprivacy.recipe import Recipe, Run


def check_model(recipe: Recipe) -> None:
    """Whether what the model and training sections name is there; the framework opens it later."""
    name, weights = recipe.model.source, recipe.model.weights
    entries = [BACKENDS[backend] for backend in recipe.backends]
    if weights is not None:
        if len(entries) > 1:
            raise UsageError("trained weights are of one backend", got=f"--backend {recipe.backend}")
        endings = entries[0].weight_files
        if not Path(weights).is_file():
            raise ModelError(
                f"weights {weights} are no file", allowed=" or ".join(f"FILE{ending}" for ending in endings)
            )
    if recipe.training.function is not None:
        _check_factory(recipe.training.function, "training function")
    built_in = ["auto", *(model for model in entries[0].models if all(model in e.models for e in entries))]
    files = [ending for ending in entries[0].model_files if all(ending in e.model_files for e in entries)]
    if name in built_in:
        return
    if is_factory(name):
        _check_factory(name, "model factory")
        return
    if Path(name).exists() and files:
        return
    allowed = [*built_in, *(f"FILE{ending}" for ending in files), "FILE.py:FUNCTION or MODULE:FUNCTION"]
    elsewhere = [backend for backend, entry in BACKENDS.items() if name in entry.models]
    if elsewhere:
        raise ModelError(f"{name} is a model of {elsewhere[0]} alone", allowed=", ".join(allowed))
    if Path(name).exists():
        raise ModelError(
            f"{recipe.backend} does not take a model from a file",
            got=name,
            allowed=", ".join(allowed),
            hint="give a factory that builds it, and --weights for its trained weights",
        )
    raise ModelError(
        f"model {name} does not exist", allowed=", ".join(allowed), hint=did_you_mean(name, built_in)
    )


def _check_factory(reference: str, kind: str) -> None:
    place = reference.rpartition(":")[0]
    if not is_factory(reference):
        raise ModelError(
            f"this names no {kind}", got=reference, allowed="FILE.py:FUNCTION or MODULE:FUNCTION"
        )
    if place.endswith(".py") and not Path(place).is_file():
        raise ModelError(f"the {kind}'s file {place} does not exist")


def check_bounds(recipe: Recipe, run: Run, design: str) -> None:
    """Whether gates on bounds can be decided."""
    gates = [gate for gate in map(parse_gate, run.fail_if) if gate.metric in BOUNDS]
    if not gates:
        return
    from edgeprivacy.bounds import ORDER  # imported late: it brings all of statistics

    if design == "given":
        refuse_bounds(gates)
    if not set(ORDER) & set(chosen_attacks(recipe.audit.attacks)):
        refuse_bounds(gates, "no attack that a bound can rest on", f"--attacks {ORDER[0]}, among others")


def check_defenses(recipe: Recipe, data: Dataset, split: Split) -> None:
    """Whether every release has the rows that the defenses' settings ask for."""
    labels = data.take(split.roles["pool"]).y
    for arm in recipe.arms:
        defense = make_defense(arm.name, arm.settings)
        if defense.wants_reference:
            _check_reference(arm.name, data, split)
        _check_original(recipe, defense)
        if defense.private() is not None:
            check_accountant(f"defense '{arm.name}'")
        for version in recipe.all_versions:
            _check_rewinding(version, defense)
            _check_low_bits(version, defense)
        for model in range(split.models):
            defense.check(TrainingRows.of(labels[split.members(model)], data.classes))


def _check_reference(name: str, data: Dataset, split: Split) -> None:
    """Whether reference rows are what a defense takes them for: rows that train no release and are audited in
    none. A row of the pool does one or the other in each of them."""
    if not any(pair.startswith("reference also in ") for pair in split.duplicates):
        return
    pool, reference = (row_digests(data.take(split.roles[role]).x) for role in ("pool", "reference"))
    repeated = int(np.isin(reference, pool).sum())
    if repeated:
        raise DataError(
            f"defense '{name}' learns from reference rows as from non-members, and some have the inputs of "
            "rows that the releases are trained and attacked on",
            got=f"{repeated} of {len(reference)} reference rows",
            allowed="none",
            hint="keep one of each of the rows that repeat, or take a defense without reference rows (see "
            "`edgeprivacy defenses`)",
        )


def check_label_sets(recipe: Recipe, data: Dataset) -> None:
    """Whether all that the recipe asks for holds where rows have several independent labels."""
    if not data.label_sets:
        return
    if recipe.audit.canaries is not None:
        raise UsageError(
            "there are no canaries of rows with several labels",
            hint="leave canaries out; `records` tells which rows are at risk",
        )
    for arm in recipe.arms:
        if make_defense(arm.name, arm.settings).needs_classes:
            raise UsageError(
                f"defense '{arm.name}' is about one true class among several, and the rows of {data.source} "
                f"have {data.classes} independent labels each",
                allowed=", ".join(name for name in defenses.names() if not make_defense(name).needs_classes),
            )


def _check_original(recipe: Recipe, defense: Defense) -> None:
    """Whether a defense that trains the original can have it."""
    if defense.for_original() is None:
        return
    given = {"model.weights": recipe.model.weights, "training.function": recipe.training.function}
    for key, value in given.items():
        if value is not None:
            raise RecipeError(
                f"defense '{defense.name}' trains the original too, and {key} says where it comes from",
                got=value,
                hint=f"leave {key} out, or, where the defense has that setting, set original = false",
            )


def _check_rewinding(recipe: Recipe, defense: Defense) -> None:
    """Whether a defense that rewinds weights, or prunes them by itself, can do so with this recipe."""
    by_itself = recipe.prunes and recipe.prune.schedule not in ("structured", "untrained")
    if defense.admm() is not None and not by_itself:
        raise RecipeError(
            f"defense '{defense.name}' prunes weights by itself, one by one",
            got=f"prune.schedule {recipe.prune.schedule}, sparsity {recipe.prune.sparsity:g}",
            allowed="iterative, one-shot or polynomial (which it replaces), with a sparsity above 0",
        )
    rewinding = defense.rewinding()
    if rewinding is None:
        return
    _check_trains(recipe, f"defense '{defense.name}'", "fine-tunes what it rewinds")
    iterates = recipe.finetunes or (recipe.prunes and recipe.prune.schedule == "iterative")
    if rewinding.when == "before" and (not iterates or defense.admm() is not None):
        raise RecipeError(
            f"defense '{defense.name}' rewinds weights before pruning, which must spare them",
            got="pruning by ADMM"
            if defense.admm()
            else f"prune.schedule {recipe.prune.schedule}, sparsity {recipe.prune.sparsity:g}",
            allowed='prune.schedule iterative, with a sparsity above 0; or when = "after"',
        )
    if recipe.model.weights is not None:
        raise RecipeError(
            f"defense '{defense.name}' sets weights back to their initial values, which are not known",
            got=f"model.weights {recipe.model.weights}",
            hint="leave model.weights out: the original is then trained here, from known initial weights",
        )
    _check_whole_network(recipe, f"defense '{defense.name}'", "rewinds")


def _check_low_bits(recipe: Recipe, defense: Defense) -> None:
    """Whether nothing moves the weights off the grid again."""
    own, quantize = defense.low_bits(), recipe.quantize
    if own is None and not quantize.low_bits:
        return
    if own is not None and quantize.low_bits:
        raise RecipeError(
            f"defense '{defense.name}' puts weights on a grid of its own, and the recipe on another",
            got=f"quantize.weight_bits {quantize.weight_bits}, quantize.outer_bits {quantize.outer_bits}",
            allowed="one of the two: the defense's settings weight_bits and outer_bits, or the recipe's",
        )
    aware = [name for name in recipe.formats if name.startswith("qat")]
    key = "weight_bits" if quantize.weight_bits < 8 else "outer_bits"
    who = f"quantize.{key}" if own is None else f"defense '{defense.name}'"
    if recipe.cluster.clusters or aware:
        raise RecipeError(
            f"{who} puts weights on a grid, and what follows would move them off it",
            got=f"formats {', '.join(aware)}" if aware else f"cluster.clusters {recipe.cluster.clusters}",
            allowed="no clusters, and formats without quantization-aware training: int8 holds the grid",
        )
    _check_whole_network(recipe, who, "rounds")
    _check_trains(recipe, who, "trains weights on a grid")


def _check_trains(recipe: Recipe, who: str, does: str) -> None:
    """Whether the schedule leaves a phase for what a defense or a grid does after it."""
    if recipe.prune.schedule == "untrained":
        raise RecipeError(
            f"{who} {does}, and a version that is compressed untrained trains nothing",
            got="prune.schedule untrained, of which --ablation makes a version",
            allowed="iterative, one-shot, polynomial, none, finetune",
            hint="leave --ablation out here, or take it with a defense that works in the recipe's own phases",
        )


def _check_whole_network(recipe: Recipe, who: str, does: str) -> None:
    if recipe.prune.schedule == "structured":
        raise RecipeError(
            f"{who} {does} weights of the whole network, and this schedule removes some",
            got="prune.schedule structured",
            allowed="iterative, one-shot, polynomial, none",
        )
