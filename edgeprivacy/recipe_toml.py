"""Recipes as text: reading TOML, laying settings over each other, writing TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from edgeprivacy.errors import RecipeError


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file; RecipeError when it is missing or no TOML."""
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise RecipeError(f"recipe {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {path} cannot be read", got=error) from None
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"recipe {path} is not TOML", got=error) from None


def parse_version(text: str) -> dict[str, Any]:
    """ "prune.sparsity=0.9; cluster.clusters=16" -> what differs, as `Recipe.versions` has it.

    Words need no quotes. RecipeError where it is no such list.
    """
    lines = []
    for part in text.split(";"):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise RecipeError(
                "another version is said by what differs",
                got=text,
                allowed="SECTION.KEY=VALUE, several with a semicolon",
            )
        word = value.strip()
        plain = word.replace("-", "").replace("_", "").isalpha() and word not in ("true", "false")
        lines.append(f'{key.strip()} = "{word}"' if plain else f"{key.strip()} = {word}")
    try:
        return tomllib.loads("\n".join(lines))
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(
            "another version's settings cannot be read",
            got=f"{text} ({error})",
            allowed="SECTION.KEY=VALUE, several with a semicolon between",
        ) from None


def merge(content: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the content with dotted keys set: merge({}, {"prune.sparsity": 0.5}) gives
    {"prune": {"sparsity": 0.5}}. RecipeError where a plain value stands in the place of a table."""
    if not isinstance(content, dict):
        raise RecipeError("a recipe's section must be a table", got=content)
    merged: dict[str, Any] = deepcopy(content)
    for dotted, value in overrides.items():
        *path, last = dotted.split(".")
        inner = merged
        for key in path:
            inner = inner.setdefault(key, {})
            if not isinstance(inner, dict):
                raise RecipeError(f"recipe key '{key}' must be a table", got=inner)
        inner[last] = value
    return merged


def to_toml(content: Mapping[str, Any], prefix: str = "") -> str:
    """Plain TOML of nested dictionaries, tables after values."""
    lines = [
        f"{_toml_key(key)} = {toml_value(value)}"
        for key, value in content.items()
        if not isinstance(value, dict)
    ]
    text = "\n".join(lines) + ("\n" if lines else "")
    for key, value in content.items():
        if isinstance(value, dict):
            name = prefix + _toml_key(key)
            text += f"\n[{name}]\n" + to_toml(value, f"{name}.")
    return text


def _toml_key(key: str) -> str:
    return key if key.isascii() and key.isidentifier() else toml_value(key)


def toml_value(value: Any) -> str:
    """One value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08X}" for c in escaped) + '"'
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(entry) for entry in value) + "]"
    if isinstance(value, dict):
        return (
            "{ " + ", ".join(f"{_toml_key(key)} = {toml_value(entry)}" for key, entry in value.items()) + " }"
        )
    return repr(value)
