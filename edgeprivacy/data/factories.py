"""The user's own functions: found by "file.py:function" or "module:function", called, and their errors told
in one line with the place in the user's file."""

from __future__ import annotations

import hashlib
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from edgeprivacy.errors import DataError, EdgePrivacyError, did_you_mean

_FORMAT = "file.py:function or module:function"
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def is_factory(reference: str) -> bool:
    """Whether a text names a function ("file.py:function", "module:function") rather than a file."""
    place, _, function = reference.rpartition(":")
    return function.isidentifier() and (place.endswith(".py") or _MODULE.fullmatch(place) is not None)


def load_factory(
    reference: str, kind: str, *, error: type[EdgePrivacyError] = DataError
) -> Callable[..., Any]:
    """The function that a reference names. The user's code is imported, and so runs.

    The folder of the file, or the working directory for a module, is on the import path, so that the user's
    other files can be imported.

    Args:
        reference: "file.py:function" or "module:function".
        kind: What it makes, for messages ("data", "model").
        error: Class of the error that is raised (`DataError`, `ModelError`).

    Raises:
        EdgePrivacyError: Of class `error`: malformed reference, missing file, module or function, or the
            user's file cannot be imported.
    """
    if not is_factory(reference):
        raise error(f"this does not name a {kind} factory", got=reference, allowed=_FORMAT)
    place, _, name = reference.rpartition(":")
    module = _from_file(place, kind, error) if place.endswith(".py") else _from_module(place, kind, error)
    try:
        function = getattr(module, name)
    except AttributeError:
        offered = [
            word for word, thing in vars(module).items() if callable(thing) and not word.startswith("_")
        ]
        raise error(
            f"{place} has no function '{name}'", hint=did_you_mean(name, offered) or _offer(offered)
        ) from None
    if not callable(function):
        raise error(f"'{name}' in {place} is not a function", got=type(function).__name__)
    assert callable(function)
    return function  # type: ignore[no-any-return]


def call_factory(
    function: Callable[..., Any],
    reference: str,
    kind: str,
    *,
    error: type[EdgePrivacyError] = DataError,
    **arguments: Any,
) -> Any:
    """Call a user's function; whatever it raises becomes one line. What it prints goes to stderr.

    Raises:
        EdgePrivacyError: Of class `error`, naming the factory, the exception's type and message, and the
            line in the user's file.
    """
    unfilled = [name for name in required_parameters(function) if name not in arguments]
    if unfilled:
        raise error(
            f"the {kind} factory {reference} takes parameters that nothing fills",
            got=", ".join(unfilled),
            hint="give them default values",
        )
    try:
        with redirect_stdout(sys.stderr):
            return function(**arguments)
    except (Exception, SystemExit) as failure:
        code = getattr(inspect.unwrap(function), "__code__", None)
        raise _told(failure, reference, kind, error, code.co_filename if code else None) from None


def parameters(function: Callable[..., Any]) -> frozenset[str]:
    """Names of the parameters that can be given by keyword; empty where they cannot be found out."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return frozenset()
    return frozenset(p.name for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))


def required_parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    """Names of the parameters without a default."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return ()
    return tuple(
        p.name for p in found if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    )


def _offer(names: list[str]) -> str:
    return f"it has: {', '.join(names[:10])}" if names else "it defines no function"


def _from_file(place: str, kind: str, error: type[EdgePrivacyError]) -> ModuleType:
    path = Path(place)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise error(f"the {kind} factory's file {place} does not exist") from None
    except OSError as failure:
        raise error(f"the {kind} factory's file {place} cannot be read", got=failure.strerror) from None
    # Named after path and content: two files may share a stem, and an edited file is imported anew.
    digest = hashlib.sha256(str(path.resolve()).encode() + b"\0" + content).hexdigest()[:16]
    name = f"_edgeprivacy_user_{path.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = spec_from_file_location(name, path.resolve())
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _import_path(path.resolve().parent), redirect_stdout(sys.stderr):
            spec.loader.exec_module(module)
    except BaseException as failure:
        del sys.modules[name]
        if isinstance(failure, Exception | SystemExit):
            raise _told(failure, place, kind, error, str(path.resolve()), verb="cannot be imported") from None
        raise
    return module


def _from_module(place: str, kind: str, error: type[EdgePrivacyError]) -> ModuleType:
    try:
        with _import_path(Path.cwd()), redirect_stdout(sys.stderr):
            return import_module(place)
    except ModuleNotFoundError as failure:
        if failure.name and (place == failure.name or place.startswith(f"{failure.name}.")):
            raise error(
                f"the {kind} factory's module '{place}' is not found",
                hint="install it, or run in the folder that holds it; a file is named 'file.py:function'",
            ) from None
        raise _told(failure, place, kind, error, None, verb="cannot be imported") from None
    except (Exception, SystemExit) as failure:
        raise _told(failure, place, kind, error, None, verb="cannot be imported") from None


@contextmanager
def _import_path(folder: Path) -> Iterator[None]:
    """The folder first while importing, as for a script; last afterwards, for imports inside functions."""
    entry = str(folder)
    known = entry in sys.path
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        sys.path.remove(entry)
        if not known:
            sys.path.append(entry)


def _told(
    failure: BaseException,
    place: str,
    kind: str,
    error: type[EdgePrivacyError],
    file: str | None,
    verb: str = "failed",
) -> EdgePrivacyError:
    """The failure in one line: type, message, and the last line in the user's file that led to it."""
    message = " ".join(str(failure).split())
    if len(message) > 300:
        message = message[:297] + "..."
    line = _line(failure, file)
    return error(
        f"the {kind} factory {place} {verb}",
        got=f"{type(failure).__name__}: {message}" if message else type(failure).__name__,
        hint=f"see {line}" if line else None,
    )


def _line(failure: BaseException, file: str | None) -> str | None:
    if isinstance(failure, SyntaxError) and failure.filename:
        return f"{failure.filename}, line {failure.lineno}"
    frames = traceback.extract_tb(failure.__traceback__)
    own = str(Path(__file__).resolve())
    foreign = [f for f in frames if f.filename != own and not f.filename.startswith("<frozen")]
    users = [f for f in foreign if file is not None and Path(f.filename).resolve() == Path(file).resolve()]
    # Without a known file (a module) the user's code is what lies outside installed packages.
    users = users or [
        f for f in foreign if "site-packages" not in f.filename and "/lib/python" not in f.filename
    ]
    chosen = (users or foreign)[-1:]
    return f"{chosen[0].filename}, line {chosen[0].lineno}" if chosen else None
