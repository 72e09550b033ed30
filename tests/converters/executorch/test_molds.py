"""A program that was cast is the program that the lowering makes, to the last byte."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgeprivacy.converters.executorch.convert import convert
from edgeprivacy.converters.executorch.lowering import lower
from edgeprivacy.converters.executorch.molds import Mold, Molds, ingredients
from edgeprivacy.errors import ArtifactError


class Vectors(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.drop, self.last = nn.Linear(6, 5), nn.Dropout(0.1), nn.Linear(5, 3)

    def forward(self, x):
        return torch.softmax(self.last(self.drop(torch.relu(self.first(x * 0.25)))), dim=-1)


class Images(nn.Module):
    def __init__(self, norm: bool = False) -> None:
        super().__init__()
        self.filters = nn.Conv2d(2, 4, 3, padding=1)
        self.each = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.norm = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.last = nn.Linear(4, 3)

    def forward(self, x):
        x = torch.relu(self.filters(x.permute(0, 3, 1, 2)))
        return torch.softmax(self.last(torch.relu(self.norm(self.each(x))).mean((2, 3))), dim=-1)


SHAPES = {Vectors: (6,), Images: (8, 8, 2)}


def network(kind: type[nn.Module], seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return kind().eval()


def converted(model: nn.Module, format: str, path: Path, molds: Molds | None) -> bytes:
    shape = SHAPES[type(model)]
    # Some rows below zero: the zero point of the input is then not the lowest value.
    rows = np.random.default_rng(0).normal(0.3, 1, (64, *shape)).astype(np.float32)
    convert(model, format, rows, path, input_shape=shape, molds=molds)
    return path.read_bytes()


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("format", ["float32", "int8", "dynamic"])
def test_a_cast_file_is_the_lowered_file(
    kind: type[nn.Module], format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    molds = Molds()
    for seed in (0, 1):
        converted(network(kind, seed), format, tmp_path / "m.pte", molds)
    wanted = converted(network(kind, 2), format, tmp_path / "lowered.pte", None)
    from edgeprivacy.converters.executorch import lowering

    def not_again(*arguments: object) -> bytes:
        raise AssertionError("it was lowered")

    monkeypatch.setattr(lowering, "_lowered", not_again)
    assert converted(network(kind, 2), format, tmp_path / "cast.pte", molds) == wanted


def test_what_is_not_in_the_tensors_is_lowered_each_time() -> None:
    model = Images(norm=True).eval()
    with torch.no_grad():
        model.norm.running_mean.normal_()
    content = lower(model, (8, 8, 2))
    with pytest.raises(ArtifactError, match="a constant of"):
        Mold(content, ingredients(model))
    molds = Molds()
    molds.learn(content, ingredients(model))
    assert molds.cast(ingredients(model)) is None


def test_only_what_was_foretold_once_is_cast() -> None:
    models = [network(Vectors, seed) for seed in range(3)]
    contents = [lower(model, (6,)) for model in models[:2]]
    made_of = [ingredients(model) for model in models]
    molds = Molds()
    molds.learn(contents[0], made_of[0])
    molds.learn(contents[0], made_of[0])  # the same again proves nothing
    assert molds.cast(made_of[2]) is None
    other = bytearray(contents[1])
    other[-1] ^= 1
    molds.learn(bytes(other), made_of[1])
    molds.learn(contents[1], made_of[1])
    assert molds.cast(made_of[2]) is None


def test_equal_tensors_and_zero_points_of_zero_have_molds_of_their_own() -> None:
    plain, shared = network(Images, 0), network(Images, 1)
    with torch.no_grad():
        shared.each.bias.copy_(shared.filters.bias)  # one segment holds both
    assert ingredients(plain).key != ingredients(shared).key
    assert ingredients(plain).key == ingredients(network(Images, 2)).key
    some = ingredients(plain)
    grids = [replace(some, grids=((0.5, zero),)).key for zero in (0, 1, 2)]
    assert grids[0] != grids[1] == grids[2]
    assert ingredients(plain, "delegate").key != ingredients(plain, "portable").key
