"""Which files of the user's a file of the user's imports: what a result made by it depends on."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path


def imported_files(path: Path, roots: Sequence[Path]) -> list[Path]:
    """The file and, followed through, what it imports from below the roots: found by reading, nothing is run.

    Imports in functions count, names made up while running are not seen. Installed packages lie below no
    root.

    Args:
        path: A Python file.
        roots: Folders on the import path while it runs.

    Returns:
        Resolved paths, sorted.
    """
    folders = [root.resolve() for root in roots]
    found: set[Path] = set()
    waiting = [path.resolve()]
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        found.add(file)
        try:
            tree = ast.parse(file.read_bytes())
        except (OSError, SyntaxError, ValueError):
            continue  # importing it says what is wrong
        for start, name in _imports(tree, file, folders):
            waiting += _files(start, name)
    return sorted(found)


def _imports(tree: ast.Module, file: Path, roots: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Folder to start from and dotted name of everything that may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((root, alias.name) for alias in node.names for root in roots)
        elif isinstance(node, ast.ImportFrom):
            starts = [file.parents[node.level - 1]] if 0 < node.level <= len(file.parents) else roots
            for start in starts:
                prefix = f"{node.module}." if node.module else ""
                yield from ((start, prefix + alias.name) for alias in node.names)


def _files(start: Path, dotted: str) -> Iterator[Path]:
    """The module's file and those of the packages on the way to it; the last parts may be no modules."""
    here = start
    for part in dotted.split("."):
        if (module := here / f"{part}.py").is_file():
            yield module.resolve()
        if (package := here / part / "__init__.py").is_file():
            yield package.resolve()
        here = here / part
