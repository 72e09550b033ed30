"""ResNet-18 and MobileNetV2 in their CIFAR forms (no early reduction of 32x32 images), under torchvision's
layer names. Rows are images [height, width, channels] in raw units; both end in logits."""

from __future__ import annotations

from edgeprivacy.backends.executorch.built_in import RawImages
from edgeprivacy.backends.executorch.frameworks import torch

nn = torch.nn

_BOTTLENECKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, channels, blocks and first stride (Sandler et al., 2018, table 2; the second stride is 1)."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al., 2016)."""

    def __init__(self, inputs: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, filters, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inputs != filters:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, filters, 1, stride, bias=False), nn.BatchNorm2d(filters)
            )

    def forward(self, x):
        """[batch, inputs, h, w] to [batch, filters, h / stride, w / stride]."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(x)) + shortcut)


def _stage(inputs: int, filters: int, stride: int):
    return nn.Sequential(BasicBlock(inputs, filters, stride), BasicBlock(filters, filters, 1))


class ResNet18(RawImages):
    """A 3x3 stem and four stages of two blocks, 64 to 512 filters."""

    def __init__(self, input_shape: tuple[int, ...], classes: int, scale: float, dropout: float) -> None:
        super().__init__(scale)
        del dropout
        self.conv1 = nn.Conv2d(input_shape[2], 64, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _stage(64, 64, 1)
        self.layer2 = _stage(64, 128, 2)
        self.layer3 = _stage(128, 256, 2)
        self.layer4 = _stage(256, 512, 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512, classes)
        _initialise(self)

    def forward(self, x):
        """Logits [batch, classes] of images [batch, height, width, channels]."""
        x = torch.relu(self.bn1(self.conv1(self.channels_first(x))))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return self.fc(self.avgpool(x).flatten(1))


def _unit(inputs: int, filters: int, kernel: int, stride: int = 1, groups: int = 1):
    return [
        nn.Conv2d(inputs, filters, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(filters),
        nn.ReLU6(),
    ]


class InvertedResidual(nn.Module):
    """Expansion, depthwise filter, projection; a shortcut where nothing changes size."""

    def __init__(self, inputs: int, filters: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.adds = stride == 1 and inputs == filters
        self.conv = nn.Sequential(
            *(_unit(inputs, hidden, 1) if expansion != 1 else ()),
            *_unit(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, filters, 1, bias=False),
            nn.BatchNorm2d(filters),
        )

    def forward(self, x):
        """[batch, inputs, h, w] to [batch, filters, h / stride, w / stride]."""
        return x + self.conv(x) if self.adds else self.conv(x)


class MobileNetV2(RawImages):
    """A 3x3 stem, seventeen inverted residuals, 1280 features."""

    def __init__(self, input_shape: tuple[int, ...], classes: int, scale: float, dropout: float) -> None:
        super().__init__(scale)
        layers, inputs = _unit(input_shape[2], 32, 3), 32
        for expansion, filters, blocks, stride in _BOTTLENECKS:
            for block in range(blocks):
                layers.append(InvertedResidual(inputs, filters, stride if block == 0 else 1, expansion))
                inputs = filters
        self.features = nn.Sequential(*layers, *_unit(inputs, 1280, 1))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(1280, classes))
        _initialise(self)

    def forward(self, x):
        """Logits [batch, classes] of images [batch, height, width, channels]."""
        return self.classifier(self.avgpool(self.features(self.channels_first(x))).flatten(1))


def _initialise(network) -> None:
    """As torchvision does: He et al. by fan-out for filters, a small normal for the classifier."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
