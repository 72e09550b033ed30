"""The built-in networks in Keras: rows are vectors, or images [height, width, channels], in raw units; all
end in a softmax of their own, whose input are the logits."""

from __future__ import annotations

from edgeprivacy.backends.tflite.frameworks import keras


def mlp(input_shape: tuple[int, ...], classes: int, scale: float, dropout: float):
    """256-128 with ReLU and dropout (the tabular network of Yuan & Zhang and of WeMem)."""
    x = inputs = keras.Input(input_shape)
    if scale != 1:
        x = keras.layers.Rescaling(1 / scale)(x)
    if len(input_shape) > 1:
        x = keras.layers.Flatten()(x)
    for width in (256, 128):
        x = keras.layers.Dense(width, activation="relu", kernel_initializer="glorot_normal")(x)
        if dropout:
            x = keras.layers.Dropout(dropout)(x)
    return _classify(inputs, x, classes)


def cnn(input_shape: tuple[int, ...], classes: int, scale: float, dropout: float):
    """Three 3x3 convolutions (16-32-64) with ReLU and pooling."""
    x = inputs = keras.Input(input_shape)
    if scale != 1:
        x = keras.layers.Rescaling(1 / scale)(x)
    for filters in (16, 32, 64):
        x = keras.layers.Conv2D(
            filters, 3, padding="same", activation="relu", kernel_initializer="he_normal"
        )(x)
        x = keras.layers.MaxPooling2D(padding="same")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    if dropout:
        x = keras.layers.Dropout(dropout)(x)
    return _classify(inputs, x, classes)


def resnet(input_shape: tuple[int, ...], classes: int, scale: float, dropout: float):
    """ResNet-8 in CIFAR form: a 3x3 stem and three residual blocks of 16-32-64 filters with BatchNorm."""
    del dropout
    return _residual(input_shape, classes, scale, norm=True)


def resnet_without_norm(input_shape: tuple[int, ...], classes: int, scale: float, dropout: float):
    """The same with biases in the place of BatchNorm, so that each row has a gradient of its own.

    The last convolution of each residual branch starts at zero, as in Zhang et al., "Fixup Initialization",
    ICLR 2019: what BatchNorm does for a residual network is, above all, to make its branches small at first
    (De & Smith, "Batch Normalization Biases Residual Blocks Towards the Identity Function", NeurIPS 2020).
    Inputs from 0 to `scale` become -2 to 2, as no BatchNorm centres what the stem makes of them.
    """
    del dropout
    return _residual(input_shape, classes, scale, norm=False)


def _residual(input_shape: tuple[int, ...], classes: int, scale: float, norm: bool):
    def convolution(x, filters: int, strides: int = 1, kernel: int = 3, ends_branch: bool = False):
        x = keras.layers.Conv2D(
            filters,
            kernel,
            strides,
            padding="same",
            use_bias=not norm,
            kernel_initializer="zeros" if ends_branch and not norm else "he_normal",
        )(x)
        # As in torch. Keras' own 0.99 needs hundreds of steps before inference sees usable statistics.
        return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x) if norm else x

    x = inputs = keras.Input(input_shape)
    if scale != 1:
        x = (keras.layers.Rescaling(1 / scale) if norm else keras.layers.Rescaling(4 / scale, -2.0))(x)
    x = keras.layers.ReLU()(convolution(x, 16))
    for filters, strides in ((16, 1), (32, 2), (64, 2)):
        shortcut = x if strides == 1 else convolution(x, filters, strides, kernel=1)
        x = keras.layers.ReLU()(convolution(x, filters, strides))
        x = convolution(x, filters, ends_branch=True)
        x = keras.layers.ReLU()(keras.layers.Add()([x, shortcut]))
    return _classify(inputs, keras.layers.GlobalAveragePooling2D()(x), classes)


def _classify(inputs, features, classes: int):
    logits = keras.layers.Dense(classes, kernel_initializer="glorot_normal", name="logits")(features)
    return keras.Model(inputs, keras.layers.Softmax(name="probabilities")(logits))


BUILT_IN = {"mlp": mlp, "cnn": cnn, "resnet": resnet, "resnet-no-norm": resnet_without_norm}
