"""The built-in networks in torch: `mlp`, `cnn`, `resnet` and `resnet-no-norm` compute what the TF-Lite
backend's compute, layer by layer, and their layers have the same names. Rows are vectors, or images [height,
width, channels], in raw units; all end in logits.
"""

from __future__ import annotations

import math

from edgeprivacy.backends.executorch.frameworks import torch

nn = torch.nn

# Standard deviation of a standard normal truncated at two: Keras divides it out, torch does not.
_TRUNCATED = 0.87962566103423978


def truncated_normal_(weight, mean_fan: float, gain: float) -> None:
    """Keras' "normal" initialisers: variance gain / mean_fan, nothing beyond two standard deviations."""
    deviation = math.sqrt(gain / mean_fan) / _TRUNCATED
    nn.init.trunc_normal_(weight, std=deviation, a=-2 * deviation, b=2 * deviation)


def dense(inputs: int, outputs: int):
    """A linear layer: glorot_normal, biases zero."""
    layer = nn.Linear(inputs, outputs)
    truncated_normal_(layer.weight, (inputs + outputs) / 2, 1.0)
    nn.init.zeros_(layer.bias)
    return layer


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """What "same" adds before and after one dimension: the odd one, if any, goes after."""
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class RawImages(nn.Module):
    """What the networks on images have in common: rows [batch, h, w, c] in raw units to [batch, c, h, w]."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.factor = 1 / scale

    def channels_first(self, x):
        """Scaled, with the channels in the second place."""
        x = x.permute(0, 3, 1, 2)
        return x * self.factor if self.factor != 1 else x


class Mlp(nn.Module):
    """256-128 with ReLU and dropout (the tabular network of Yuan & Zhang and of WeMem)."""

    def __init__(self, input_shape: tuple[int, ...], classes: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.factor, self.flattens = 1 / scale, len(input_shape) > 1
        self.dense, self.dropout = dense(math.prod(input_shape), 256), nn.Dropout(dropout)
        self.dense_1, self.dropout_1 = dense(256, 128), nn.Dropout(dropout)
        self.logits = dense(128, classes)

    def forward(self, x):
        """Logits [batch, classes] of rows of any shape."""
        if self.factor != 1:
            x = x * self.factor
        if self.flattens:
            x = x.flatten(1)
        x = self.dropout(torch.relu(self.dense(x)))
        x = self.dropout_1(torch.relu(self.dense_1(x)))
        return self.logits(x)


class SameConvolutions(RawImages):
    """Convolutions with Keras' names and its "same" padding, which is lopsided where a stride meets an even
    size. Sizes of images are known when the network is built, so the padding is a constant of the file."""

    def __init__(self, input_shape: tuple[int, ...], scale: float) -> None:
        super().__init__(scale)
        self.size = tuple(input_shape[:2])
        self.paddings: list[tuple[int, int, int, int]] = []

    def add_convolution(
        self,
        size: tuple[int, ...],
        inputs: int,
        filters: int,
        kernel: int = 3,
        stride: int = 1,
        norm: bool = True,
    ) -> tuple[int, ...]:
        """Add the next convolution (he_normal), with BatchNorm or with a bias. Returns its output's size."""
        top, bottom = same_padding(size[0], kernel, stride)
        left, right = same_padding(size[1], kernel, stride)
        even = top == bottom and left == right
        layer = nn.Conv2d(inputs, filters, kernel, stride, (top, left) if even else 0, bias=not norm)
        truncated_normal_(layer.weight, inputs * kernel * kernel, 2.0)
        number = len(self.paddings)
        self.add_module(_numbered("conv2d", number), layer)
        if norm:
            self.add_module(
                _numbered("batch_normalization", number), nn.BatchNorm2d(filters, eps=1e-5, momentum=0.1)
            )
        elif layer.bias is not None:
            nn.init.zeros_(layer.bias)
        self.paddings.append((0, 0, 0, 0) if even else (left, right, top, bottom))
        return tuple(math.ceil(side / stride) for side in size)

    def convolve(self, number: int, x):
        """Convolution `number` and its BatchNorm."""
        if any(self.paddings[number]):
            x = nn.functional.pad(x, self.paddings[number])
        x = getattr(self, _numbered("conv2d", number))(x)
        norm = getattr(self, _numbered("batch_normalization", number), None)
        return x if norm is None else norm(x)


