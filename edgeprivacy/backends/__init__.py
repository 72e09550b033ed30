"""Frameworks: train, compress, convert. One folder a backend, one line in the table."""

from edgeprivacy.backends.table import BACKENDS, backend_entry, backend_versions, open_backend

__all__ = ["BACKENDS", "backend_entry", "backend_versions", "open_backend"]
