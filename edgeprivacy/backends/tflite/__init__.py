"""The TF-Lite backend: tf_keras models, tfmot compression. The only room, with its converter, that imports
TensorFlow."""

# First of all: it says how TensorFlow is to be imported, and each module here imports it or tfmot.
import edgeprivacy.backends.tflite.frameworks  # noqa: F401
