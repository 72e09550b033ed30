"""What a model file that was given says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeprivacy.converters import ArtifactFacts
from edgeprivacy.errors import ArtifactError, DataError


def artifact_facts(path: Path, facts: ArtifactFacts) -> dict[str, Any]:
    """What a report says of a file that was given: backend, format, file, sha256, size_bytes, gzip_bytes."""
    return {
        "backend": facts.container,
        "format": found_format(facts),
        "file": path.name if path.is_absolute() else path.as_posix(),
        "sha256": facts.sha256,
        "size_bytes": facts.size_bytes,
        "gzip_bytes": facts.gzip_bytes,
    }


def found_format(facts: ArtifactFacts) -> str:
    """The format that a file's types show: "float32", "float16", "dynamic" or "int8"; other types by name.

    A file of integer weights is "int8" where its activations are integers too, and "dynamic" where not.
    """
    types = {weight.dtype for weight in facts.weights}
    if "int8" in types:
        integers = all(tensor.scale is not None for tensor in facts.inputs) or "QUANTIZE" in facts.operators
        return "int8" if integers else "dynamic"
    if types <= {"float32"}:
        return "float32"
    return "float16" if types <= {"float16", "float32"} else "+".join(sorted(types))


def answered_classes(files: Sequence[Path], facts: Sequence[ArtifactFacts]) -> int | None:
    """Number of classes that the files answer (one column stands for two), None where they do not say.

    Raises:
        ArtifactError: A file has several inputs or outputs.
        DataError: The files differ.
    """
    found: dict[str, int] = {}
    for path, entry in zip(files, facts, strict=True):
        for what, tensors in (("inputs", entry.inputs), ("outputs", entry.outputs)):
            if len(tensors) != 1:
                raise ArtifactError(f"{path} has {len(tensors)} {what}", allowed="one")
        shape = entry.outputs[0].shape
        if len(shape) > 1 and shape[-1] > 0:
            found[str(path)] = max(2, shape[-1])
    if len(set(found.values())) > 1:
        got = ", ".join(f"{name}: {count}" for name, count in found.items())
        raise DataError("the files answer different numbers of classes", got=got, hint="audit them apart")
    return next(iter(found.values()), None)
