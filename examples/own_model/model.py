"""The network. `build` is given tf_keras, the only Keras that tfmot compresses."""


def build(keras):
    layers = keras.layers
    model = keras.Sequential([layers.Input((8, 8, 1))])
    model.add(layers.Rescaling(1 / 16))  # scaling belongs into the model, so that it is in the file, too
    model.add(layers.Conv2D(16, 3, padding="same", activation="relu"))
    model.add(layers.MaxPooling2D())
    model.add(layers.Conv2D(32, 3, activation="relu"))
    model.add(layers.Flatten())
    model.add(layers.Dense(10, activation="softmax"))
    return model
