"""Channels that are really removed: what the smaller model computes, holds and refuses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra executorch")
pytest.importorskip("torch_pruning", reason="needs the extra executorch")

from torch import nn  # noqa: E402

from edgeprivacy.backends.executorch.models import BUILT_IN  # noqa: E402
from edgeprivacy.backends.executorch.structured import prune_channels, shrink_to  # noqa: E402
from edgeprivacy.errors import ModelError, RecipeError  # noqa: E402

IMAGE = (12, 12, 3)


class Images(nn.Module):
    """Rows [height, width, channels] of 0..255 in, probabilities out, around a body that takes NCHW."""

    def __init__(self, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.body(x.permute(0, 3, 1, 2) / 255)
        return torch.softmax(self.head(features.mean((2, 3))), -1)


class Residual(nn.Module):
    """Two convolutions with BatchNorm, beside a shortcut."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.second = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.shortcut = nn.Identity()
        if (before, stride) != (after, 1):
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride), nn.BatchNorm2d(after))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.norm2(self.second(torch.relu(self.norm1(self.first(x)))))
        return torch.relu(inner + self.shortcut(x))


class Inverted(nn.Module):
    """MobileNetV2's block: widen, filter each channel, narrow; a sum with the input where shapes allow."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        inner = 4 * before
        self.layers = nn.Sequential(
            *(nn.Conv2d(before, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU6()),
            *(nn.Conv2d(inner, inner, 3, stride, 1, groups=inner), nn.BatchNorm2d(inner), nn.ReLU6()),
            *(nn.Conv2d(inner, after, 1, bias=False), nn.BatchNorm2d(after)),
        )
        self.sums = (before, stride) == (after, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x) if self.sums else self.layers(x)


class Joined(nn.Module):
    """Two branches whose channels stand side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 12, 1)
        self.after = nn.Conv2d(20, 10, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.after(torch.relu(torch.cat([self.left(x), self.right(x)], 1))))


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(20, 32),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(32, 16),
        nn.ReLU(),
        nn.Linear(16, 4),
        nn.Softmax(-1),
    )


def cnn() -> nn.Module:
    """Ends in a flattening: each channel becomes 36 features."""
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(16 * 36, 24), nn.ReLU(), nn.Linear(24, 5)),
    )


def resnet() -> nn.Module:
    stem = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    return Images(
        nn.Sequential(stem, Residual(16, 16, 1), Residual(16, 32, 2), Residual(32, 32, 1)), nn.Linear(32, 5)
    )


def mobilenet() -> nn.Module:
    stem = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
    return Images(
        nn.Sequential(stem, Inverted(8, 8, 1), Inverted(8, 12, 2), Inverted(12, 12, 1)), nn.Linear(12, 5)
    )


def joined() -> nn.Module:
    return Images(Joined(), nn.Linear(10, 5))


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(20, 32), nn.LayerNorm(32), nn.PReLU(32), nn.Linear(32, 4))


BUILDERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (mlp, (20,)),
    "cnn": (cnn, (3, 12, 12)),
    "resnet": (resnet, IMAGE),
    "mobilenet": (mobilenet, IMAGE),
    "joined": (joined, IMAGE),
    "normed": (normed, (20,)),
}


def made(name: str) -> tuple[nn.Module, torch.Tensor]:
    """A model as if trained: BatchNorm has seen data; and rows."""
    build, shape = BUILDERS[name]
    torch.manual_seed(3)
    model = build()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2.0)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias)
    scale = 255.0 if shape == IMAGE else 1.0
    return model.eval(), torch.rand((6, *shape)) * scale


