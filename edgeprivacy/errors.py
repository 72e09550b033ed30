"""Every error a user can meet, as one tree. Each class carries the exit code of the command line.

EdgePrivacyError
├── UsageError            2   an option, an expression or an output folder cannot be used as asked
│   ├── RecipeError       2   the recipe has an unknown key or a value out of range
│   ├── DataError         2   the data cannot be read or does not fit
│   ├── ModelError        2   the model cannot be built, loaded or translated
│   ├── ArtifactError     2   a file is not the model file it should be
│   └── MissingDependency 2   an optional package is not installed
├── ConversionError       4   a file was written that does not hold what was asked for
├── RunnerError           4   an interpreter or a device failed
└── StorageError          4   the disk is full or not writable
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

EXIT_PASS = 0
EXIT_GATE_FAILED = 1
EXIT_USAGE = 2
EXIT_INCONCLUSIVE = 3
EXIT_RUNTIME = 4
EXIT_INTERRUPTED = 130


class EdgePrivacyError(Exception):
    """What is wrong, what was given, what is allowed and what to do next, in one line each.

    Args:
        what: The problem in one sentence.
        got: What was given, if that helps.
        allowed: What would have been accepted.
        hint: The next step for the user.
    """

    exit_code = EXIT_RUNTIME

    def __init__(
        self, what: str, *, got: object = None, allowed: str | None = None, hint: str | None = None
    ) -> None:
        self.what = what
        self.got = got
        self.allowed = allowed
        self.hint = hint
        parts = [what]
        if got is not None:
            parts.append(f"given: {got}")
        if allowed is not None:
            parts.append(f"allowed: {allowed}")
        if hint is not None:
            parts.append(hint)
        super().__init__("; ".join(parts))

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process boundaries: keep keyword arguments when pickled by a worker pool.
        return _rebuild, (type(self), self.what, self.got and str(self.got), self.allowed, self.hint)


def _rebuild(
    cls: type[EdgePrivacyError], what: str, got: object, allowed: str | None, hint: str | None
) -> EdgePrivacyError:
    return cls(what, got=got, allowed=allowed, hint=hint)


class UsageError(EdgePrivacyError):
    """An option, an expression or an output folder cannot be used as asked."""

    exit_code = EXIT_USAGE


class RecipeError(UsageError):
    """The recipe has an unknown key or a value out of range."""


class DataError(UsageError):
    """The data cannot be read or does not fit what is asked of it."""


class ModelError(UsageError):
    """The model cannot be built, loaded or translated."""


class ArtifactError(UsageError):
    """A file is not the model file it should be (truncated, foreign, or of another format)."""


class MissingDependency(UsageError):
    """An optional package is not installed.

    Args:
        feature: What the user wanted to do.
        extra: The extra of edgeprivacy that brings the package.
    """

    def __init__(self, feature: str, *, extra: str) -> None:
        self.feature, self.extra = feature, extra
        super().__init__(
            f"{feature} needs packages that are not installed",
            hint=f"install them with: pip install 'edgeprivacy[{extra}]'",
        )

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_missing, (self.feature, self.extra)


def _rebuild_missing(feature: str, extra: str) -> MissingDependency:
    return MissingDependency(feature, extra=extra)


class ConversionError(EdgePrivacyError):
    """A file was written that does not hold what was asked for."""


class RunnerError(EdgePrivacyError):
    """An interpreter or a device failed."""


class StorageError(EdgePrivacyError):
    """The disk is full or not writable."""


def did_you_mean(given: str, known: Iterable[str]) -> str | None:
    """A sentence naming the closest known word, or None if nothing is close."""
    matches = get_close_matches(given, list(known), n=1, cutoff=0.5)
    return f"did you mean '{matches[0]}'?" if matches else None
