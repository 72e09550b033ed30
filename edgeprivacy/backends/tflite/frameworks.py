"""TensorFlow, tf_keras and tfmot, imported once, quietly, with one thread (see `backends.table.THREADS`)."""

from __future__ import annotations

import os
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
warnings.filterwarnings("ignore", module="tensorflow|tf_keras|keras|tensorflow_model_optimization")

import tensorflow as tf  # noqa: E402
import tensorflow_model_optimization as tfmot  # noqa: E402
import tf_keras as keras  # noqa: E402

from edgeprivacy.backends.table import THREADS  # noqa: E402

try:
    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(THREADS)
except RuntimeError:  # TensorFlow was already used in this process, by its owner's settings
    pass
tf.get_logger().setLevel("ERROR")
# Dropout then draws from a generator that `CompiledNetwork.load` resets. Else its numbers hang on what the
# process trained before: another number of workers, or a resumed run, would give other weights.
keras.backend.experimental.enable_tf_random_generator()


__all__ = ["keras", "tf", "tfmot"]