def arrays(model: nn.Module) -> list[np.ndarray]:
    return [value.numpy().copy() for value in model.state_dict().values()]


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", BUILDERS)
def test_half_of_the_channels_go_and_the_rest_computes(name: str) -> None:
    model, x = made(name)
    before, answered = arrays(model), model(x).detach()

    pruned = prune_channels(model, 0.5, x)

    assert parameters(pruned) < 0.62 * parameters(model)
    assert pruned(x).shape == answered.shape
    assert all(np.array_equal(a, b) for a, b in zip(before, arrays(model), strict=True)), (
        "the argument changed"
    )
    assert torch.equal(model(x), answered)
    for (
        name_,
        layer,
    ) in pruned.named_modules():  # the numbers that layers say of themselves are their weights'
        if isinstance(layer, nn.Linear):
            assert layer.weight.shape == (layer.out_features, layer.in_features), name_
        if isinstance(layer, nn.Conv2d):
            assert layer.weight.shape[:2] == (layer.out_channels, layer.in_channels // layer.groups), name_


@pytest.mark.parametrize("name", BUILDERS)
def test_a_fresh_model_shrunk_to_the_weights_is_the_pruned_one(name: str) -> None:
    model, x = made(name)
    pruned = prune_channels(model, 0.4, x)
    weights = arrays(pruned)

    rebuilt = shrink_to(BUILDERS[name][0](), weights).eval()

    assert str(rebuilt) == str(pruned)
    assert torch.equal(rebuilt(x), pruned(x))
    weights[0][:] = 7.0
    assert not np.array_equal(arrays(rebuilt)[0], weights[0]), "it shares memory with the weights given"


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet", "resnet18", "mobilenetv2"])
def test_built_in_networks_shrink_and_are_rebuilt(name: str) -> None:
    shape = (20,) if name == "mlp" else (16, 16, 3)

    def build() -> nn.Module:
        return BUILT_IN[name](shape, 10, 255.0, 0.1)

    torch.manual_seed(0)
    model, x = build().eval(), torch.rand((2, *shape)) * 255
    pruned = prune_channels(model, 0.5, x)
    assert parameters(pruned) < 0.55 * parameters(model)
    assert pruned(x).shape == (2, 10)
    assert torch.equal(shrink_to(build(), arrays(pruned)).eval()(x), pruned(x))


def test_the_weakest_neurons_go_whole() -> None:
    model, x = made("mlp")
    with torch.no_grad():
        weak = [1, 5, 6, 17, 20, 22, 30, 31]
        model[0].weight[weak] = 0.0
        model[0].bias[weak] = 0.0
        model[3].weight[:, weak] = 0.0
    answered = model(x)

    pruned = prune_channels(model, 0.25, x, layers=["0"])

    assert pruned[0].out_features == pruned[3].in_features == 24
    assert pruned[3].out_features == 16, "a layer that was not named shrank"
    strong = [neuron for neuron in range(32) if neuron not in weak]
    assert torch.equal(pruned[0].weight, model[0].weight[strong])
    torch.testing.assert_close(pruned(x), answered, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "layers", "makers", "norms", "readers"),
    [
        (  # a residual stream: one set of channels for all that write to it or read from it
            "resnet",
            ["body.0.0", "body.1.second"],
            ["body.0.0", "body.1.second"],
            ["body.0.1", "body.1.norm2"],
            ["body.1.first", "body.2.first", "body.2.shortcut.0"],
        ),
        (
            "mobilenet",
            ["body.2.layers.0"],
            ["body.2.layers.0", "body.2.layers.3"],
            ["body.2.layers.1", "body.2.layers.4"],
            ["body.2.layers.6"],
        ),
        ("joined", ["body.right"], ["body.right"], [], ["body.after"]),
        ("cnn", ["0"], ["0"], [], ["4"]),
    ],
)
def test_the_weakest_channels_go_whole(
    name: str, layers: list[str], makers: list[str], norms: list[str], readers: list[str]
) -> None:
    """Channels that are zero wherever they are made and read go first, and without them all stays equal."""
    model, x = made(name)
    width = model.get_submodule(makers[0]).out_channels
    weak = list(range(1, width, 4))
    # Where a reader finds these channels: behind the other branch, or as 36 features each.
    places = {"joined": [8 + c for c in weak], "cnn": [36 * c + k for c in weak for k in range(36)]}
    read = places.get(name, weak)
    with torch.no_grad():
        for layer in map(model.get_submodule, (*makers, *norms)):
            layer.weight[weak] = 0.0
            if layer.bias is not None:
                layer.bias[weak] = 0.0
        for layer in map(model.get_submodule, readers):
            layer.weight[:, read] = 0.0
    answered = model(x)

    pruned = prune_channels(model, len(weak) / width, x, layers=layers)

    torch.testing.assert_close(pruned(x), answered, rtol=1e-5, atol=1e-6)
    strong = [channel for channel in range(width) if channel not in weak]
    for layer in makers:
        assert torch.equal(pruned.get_submodule(layer).weight, model.get_submodule(layer).weight[strong])
    for layer in readers:
        full, small = (each.get_submodule(layer).weight for each in (model, pruned))
        kept = [position for position in range(full.shape[1]) if position not in read]
        assert torch.equal(small, full[:, kept])


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.99])
def test_the_share_is_exact_and_one_channel_stays(share: float) -> None:
    model, x = made("mlp")
    pruned = prune_channels(model, share, x)
    widths = [pruned[0].out_features, pruned[3].out_features, pruned[5].out_features]
    assert widths == [max(1, 32 - round(share * 32)), max(1, 16 - round(share * 16)), 4]


