"""Frameworks that train, compress and convert. Each is a folder here; see `base`."""

from edgeprivacy.backends.base import Backend, Session, open_backend

__all__ = ["Backend", "Session", "open_backend"]
