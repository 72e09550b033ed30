"""What identifies the parts that a release is made from, and how its weights are kept."""

from __future__ import annotations

from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.data.dataset import Dataset
from edgeprivacy.data.imports import imported_files
from edgeprivacy.defenses import Defense
from edgeprivacy.files import read_npz, sha256_arrays, sha256_file, sha256_json, write_npz
from edgeprivacy.recipe import Recipe


def rows_identity(*parts: Dataset) -> str:
    """Hash of inputs and labels; ids do not shape a model."""
    return sha256_arrays(*(array for part in parts for array in (part.x, part.y)))


def defense_identity(defense: Defense) -> dict[str, Any]:
    """Name, version and every setting."""
    return {"name": defense.name, "version": defense.version, **asdict(defense)}


def model_identity(recipe: Recipe) -> dict[str, Any]:
    """The model section, with the content of the files it names instead of their paths alone."""
    content = recipe.model.model_dump(mode="json", exclude={"weights"})
    return content | _content_of(recipe.model.source)


def training_identity(recipe: Recipe) -> dict[str, Any]:
    """The training section, with the content of the user's training function where there is one."""
    content = recipe.training.model_dump(mode="json")
    return content | (_content_of(recipe.training.function) if recipe.training.function else {})


def _content_of(source: str) -> dict[str, Any]:
    file = _source_file(source)
    if file is None:
        return {}
    files = imported_files(file, (file.parent, Path.cwd())) if file.suffix == ".py" else [file]
    return {"source_sha256": sha256_json([sha256_file(each) for each in files])}


def _source_file(source: str) -> Path | None:
    """The file behind "FILE.py:FUNCTION", "module:function" or a model file; None for built-in networks."""
    name = source.rpartition(":")[0] or source
    beside = Path(*name.split(".")).with_suffix(".py")
    candidates = [Path(name), beside] if ":" in source else [Path(name)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    if ":" in source and all(part.isidentifier() for part in name.split(".")):
        try:
            spec = find_spec(name)
        except (ImportError, ValueError):
            return None
        if spec is not None and spec.origin is not None and Path(spec.origin).is_file():
            return Path(spec.origin)
    return None


def save_weights(path: Path, weights: list[NDArray[Any]]) -> None:
    """Write weights in order as an .npz."""
    write_npz(path, **{f"w{number:04d}": np.asarray(array) for number, array in enumerate(weights)})


def load_weights(path: Path) -> list[NDArray[Any]]:
    """Read what `save_weights` wrote."""
    arrays = read_npz(path)
    return [arrays[name] for name in sorted(arrays)]
