"""PyTorch Mobile's lite interpreter, the legacy runtime of .ptl files."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

from edgeprivacy.device_runner.runtimes import ModelFile, Runtime
from edgeprivacy.errors import ArtifactError, MissingDependency
from edgeprivacy.files import sha256_file

_ENGINE = "qnnpack"
"""Of quantized operators. Phones have no other, and an int8 file answers otherwise with a server's."""


class LiteInterpreterRuntime(Runtime):
    """Kernels are named by the library of the quantized operators; float ones are ATen's."""

    name = "torch-lite"
    program = Path(__file__).with_name("torch_child.py")

    def version(self) -> dict[str, Any]:
        """See `Runtime.version`."""
        return _version()

    def kernels(self, file: Path | None, asked: str) -> str:
        """See `Runtime.kernels`."""
        return _ENGINE

    def open(self, path: Path) -> ModelFile:
        """See `Runtime.open`. A .ptl says of its input and output at most how many there are."""
        from edgeprivacy.converters import read_facts

        facts = read_facts(path)
        for what, tensors in (("input", facts.inputs), ("output", facts.outputs)):
            if len(tensors) > 1:
                raise ArtifactError(
                    f"{path} has {len(tensors)} {what}s",
                    allowed=f"one {what}",
                    hint="split or wrap the model",
                )
        return ModelFile(path, facts.inputs[0] if facts.inputs else None, grid=facts.output_grid)


@cache
def _version() -> dict[str, Any]:
    found = importlib.util.find_spec("torch")
    if found is None:
        raise MissingDependency("running a .ptl file", extra="executorch")
    folders = [Path(folder) for folder in found.submodule_search_locations or []]
    libraries = [path for folder in folders for path in sorted(folder.glob("lib/libtorch_cpu.*"))]
    return {
        "version": importlib.metadata.version("torch"),
        "library_sha256": sha256_file(libraries[0]) if libraries else None,
    }
