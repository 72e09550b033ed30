"""ExecuTorch: the runtime of .pte programs."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import struct
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from edgeprivacy.converters import TensorFacts
from edgeprivacy.converters.executorch.container import PteFile, damaged
from edgeprivacy.converters.executorch.facts import XNNPACK
from edgeprivacy.converters.executorch.flatbuffer import Damaged
from edgeprivacy.converters.executorch.grid import output_grid
from edgeprivacy.converters.executorch.xnnpack import XnnpackGraph
from edgeprivacy.device_runner.runtimes import ModelFile, Runtime
from edgeprivacy.errors import ArtifactError, MissingDependency
from edgeprivacy.files import sha256_file, sha256_json


class ExecutorchRuntime(Runtime):
    """Kernels are those that the program names: "XNNPACK" where its delegate runs any part, or "portable"."""

    name = "executorch"
    program = Path(__file__).with_name("executorch_child.py")

    def version(self) -> dict[str, Any]:
        """See `Runtime.version`; the hash is of all native libraries together."""
        return _version()

    def kernels(self, file: Path | None, asked: str) -> str:
        """See `Runtime.kernels`."""
        if file is None:
            return "XNNPACK"
        delegates = [delegate.id for delegate in PteFile(file).delegates]
        return "XNNPACK" if XNNPACK in delegates else "portable"

    def open(self, path: Path) -> ModelFile:
        """See `Runtime.open`. The int8 grid lies on the logits: the softmax behind them is float."""
        file = PteFile(path)
        for what, tensors in (("input", file.inputs), ("output", file.outputs)):
            if len(tensors) != 1:
                raise ArtifactError(
                    f"{path} has {len(tensors)} {what}s",
                    allowed=f"one {what}",
                    hint="split or wrap the model",
                )
        entry, output = file.tensor(file.inputs[0]), file.tensor(file.outputs[0])
        if entry is None or output is None:
            raise ArtifactError(f"{path} takes or answers no tensor", allowed="one tensor each")
        try:
            grid = output_grid(file, _graphs(file))
        except (Damaged, struct.error, ValueError, IndexError, OverflowError, MemoryError) as error:
            raise damaged(path, str(error) or type(error).__name__) from error
        shape = (-1, *entry.sizes[1:]) if entry.dynamic and entry.sizes else entry.sizes
        return ModelFile(
            path, TensorFacts("input", shape, entry.dtype), fixed_batch=max(0, *shape[:1], 0), grid=grid
        )


def _graphs(file: PteFile) -> dict[int, XnnpackGraph]:
    """XNNPACK's parts of the program, by number; those of an unknown kind are left out."""
    graphs = {}
    for number, delegate in enumerate(file.delegates):
        if delegate.id == XNNPACK:
            with suppress(LookupError):
                graphs[number] = XnnpackGraph(file, delegate.payload)
    return graphs


@cache
def _version() -> dict[str, Any]:
    folders = [
        Path(folder)
        for name in ("executorch", "torch")
        if (found := importlib.util.find_spec(name)) is not None
        for folder in list(found.submodule_search_locations or [])[:1]
    ]
    try:
        version = importlib.metadata.version("executorch")
    except importlib.metadata.PackageNotFoundError:
        version = ""
    if len(folders) < 2 or not version:
        raise MissingDependency("running a .pte file", extra="executorch")
    return {"version": version, "library_sha256": _library_sha256(folders[0])}


def _library_sha256(folder: Path) -> str | None:
    """One hash of the runtime, its kernels, delegates and bindings, or None if none is there."""
    libraries = [*folder.glob("lib/lib*"), *folder.glob("extension/pybindings/_C.*")]
    hashes = {path.name: sha256_file(path) for path in sorted(libraries) if path.is_file()}
    return sha256_json(hashes) if hashes else None
