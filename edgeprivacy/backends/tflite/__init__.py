"""The TF-Lite backend: tf_keras models, tfmot compression. The only room, with its converter, that imports
TensorFlow."""
