"""Names to things. A new attack, defense, format or report is one file and one registration line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Generic, TypeVar

from edgeprivacy.errors import UsageError, did_you_mean

T = TypeVar("T")


class Registry(Generic[T]):
    """A dictionary of named things that refuses duplicates and helps with misspelt names.

    Args:
        kind: What it holds, for messages ("attack").
        modules: Modules whose import registers the built-in entries; imported on first look-up.
    """

    def __init__(self, kind: str, modules: tuple[str, ...] = ()) -> None:
        self.kind = kind
        self._modules = modules
        self._places = {module: place for place, module in enumerate(modules)}
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that files a thing under a name; a name that is taken is an error."""

        def add(entry: T) -> T:
            if name in self._entries:
                raise ValueError(f"{self.kind} '{name}' is registered twice")
            self._entries[name] = entry
            return entry

        return add

    def __getitem__(self, name: str) -> T:
        """Raises UsageError with the closest known name when `name` is unknown."""
        self._load()
        try:
            return self._entries[name]
        except KeyError:
            raise UsageError(
                f"unknown {self.kind} '{name}'",
                allowed=", ".join(self.names()),
                hint=did_you_mean(name, self._entries),
            ) from None

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def names(self) -> list[str]:
        """All names, in the order of the modules, whichever of them was imported first; others at the end."""
        self._load()
        last = len(self._places)
        return sorted(
            self._entries,
            key=lambda name: self._places.get(getattr(self._entries[name], "__module__", ""), last),
        )

    def _load(self) -> None:
        while self._modules:
            module, *rest = self._modules
            self._modules = tuple(rest)
            import_module(module)
