"""How long a recipe may train a release."""

from __future__ import annotations

from edgeprivacy.backends.layers import ITERATIVE
from edgeprivacy.compression.grid import LowBits
from edgeprivacy.defenses import Defense
from edgeprivacy.defenses.dpsgd import sampling_rate
from edgeprivacy.recipe import Recipe


def low_bits_of(recipe: Recipe, defense: Defense) -> LowBits | None:
    """The grid that weights are trained on after pruning: the defense's, or the recipe's; None for none."""
    quantize = recipe.quantize
    if not quantize.low_bits:
        return defense.low_bits()
    return LowBits(quantize.weight_bits, quantize.outer_bits, quantize.grid_epochs)


def planned_steps(recipe: Recipe, defense: Defense, rows: int) -> tuple[int, float]:
    """Most steps that a release of so many rows takes under a defense, and the share of rows in a batch."""
    prune, admm = recipe.prune, defense.admm()
    epochs = recipe.training.epochs if defense.for_original() is not None else 0
    if admm is not None:
        epochs += admm.epochs + prune.finetune_epochs
    elif (recipe.prunes or recipe.finetunes) and prune.schedule != "untrained":
        epochs += prune.finetune_epochs * (prune.iterations if prune.schedule in ITERATIVE else 1)
    rewinding = defense.rewinding()
    if rewinding is not None and rewinding.when == "after":
        epochs += prune.finetune_epochs
    low_bits = low_bits_of(recipe, defense)
    epochs += low_bits.epochs if low_bits is not None else 0
    if recipe.defense_phases == "all":
        epochs += recipe.cluster.epochs if recipe.cluster.clusters else 0
        epochs += recipe.quantize.qat_epochs if any(f.startswith("qat") for f in recipe.formats) else 0
    batch = recipe.training.batch_size
    return epochs * -(-rows // batch), sampling_rate(rows, batch)
