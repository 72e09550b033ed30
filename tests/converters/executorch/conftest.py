"""Small torch models with known zeros and palettes, for tests of .pte files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SHAPES = {"mlp": (64,), "conv": (12, 12, 3)}
FORMATS = ("float32", "dynamic", "int8", "qat-int8", "portable-float32")


@dataclass
class TorchZoo:
    """`models[name]` with 60 % of every weight zero and at most 8 values an output channel; `rows[name]`; and
    `files[name, format]` made by our converter."""

    folder: Path
    models: dict[Any, Any] = field(default_factory=dict)
    rows: dict[str, np.ndarray] = field(default_factory=dict)
    files: dict[tuple[str, str], Path] = field(default_factory=dict)


def shape_weights(module: Any, share: float = 0.6, levels: int = 7) -> None:
    """A palette of `levels` values in every output channel, then the smallest `share` of a layer to zero."""
    import torch

    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
                weight = layer.weight.numpy()
                channels = weight.reshape(len(weight), -1)
                largest = np.abs(channels).max(axis=1, keepdims=True)
                half = levels // 2
                channels[:] = np.round(channels / largest * half) / half * largest
                order = np.argsort(np.abs(channels).ravel(), kind="stable")
                weight.reshape(-1)[order[: round(share * weight.size)]] = 0.0


def build_models() -> dict[str, Any]:
    """An MLP 64-32-10, and a conv net with BatchNorm and a depthwise layer for [12, 12, 3]."""
    import torch

    nn = torch.nn

    class Conv(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
            self.norm = nn.BatchNorm2d(8)
            self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
            self.last = nn.Linear(8, 5)

        def forward(self, x: Any) -> Any:
            x = (x / 16).permute(0, 3, 1, 2)
            x = torch.relu(self.norm(self.first(x)))
            x = torch.relu(self.depthwise(x)).mean((2, 3))
            return torch.softmax(self.last(x), -1)

    torch.manual_seed(7)
    mlp = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10), nn.Softmax(-1))
    conv = Conv()
    with torch.no_grad():  # a BatchNorm that has seen data
        conv.norm.running_mean.uniform_(-0.2, 0.2)
        conv.norm.running_var.uniform_(0.5, 2.0)
        conv.norm.weight.uniform_(0.5, 1.5)
        for layer in (conv.first, conv.depthwise, conv.last):  # so that rows are told apart
            layer.weight.mul_(6)
    models = {"mlp": mlp, "conv": conv}
    for model in models.values():
        shape_weights(model)
        model.eval()
    return models


def rows_for(shape: tuple[int, ...], count: int = 100) -> np.ndarray:
    """Rows in raw units, -4 to 12, some flat and some not."""
    rng = np.random.default_rng(7)
    contrast = rng.random((count, *(1 for _ in shape)))
    return (contrast * (rng.random((count, *shape)) * 16 - 4)).astype(np.float32)


@pytest.fixture(scope="session")
def torch_zoo(tmp_path_factory: pytest.TempPathFactory) -> TorchZoo:
    """Both models in every .pte format."""
    import copy

    import torch
    import torchao.quantization.pt2e as pt2e
    from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e

    from edgeprivacy.converters.executorch.convert import convert, quantizer
    from edgeprivacy.converters.executorch.lowering import training_graph
    from edgeprivacy.converters.executorch.patterns import known_patterns

    zoo = TorchZoo(tmp_path_factory.mktemp("torch-zoo"), build_models())
    for name, model in list(zoo.models.items()):
        zoo.rows[name] = rows_for(SHAPES[name])
        for format_ in FORMATS:
            source = model
            if format_ == "qat-int8":
                graph = training_graph(copy.deepcopy(model).train(), SHAPES[name])
                with known_patterns():
                    source = prepare_qat_pt2e(graph, quantizer(aware=True))
                pt2e.move_exported_model_to_train(source)
                source(torch.from_numpy(zoo.rows[name]))  # moves the ranges, not the weights
                zoo.models[name, "qat"] = source
            path = zoo.folder / f"{name}-{format_}.pte"
            convert(source, format_, zoo.rows[name], path, input_shape=SHAPES[name])
            zoo.files[name, format_] = path
    return zoo
