"""LiteRT: the interpreter of .tflite files."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

from edgeprivacy.converters.tflite.container import TfliteFile
from edgeprivacy.converters.tflite.facts import tensor_facts
from edgeprivacy.device_runner.runtimes import ModelFile, Runtime
from edgeprivacy.errors import ArtifactError, MissingDependency
from edgeprivacy.files import sha256_file


class LitertRuntime(Runtime):
    """Kernels are what the runner was asked for: "XNNPACK" or "built-in"."""

    name = "litert"
    program = Path(__file__).with_name("litert_child.py")

    def version(self) -> dict[str, Any]:
        """See `Runtime.version`."""
        return _version()

    def kernels(self, file: Path | None, asked: str) -> str:
        """See `Runtime.kernels`."""
        return asked

    def open(self, path: Path) -> ModelFile:
        """See `Runtime.open`."""
        file = TfliteFile(path)
        for what, tensors in (("input", file.inputs), ("output", file.outputs)):
            if len(tensors) != 1:
                raise ArtifactError(
                    f"{path} has {len(tensors)} {what} tensors",
                    allowed=f"one {what}",
                    hint="split or wrap the model",
                )
        output = tensor_facts(file.outputs[0])
        grid, own = file.output_grid
        return ModelFile(
            path,
            tensor_facts(file.inputs[0]),
            fixed_batch=max(0, file.inputs[0].signature[0]) if file.inputs[0].signature else 0,
            scale=output.scale,
            zero_point=output.zero_point,
            grid=grid,
            own_grid=own,
            ends_in=file.ends_in,
        )


@cache
def _version() -> dict[str, Any]:
    if importlib.util.find_spec("ai_edge_litert") is None:
        raise MissingDependency("running a .tflite file", extra="litert")
    return {"version": importlib.metadata.version("ai-edge-litert"), "library_sha256": _library_sha256()}


def _library_sha256() -> str | None:
    """Hash of the wheel's native interpreter, found without importing it."""
    found = importlib.util.find_spec("ai_edge_litert")
    folders = [Path(p) for p in (found.submodule_search_locations or [])] if found else []
    for pattern in ("libpywrap_litert_common*", "_pywrap_litert_interpreter_wrapper*"):
        for folder in folders:
            for library in sorted(folder.glob(pattern)):
                return sha256_file(library)
    return None
