"""Flags that stand for keys of a recipe: what `compress`, `tune` and `init` have in common.

A new one is an entry here and its name at the commands that take it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import click

from edgeprivacy.cli.options import split_list

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class RecipeOption:
    """A flag: the recipe's key that it sets, its help, and what else click is told."""

    key: str
    help: str
    more: Mapping[str, Any] = field(default_factory=dict)


def _all_of(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> list[str] | None:
    """Callback of a repeatable flag: ("a,b", "c") to ["a", "b", "c"]; none at all to None."""
    return [name.strip() for value in values for name in value.split(",")] if values else None


def _when_given(value: bool) -> dict[str, Any]:
    """Of a flag without a value, which says `value` when it is given and nothing otherwise."""
    return {"is_flag": True, "callback": lambda ctx, param, given: value if given else None}


RECIPE_OPTIONS = {
    "--backend": RecipeOption("backend", "tflite (.tflite), executorch (.pte, .ptl), or both with a comma."),
    "--defense": RecipeOption(
        "defense.name", "Defense of the training data, e.g. wemem; see `edgeprivacy defenses`."
    ),
    "--compare": RecipeOption(
        "compare",
        "Another defense or a control to stand beside it; several with commas.",
        {"multiple": True, "callback": _all_of},
    ),
    "--data": RecipeOption(
        "data.source", "digits, FILE.npz, FILE.csv, an image folder, or FILE.py:FUNCTION."
    ),
    "--label": RecipeOption("data.label", "Label column of a CSV: a name or an index; several: A,B,C."),
    "--no-header": RecipeOption("data.header", "The CSV has no line of column names.", _when_given(False)),
    "--train": RecipeOption("data.train", "Rows the model is trained on (with --holdout)."),
    "--holdout": RecipeOption("data.holdout", "Rows it is not trained on (with --train)."),
    "--split-column": RecipeOption("data.split_column", "Column or npz array that says train or holdout."),
    "--drop-overlap": RecipeOption(
        "data.drop_overlap", "Drop hold-out rows that are also train rows.", _when_given(True)
    ),
    "--model": RecipeOption(
        "model.source", "auto, mlp, cnn, resnet, resnet-no-norm, a Keras file, or FILE.py:FUNCTION."
    ),
    "--weights": RecipeOption("model.weights", "Trained weights: audit this model instead of training one."),
    "--prune": RecipeOption("prune.sparsity", "Share of weights to prune, 0 for none.", {"type": float}),
    "--prune-schedule": RecipeOption(
        "prune.schedule",
        "iterative, one-shot, polynomial, structured (executorch) or none; ablations: finetune, untrained.",
    ),
    "--prune-iterations": RecipeOption(
        "prune.iterations", "Iterations of the iterative schedule.", {"type": int}
    ),
    "--cluster": RecipeOption("cluster.clusters", "Distinct weights a layer, 0 for none.", {"type": int}),
    "--epochs": RecipeOption("training.epochs", "Epochs of the original, at most.", {"type": int}),
    "--finetune-epochs": RecipeOption(
        "prune.finetune_epochs", "Epochs of each pruning iteration, at most.", {"type": int}
    ),
    "--formats": RecipeOption(
        "formats",
        "tflite: float32, float16, dynamic, int8, qat-int8; executorch: float32, dynamic, int8, qat-int8, "
        "portable-float32, ptl-float32, ptl-int8. Several with commas.",
        {"callback": split_list},
    ),
    "--shadows": RecipeOption("audit.shadows", "Shadow models; 0 for none.", {"type": int}),
    "--split": RecipeOption("split.design", "half, given or disjoint."),
    "--attacks": RecipeOption(
        "audit.attacks", "Attacks or sets of them, with commas between.", {"callback": split_list}
    ),
    "--canaries": RecipeOption(
        "audit.canaries",
        "Turn N training rows into mislabelled, near-duplicate or ood ones and audit them beside the rest: "
        "the worst that a row can suffer. The files are then for the audit, not to ship.",
        {"metavar": "N[:KIND]"},
    ),
    "--seed": RecipeOption("seed", "Reaches every random choice.", {"type": int}),
}


def recipe_options(*names: str, **helps: str) -> Callable[[F], F]:
    """These flags, in this order; `helps` by parameter name where a command means something narrower.

    The command takes them as `**flags` and gives them to `overrides_of`.
    """

    def decorate(command: F) -> F:
        for name in reversed(names):
            option = RECIPE_OPTIONS[name]
            about = helps.get(_parameter(name), option.help)
            command = click.option(name, help=about, **option.more)(command)
        return command

    return decorate


def overrides_of(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Recipe keys to values, of the flags that were given; others leave the recipe's values."""
    return {
        option.key: flags[_parameter(name)]
        for name, option in RECIPE_OPTIONS.items()
        if flags.get(_parameter(name)) is not None
    }


def _parameter(name: str) -> str:
    """The name under which click hands a flag's value over."""
    return name.lstrip("-").replace("-", "_")
