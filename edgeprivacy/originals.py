"""The model that audited files were made from, as something that can be run beside them."""

from __future__ import annotations

from pathlib import Path

from edgeprivacy.cache import Cache, default_cache_folder
from edgeprivacy.errors import ModelError
from edgeprivacy.files import sha256_file


def runnable_original(path: Path) -> Path:
    """A model file that runs: the file itself, or the float32 conversion of a Keras file, kept in the cache.

    Raises:
        ModelError: It is no Keras model.
        MissingDependency: TensorFlow is not installed.
    """
    if path.suffix not in (".keras", ".h5", ".hdf5"):
        return path
    if not path.is_file():
        raise ModelError(f"the original {path} does not exist")
    from edgeprivacy.backends.table import backend_versions

    versions = backend_versions("tflite")
    from edgeprivacy.backends.tflite.models import load_file
    from edgeprivacy.converters.tflite.convert import convert

    cache = Cache(default_cache_folder())
    key = cache.key("converted", {"file": sha256_file(path), "versions": versions})
    name = f"{path.stem}.tflite"

    def make(folder: Path) -> None:
        convert(load_file(path), "float32", None, folder / name)

    entry, _ = cache.entry("converted", key, make)
    return entry / name
