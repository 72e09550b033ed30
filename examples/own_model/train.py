"""Your own training, whatever it is: plain Keras here. Writes model.weights.h5."""

import numpy as np
import tf_keras as keras
from model import build

keras.utils.set_random_seed(1)
rows = np.load("train.npz")
model = build(keras)
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(rows["x"], rows["y"], epochs=30, batch_size=32, verbose=0)
model.save_weights("model.weights.h5")
