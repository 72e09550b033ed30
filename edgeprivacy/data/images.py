"""Data as a folder of images, one folder a class."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.data.rows import Rows
from edgeprivacy.errors import DataError, MissingDependency

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
_MODES = {"L": 1, "RGB": 3, "RGBA": 4}


def read_images(folder: Path, only: Collection[str] | None = None) -> Rows:
    """Images as float32 [rows, height, width, channels] with raw values 0..255; scaling is the model's.

    The class is the name of the folder that holds the file. `folder/<class>/*.jpg` and, for a set that is
    stored in parts, `folder/<part>/<class>/*.jpg` are read; all parts are one pool. Ids are paths relative to
    `folder`. Rows stand in the order of their ids.

    Args:
        folder: The folder.
        only: Ids to read, in any order; the others are left on the disk. None reads all.

    Raises:
        DataError: No images, two layouts mixed, an unreadable file, or files of different size or mode.
        MissingDependency: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError:
        raise MissingDependency("reading image folders", extra="images") from None

    files = _files(folder)
    if only is not None:
        wanted = set(only)
        files = {row_id: path for row_id, path in files.items() if row_id in wanted}
        if not files:
            raise DataError(f"{folder} no longer holds the images that were read from it")
    x: NDArray[np.uint8] | None = None
    mode = ""
    for row, (row_id, path) in enumerate(files.items()):
        pixels, found = _pixels(Image, path, row_id)
        if x is None:
            mode, first = found, row_id
            x = np.empty((len(files), *pixels.shape), dtype=np.uint8)
        elif pixels.shape != x.shape[1:] or found != mode:
            raise DataError(
                f"images of {folder} differ in size or mode",
                got=f"{_size(x[0], mode)} in {first}, {_size(pixels, found)} in {row_id}",
                hint="convert them to one size and mode before",
            )
        x[row] = pixels
    assert x is not None
    return Rows(
        x=x.astype(np.float32),
        labels=np.array([path.parent.name for path in files.values()], dtype=np.str_),
        where=folder.name or str(folder),
        stem=folder.name,
        ids=np.array(list(files), dtype=np.str_),
        numbered=True,
    )


def _files(folder: Path) -> dict[str, Path]:
    """Image files by id, in order."""
    found: dict[str, Path] = {}
    depths: dict[int, str] = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in relative.parts):
            found[relative.as_posix()] = path
            depths.setdefault(len(relative.parts), relative.as_posix())
    layout = "folder/<class>/image or folder/<part>/<class>/image"
    if not found:
        raise DataError(f"{folder} holds no images", allowed=f"{', '.join(sorted(SUFFIXES))} as {layout}")
    if len(depths) > 1 or not depths.keys() <= {2, 3}:
        raise DataError(
            f"images of {folder} do not lie one folder a class",
            got=", ".join(depths.values()),
            allowed=layout,
        )
    return found


def _pixels(image_module: Any, path: Path, row_id: str) -> tuple[NDArray[np.uint8], str]:
    """uint8 [height, width, channels] and the mode of one file."""
    try:
        with image_module.open(path) as image:
            mode = str(image.mode)
            if mode not in _MODES:
                raise DataError(
                    f"image {row_id} has mode {mode}",
                    allowed=", ".join(_MODES),
                    hint="convert the images to RGB before",
                )
            pixels = np.asarray(image, dtype=np.uint8)
    except DataError:
        raise
    except Exception as error:  # Pillow raises many kinds on damaged files, struct.error among them
        raise DataError(
            f"image {row_id} cannot be read", got=" ".join(str(error).split()) or type(error).__name__
        ) from None
    return pixels.reshape(*pixels.shape[:2], _MODES[mode]), mode


def _size(pixels: NDArray[np.uint8], mode: str) -> str:
    height, width = pixels.shape[:2]
    return f"{width}x{height} {mode}"