def test_the_same_model_is_pruned_alike() -> None:
    model, x = made("mobilenet")
    with torch.no_grad():
        for parameter in model.parameters():  # all alike: only the position is left to decide
            parameter.fill_(0.1)
    first, second = (arrays(prune_channels(model, 0.3, x)) for _ in range(2))
    other_rows = arrays(prune_channels(model, 0.3, torch.flip(x, [0])))
    for one, two, three in zip(first, second, other_rows, strict=True):
        assert np.array_equal(one, two) and np.array_equal(one, three)


def test_training_mode_and_frozen_parameters_stay() -> None:
    model, x = made("resnet")
    model.train()
    model.body[1].eval()
    model.body[0][0].weight.requires_grad_(False)
    with torch.no_grad():
        pruned = prune_channels(model, 0.5, x)
    assert [m.training for m in pruned.modules()] == [m.training for m in model.modules()]
    assert [p.requires_grad for p in pruned.parameters()] == [p.requires_grad for p in model.parameters()]
    pruned(x).sum().backward()
    assert all(p.grad.shape == p.shape for p in pruned.parameters() if p.requires_grad)


class ReordersBeforeFlattening(nn.Module):
    """As Keras flattens: channels last. The dependency graph does not see that the order changes."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8 * 100, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.convolution(x)).permute(0, 2, 3, 1).flatten(1))


class SumsWithItsInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.back, self.head = nn.Linear(20, 16), nn.Linear(16, 20), nn.Linear(20, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x + self.back(torch.relu(self.inner(x))))


class KnowsItsWidth(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.convolution(x).reshape(-1, 8, 100).mean(2))


class LeavesTorch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(20, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.from_numpy(self.first(x).numpy()))


@pytest.mark.parametrize(
    ("model", "shape", "words"),
    [
        (ReordersBeforeFlattening(), (3, 12, 12), "reorders"),
        (SumsWithItsInput(), (20,), "without the removed channels"),
        (KnowsItsWidth(), (3, 12, 12), "without the removed channels"),
        (LeavesTorch(), (20,), "followed"),
        (nn.Sequential(nn.Linear(20, 4), nn.Softmax(-1)), (20,), "no channels"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_models_whose_channels_cannot_be_removed(
    model: nn.Module, shape: tuple[int, ...], words: str
) -> None:
    torch.manual_seed(0)
    with pytest.raises(ModelError, match=words) as caught:
        prune_channels(model, 0.5, torch.rand((4, *shape)))
    assert "prune.layers" in str(caught.value) and "\n" not in str(caught.value)


def test_layers_that_cannot_shrink_are_left_by_naming_others() -> None:
    model, x = SumsWithItsInput().eval(), torch.rand(4, 20)
    pruned = prune_channels(model, 0.5, x, layers=["inner"])
    assert (pruned.inner.out_features, pruned.back.in_features, pruned.back.out_features) == (8, 8, 20)
    assert pruned(x).shape == (4, 4)


def test_grouped_convolutions_stay_whole() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(4, 8, 3),
        nn.Conv2d(8, 8, 3, groups=2),
        nn.Conv2d(8, 6, 1),
        nn.Flatten(),
        nn.Linear(6 * 16, 3),
    ).eval()
    pruned = prune_channels(model, 0.5, torch.rand(4, 4, 8, 8))
    assert [layer.out_channels for layer in pruned[:3]] == [8, 8, 3]


@pytest.mark.parametrize(
    ("share", "layers", "words"),
    [
        (1.0, None, "out of range"),
        (-0.1, None, "out of range"),
        (float("nan"), None, "out of range"),
        (0.5, ["body.0.O"], "names no layer"),
        (0.5, ["head"], "names no layer"),
        (0.5, ["body.0.0"], "body.1.second"),
    ],
)
def test_bad_settings(share: float, layers: list[str] | None, words: str) -> None:
    model, x = made("resnet")
    with pytest.raises(RecipeError, match=words):
        prune_channels(model, share, x, layers)


def test_weights_that_no_pruning_gives() -> None:
    model, x = made("mlp")
    weights = arrays(prune_channels(model, 0.5, x))
    with pytest.raises(ModelError, match="allowed: 6 arrays"):
        shrink_to(mlp(), weights[:-1])
    for position, wrong in ((0, np.zeros((33, 20))), (0, np.zeros((0, 20))), (1, np.zeros((2, 2)))):
        changed = [np.float32(wrong) if at == position else array for at, array in enumerate(weights)]
        with pytest.raises(ModelError, match="do not fit"):
            shrink_to(mlp(), changed)
