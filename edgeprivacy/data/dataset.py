"""Rows with identities: what every loader returns and every later step names rows by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.errors import DataError
from edgeprivacy.files import sha256_arrays


class PathError(DataError):
    """Rows of one side cannot be sent through the other side's loader: null test (a) cannot run on them."""


@dataclass(frozen=True)
class Dataset:
    """Inputs, labels and row identities.

    Attributes:
        x: [rows, ...] float32 or uint8, as the model takes it (any scaling is inside the model).
        y: int64 [rows], classes 0..classes-1; or 0 and 1 [rows, classes] where labels are independent.
        ids: str [rows], unique.
        classes: Number of classes (at least 2), as declared or the largest label plus one.
        class_names: One name a class.
        source: Where it came from, for reports.
    """

    x: NDArray[Any]
    y: NDArray[np.int64]
    ids: NDArray[np.str_]
    classes: int
    class_names: tuple[str, ...]
    source: str

    def __len__(self) -> int:
        return len(self.y)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return tuple(self.x.shape[1:])

    @property
    def label_sets(self) -> bool:
        """Whether a row has several independent labels."""
        return self.y.ndim == 2

    @cached_property
    def positions(self) -> dict[str, int]:
        """Row id to position."""
        return {str(row_id): position for position, row_id in enumerate(self.ids)}

    def index(self, ids: NDArray[np.str_]) -> NDArray[np.intp]:
        """Positions of these ids, in their order.

        Raises:
            DataError: An id is not in the data set.
        """
        try:
            return np.array([self.positions[str(row_id)] for row_id in ids], dtype=np.intp)
        except KeyError as error:
            raise DataError(f"a row id is not in the data of {self.source}", got=error.args[0]) from None

    def take(self, ids: NDArray[np.str_]) -> Dataset:
        """The rows of these ids, in their order.

        Raises:
            DataError: An id is not in the data set.
        """
        index = self.index(ids)
        return Dataset(
            self.x[index], self.y[index], self.ids[index], self.classes, self.class_names, self.source
        )

    @cached_property
    def sha256(self) -> str:
        """Hash of inputs, labels and ids: the identity of the content, whatever it was cut out of."""
        # Rebuilt because numpy keeps the width of the longest id of the set that the rows were taken from.
        return sha256_arrays(self.x, self.y, np.array(self.ids.tolist(), dtype=np.str_))


@dataclass(frozen=True)
class Source:
    """Loaded data as the split needs it: one pool, or train and hold-out rows with their own query paths.

    Attributes:
        pool: All rows; under `given` the concatenation of train and hold-out rows.
        train_ids: Ids of the rows the shipped model was trained on (`given` design), else None.
        reload: Loads rows again through the path of one side, "train" or "holdout": `reload(ids, path)` gives
            the inputs [rows, ...] that a query of those rows through that side's loader and transform sees.
            Rows may always take their own side's path. Raises `PathError` where a side's path cannot be
            applied to rows of the other (then null test (a) cannot run), and DataError where the file no
            longer holds the rows. None where nothing can be loaded again.
        one_path: Whether members and non-members come through the same loader by construction; then the
            path named in `reload` makes no difference.
        notes: Sentences for the report.
    """

    pool: Dataset
    train_ids: NDArray[np.str_] | None = None
    reload: Callable[[NDArray[np.str_], str], NDArray[Any]] | None = None
    one_path: bool = True
    notes: tuple[str, ...] = field(default=())

    @property
    def default_design(self) -> str:
        """The split design that fits: "given" where the train rows are known, else "half"."""
        return "half" if self.train_ids is None else "given"
