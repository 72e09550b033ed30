"""Where the winner is made again: re-audit/ is the last search's, whole, and no other's is lost. A search
that is killed while one takes the other's place leaves none there; the same command again does."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from edgeprivacy.errors import StorageError
from edgeprivacy.recipe import Recipe

FOLDER = "re-audit"


def re_audit_folder(out: Path, recipe: Recipe) -> Path:
    """Where a winner is made again: in re-audit/ where that is free or its own, else beside it, in
    re-audit-ID/ by its recipe's id, until `settle` lets it take the place."""
    shown, own = out / FOLDER, _aside(out, recipe.id)
    owner = _owner(shown)
    return shown if owner == recipe.id or (owner is None and not own.exists()) else own


def settle(out: Path, folder: Path | None) -> None:
    """Let a folder of `re_audit_folder` be re-audit/, once it is whole. What stood there of another winner
    stands aside under its own name; so it does where nothing keeps the budget, and `folder` is None.

    Raises:
        StorageError: A folder cannot be renamed.
    """
    shown = out / FOLDER
    owner = _owner(shown)
    if folder == shown:
        return
    try:
        if owner is not None:
            shown.rename(_aside(out, owner))
        if folder is not None:
            folder.rename(shown)
    except OSError as error:
        raise StorageError(f"cannot rename the re-audits in {out}", got=error.strerror) from None


def _owner(folder: Path) -> str | None:
    """The id of the recipe that a folder of `compress` belongs to, by its marker; None where it has none."""
    with suppress(OSError, IndexError):
        return (folder / ".edgeprivacy").read_text().split()[1]
    return None


def _aside(out: Path, recipe_id: str) -> Path:
    return out / f"{FOLDER}-{recipe_id}"
