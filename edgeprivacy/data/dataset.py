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


@dataclass(frozen=True)
class Dataset:
    """Inputs, labels and row identities.

    Attributes:
        x: [rows, ...] float32 or uint8, as the model takes it (any scaling is inside the model).
        y: int64 [rows], classes 0..classes-1.
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

    @cached_property
    def positions(self) -> dict[str, int]:
        """Row id to position."""
        return {str(row_id): position for position, row_id in enumerate(self.ids)}

    def take(self, ids: NDArray[np.str_]) -> Dataset:
        """The rows of these ids, in their order.

        Raises:
            DataError: An id is not in the data set.
        """
        try:
            index = np.array([self.positions[str(row_id)] for row_id in ids], dtype=np.intp)
        except KeyError as error:
            raise DataError("row id is not in the data", got=error.args[0]) from None
        return Dataset(self.x[index], self.y[index], self.ids[index], self.classes, self.class_names, self.source)

    @cached_property
    def sha256(self) -> str:
        """Hash of inputs, labels and ids: the identity of the content."""
        return sha256_arrays(self.x, self.y, self.ids)


@dataclass(frozen=True)
class Source:
    """Loaded data as the split needs it: one pool, or train and hold-out rows with their own query paths.

    Attributes:
        pool: All rows; under `given` the concatenation of train and hold-out rows.
        train_ids: Ids of the rows the shipped model was trained on (`given` design), else None.
        reload: Loads rows again through the path of one side, "train" or "holdout": `reload(ids, path)` gives
            the inputs [rows, ...] that a query of those rows through that side's loader and transform sees.
            None where a side's path cannot be applied to rows of the other (then null test (a) cannot run).
        one_path: Whether members and non-members come through the same loader by construction.
        notes: Sentences for the report.
    """

    pool: Dataset
    train_ids: NDArray[np.str_] | None = None
    reload: Callable[[NDArray[np.str_], str], NDArray[Any]] | None = None
    one_path: bool = True
    notes: tuple[str, ...] = field(default=())
