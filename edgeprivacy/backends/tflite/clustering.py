"""Weight clustering through tfmot, with or without keeping a pruned model's zeros."""

from __future__ import annotations

from collections.abc import Sequence

from tensorflow_model_optimization.python.core.clustering.keras.experimental import cluster as experimental

from edgeprivacy.backends.tflite.frameworks import keras, tfmot


def wrap_for_clustering(model, layers: Sequence[str], clusters: int, preserve_sparsity: bool):
    """A copy of the model whose named layers share `clusters` weights each; the argument is not touched.

    tfmot wraps the very layers it is given, so they are copied first.
    """
    settings = {
        "number_of_clusters": clusters,
        "cluster_centroids_init": tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS,
    }
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())

    def wrap(layer):
        if layer.name not in layers:
            return layer
        if preserve_sparsity:
            return experimental.cluster_weights(layer, preserve_sparsity=True, **settings)
        return tfmot.clustering.keras.cluster_weights(layer, **settings)

    return keras.models.clone_model(copy, clone_function=wrap)


def strip(wrapped):
    """The plain model with the clustered weights."""
    return tfmot.clustering.keras.strip_clustering(wrapped)
