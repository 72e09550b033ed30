"""TensorFlow, tf_keras and tfmot, imported once, quietly, with one thread (see `backends.table.THREADS`)."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# One arithmetic on all processors: by default those with VNNI would train with oneDNN's, to other files.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# `tf.keras` is then the tf_keras that tfmot takes, for a user's factories too, and TensorFlow does not import
# Keras 3 (with pandas, scikit-learn and matplotlib: as long as all the rest of it).
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
warnings.filterwarnings("ignore", module="tensorflow|tf_keras|keras|tensorflow_model_optimization")


@contextmanager
def _without_keras3() -> Iterator[None]:
    """tfmot looks for a module of Keras 2 in whatever is named `keras`, does not find it in Keras 3, and goes
    on without: it need not be imported for that."""
    if "keras" in sys.modules:
        yield
        return
    sys.modules["keras"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["keras"]


import tensorflow as tf  # noqa: E402

with _without_keras3():
    import tensorflow_model_optimization as tfmot
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
