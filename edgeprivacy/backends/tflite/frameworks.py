"""TensorFlow, tf_keras and tfmot, imported once, quietly, with one thread.

Two threads in two processes on two cores are several times slower than one each, and weights depend on the
number of threads, so it is always one (recorded in every cache key).
"""

from __future__ import annotations

import os
import warnings
from importlib.metadata import version

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
warnings.filterwarnings("ignore", module="tensorflow|tf_keras|keras|tensorflow_model_optimization")

import tensorflow as tf  # noqa: E402
import tensorflow_model_optimization as tfmot  # noqa: E402
import tf_keras as keras  # noqa: E402

THREADS = 1

try:
    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(THREADS)
except RuntimeError:  # TensorFlow was already used in this process, by its owner's settings
    pass
tf.get_logger().setLevel("ERROR")


def versions() -> dict[str, str]:
    """Versions of every package that shapes the weights and the files, and the thread count."""
    names = ("tensorflow", "tf_keras", "tensorflow-model-optimization", "numpy")
    return {**{name: version(name) for name in names}, "threads": str(THREADS)}


__all__ = ["THREADS", "keras", "tf", "tfmot", "versions"]