class Cnn(SameConvolutions):
    """Three 3x3 convolutions (16-32-64) with ReLU and pooling."""

    def __init__(self, input_shape: tuple[int, ...], classes: int, scale: float, dropout: float) -> None:
        super().__init__(input_shape, scale)
        size, inputs = self.size, input_shape[2]
        self.pool_paddings: list[tuple[int, int, int, int]] = []
        for filters in (16, 32, 64):
            self.add_convolution(size, inputs, filters, norm=False)
            # "same" pooling of an odd side; what is pooled is never negative, so zeros change no maximum.
            self.pool_paddings.append((0, size[1] % 2, 0, size[0] % 2))
            size, inputs = tuple(math.ceil(side / 2) for side in size), filters
        self.pool, self.average = nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.logits = dense(64, classes)

    def forward(self, x):
        """Logits [batch, classes] of images [batch, height, width, channels]."""
        x = self.channels_first(x)
        for number, padding in enumerate(self.pool_paddings):
            x = torch.relu(self.convolve(number, x))
            x = self.pool(nn.functional.pad(x, padding) if any(padding) else x)
        return self.logits(self.dropout(self.average(x).flatten(1)))


class ResNet8(SameConvolutions):
    """ResNet-8 in CIFAR form: a 3x3 stem and three residual blocks of 16-32-64 filters with BatchNorm."""

    norm = True

    def __init__(self, input_shape: tuple[int, ...], classes: int, scale: float, dropout: float) -> None:
        super().__init__(input_shape, scale)
        del dropout
        size = self.add_convolution(self.size, input_shape[2], 16, norm=self.norm)
        inputs, self.strides = 16, (1, 2, 2)
        self.branch_ends: list[str] = []
        for filters, stride in zip((16, 32, 64), self.strides, strict=True):
            if stride != 1:
                self.add_convolution(size, inputs, filters, 1, stride, norm=self.norm)
            size = self.add_convolution(size, inputs, filters, 3, stride, norm=self.norm)
            self.branch_ends.append(_numbered("conv2d", len(self.paddings)))
            self.add_convolution(size, filters, filters, norm=self.norm)
            inputs = filters
        self.average = nn.AdaptiveAvgPool2d(1)
        self.logits = dense(64, classes)

    def forward(self, x):
        """Logits [batch, classes] of images [batch, height, width, channels]."""
        x = torch.relu(self.convolve(0, self.channels_first(x)))
        number = 1
        for stride in self.strides:
            shortcut = x
            if stride != 1:
                shortcut = self.convolve(number, x)
                number += 1
            x = torch.relu(self.convolve(number, x))
            x = torch.relu(self.convolve(number + 1, x) + shortcut)
            number += 2
        return self.logits(self.average(x).flatten(1))


class ResNet8WithoutNorm(ResNet8):
    """The same with biases in the place of BatchNorm, so that each row has a gradient of its own.

    The last convolution of each residual branch starts at zero, as in Zhang et al., "Fixup Initialization",
    ICLR 2019: what BatchNorm does for a residual network is, above all, to make its branches small at first
    (De & Smith, "Batch Normalization Biases Residual Blocks Towards the Identity Function", NeurIPS 2020).
    Inputs from 0 to `scale` become -2 to 2, as no BatchNorm centres what the stem makes of them.
    """

    norm = False

    def __init__(self, input_shape: tuple[int, ...], classes: int, scale: float, dropout: float) -> None:
        super().__init__(input_shape, classes, scale, dropout)
        for name in self.branch_ends:
            nn.init.zeros_(getattr(self, name).weight)

    def channels_first(self, x):
        """Centred, with the channels in the second place."""
        x = super().channels_first(x)
        return x * 4 - 2 if self.factor != 1 else x


def _numbered(name: str, number: int) -> str:
    return f"{name}_{number}" if number else name
