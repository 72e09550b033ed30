"""Torch models as .pte and .ptl files, made once a test run."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SHAPES = {"mlp": (64,), "conv": (12, 12, 3)}
PTE_FORMATS = {
    "mlp": ("float32", "dynamic", "int8", "portable-float32"),
    "conv": ("float32", "dynamic", "int8"),
}


@dataclass
class TorchZoo:
    """`modules[name]`, `rows[name]` (raw units), and `files[name, format]`."""

    folder: Path
    modules: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, np.ndarray] = field(default_factory=dict)
    files: dict[tuple[str, str], Path] = field(default_factory=dict)


def make_modules() -> dict[str, Any]:
    """An MLP and a conv net that takes images [height, width, channels], both ending in a softmax."""
    import torch
    from torch import nn

    class Images(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(3, 16, 3, bias=False),
                nn.BatchNorm2d(16),
                nn.ReLU(),
                nn.Conv2d(16, 24, 3),
                nn.ReLU(),
            )
            self.head = nn.Linear(24, 5)

        def forward(self, x: Any) -> Any:
            x = self.body(x.permute(0, 3, 1, 2)).mean((2, 3))
            return torch.softmax(self.head(x), 1)

    torch.manual_seed(7)
    mlp = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10), nn.Softmax(1))
    return {"mlp": mlp.eval(), "conv": Images().eval()}


def save_pte(module: Any, example: tuple[Any, ...], path: Path) -> Path:
    """A program of one fixed batch, by ExecuTorch's own few lines."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from torch.export import export

    program = export(module, example, strict=False)
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    path.write_bytes(lowered.to_executorch().buffer)
    return path


def save_ptl(module: Any, example: Any, path: Path) -> Path:
    """A file for the lite interpreter, by torch's own few lines."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.freeze(torch.jit.trace(module, example))._save_for_lite_interpreter(str(path))
    return path


@pytest.fixture(scope="session")
def torch_zoo(tmp_path_factory: pytest.TempPathFactory) -> TorchZoo:
    """Both networks in the .pte formats, and as .ptl in float32 and (the MLP) dynamic int8."""
    torch = pytest.importorskip("torch", reason="needs the extra executorch")
    pytest.importorskip("executorch", reason="needs the extra executorch")
    from edgeprivacy.converters.executorch.convert import convert

    torch.set_num_threads(1)
    rng = np.random.default_rng(7)
    result = TorchZoo(tmp_path_factory.mktemp("torch-zoo"), make_modules())
    for name, module in result.modules.items():
        x = result.rows[name] = (rng.random((300, *SHAPES[name])) * 16 - 4).astype(np.float32)
        for format_ in PTE_FORMATS[name]:
            path = result.files[name, format_] = result.folder / f"{name}-{format_}.pte"
            convert(module, format_, x[:100], path, input_shape=SHAPES[name])
        result.files[name, "ptl"] = save_ptl(
            module, torch.from_numpy(x[:2]), result.folder / f"{name}-float32.ptl"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.backends.quantized.engine = "qnnpack"
        quantized = torch.ao.quantization.quantize_dynamic(result.modules["mlp"], {torch.nn.Linear})
        example = torch.from_numpy(result.rows["mlp"][:2])
        result.files["mlp", "ptl-int8"] = save_ptl(quantized, example, result.folder / "mlp-int8.ptl")
    return result
