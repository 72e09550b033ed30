"""A recipe to start from: every key, its default and what it means, written out of the recipe's own model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from edgeprivacy.recipe import Recipe, Run
from edgeprivacy.recipe_sections import Section
from edgeprivacy.recipe_toml import toml_value

_HEAD = """\
# A recipe of edgeprivacy: what is made, and what is measured.
# Every key stands here with its default; delete what you do not change.
#
#   edgeprivacy compress {path}
#
# Flags of `edgeprivacy compress` win over this file.
"""
_RUN = """\

# How the recipe is run. Nothing here changes what is made or measured.
[run]
"""
_EXAMPLES = {
    "label": "class",
    "train": "train.npz",
    "holdout": "holdout.npz",
    "split_column": "split",
    "weights": "trained.h5",
    "scale": 255.0,
    "out": "out",
    "jobs": 2,
    "canaries": "500:mislabelled",
}
"""What a key without a default might say; it is written commented out."""
_WORDS = {
    "backend": "framework and file format",
    "defense": "defense of the training data; `edgeprivacy defenses` lists them. Its settings stand in "
    "[defense.settings]",
    "compare": 'defenses and controls to stand beside it, e.g. ["none", "less-data"]',
    "seed": "reaches every random choice",
    "formats": "of the files that are written",
    "pool": "share of the rows from which members are drawn",
    "test": "share for utility, population and null tests",
    "validation": "share that decides when training stops",
    "reference": "share that a defense may use; never measured",
    "calibration": "share that sets the ranges of integer formats",
    "dropout": "of the built-in mlp",
    "schedule": "how sparsity grows",
    "device": 'where the files are run: "host", "host:logits", "native", "adb:SERIAL", "adb:all"; one report '
    "for several",
    "shadow_device": 'where the shadows\' files are run: "host", "same", or "auto": the same device if its '
    "answers differ from the host's",
    "cache": "use and keep finished releases",
    "fail_if": 'gates, e.g. ["tpr@1%fpr>0.05"]',
    "gate_on": "decide gates by the estimate or by its interval",
    "shadows": "releases made by the same recipe that the attacks learn from; 0 for none",
    "jobs": "worker processes, one thread each (default: one a core)",
    "out": "output folder (default: edgeprivacy-out/NAME)",
}
"""Where the model of the recipe has no description of its own."""


def commented_toml(recipe: Recipe, path: str = "recipe.toml") -> str:
    """A recipe as TOML with a comment on every key; it loads back to an equal recipe.

    Args:
        recipe: Values to write.
        path: Name of the file, for the comment at its head.
    """
    tables: list[str] = []
    head = "".join(_lines(recipe, tables, ""))
    run = "".join(_lines(Run.build({}), [], "run."))
    return _HEAD.format(path=path) + "\n" + head + "".join(tables) + _RUN + run


def _lines(section: Section, tables: list[str], prefix: str) -> Iterator[str]:
    """The keys of a section; sections below it go to `tables`."""
    for key, info in type(section).model_fields.items():
        value = getattr(section, key)
        if isinstance(value, Section):
            doc = " ".join((type(value).__doc__ or "").split())
            inner: list[str] = []
            body = "".join(_lines(value, inner, f"{prefix}{key}."))
            about = f"# {_WORDS.get(key, doc)}\n"
            tables += [f"\n{about}[{prefix}{key}]\n{body}", *inner]
        elif isinstance(value, dict):
            if value:
                body = "".join(f"{name} = {toml_value(entry)}\n" for name, entry in value.items())
                tables.append(f"\n[{prefix}{key}]\n{body}")
        else:
            yield _line(key, info, value)


def _line(key: str, info: FieldInfo, value: Any) -> str:
    about = [text for text in (info.description or _WORDS.get(key), _allowed(info)) if text]
    comment = f"  # {'; '.join(about)}" if about else ""
    if value is None:
        return f"# {key} = {toml_value(_EXAMPLES.get(key, '...'))}{comment}\n"
    return f"{key} = {toml_value(_plain(value))}{comment}\n"


def _plain(value: Any) -> Any:
    """Sections inside lists as plain content."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_none=True)
    return [_plain(entry) for entry in value] if isinstance(value, tuple) else value


def _allowed(info: FieldInfo) -> str | None:
    """The words a key may take, where it takes words only."""
    words = [str(word) for word in _literals(info.annotation)]
    described = info.description or ""
    if len(words) < 2 or all(word in described for word in words):
        return None
    return "one of " + ", ".join(words) if get_origin(info.annotation) is Literal else ", ".join(words)


def _literals(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
        return
    for inner in get_args(annotation):
        yield from _literals(inner)
