"""Models of several independent labels a row, as attacks see them.

Each label is a question of its own, answered by a sigmoid. What the model thinks of a row as a whole is the
mean over its labels of the log odds that it gives to what is true: log(p / (1 - p)) where a label holds,
log((1 - p) / p) where it does not, which is the logit-scaled confidence of LiRA (Carlini et al. 2022, section
VI-C) label by label. Squeezed through a sigmoid it is one probability of "what is true", and the pair of it
and its rest is the answer of a model of two classes whose true class is 1. Everything that rests on the
confidence in the truth (LiRA, RMIA, losses, bounds, risk) then holds as it is; what needs a distribution over
classes does not, and says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.confidences import FLOAT_LOG_FLOOR, Confidences, LabelSets
from edgeprivacy.device_runner.outputs import OutputFormat, probabilities_of
from edgeprivacy.errors import DataError

FLOAT_LABEL_FLOOR = 2.0**-25
"""How near to 0 or 1 a float32 sigmoid tells the one and the other."""


def sigmoids_of(raw: NDArray[Any], how: OutputFormat, logits: bool) -> NDArray[np.float32]:
    """The output tensor [rows, labels] as float32 probabilities, each for itself. Raises as
    `probabilities_of`."""
    flat = probabilities_of(np.ascontiguousarray(raw).reshape(-1, 1), how, logits)[:, 1]
    return flat.reshape(raw.shape)


def checked_sigmoids(values: Any, where: Path, logits: bool = False) -> NDArray[np.float32]:
    """Probabilities float32 [rows, labels] from numbers.

    Raises:
        DataError: Not numbers, not finite, or outside 0..1.
    """
    array = np.asarray(values)
    if array.ndim != 2 or array.dtype.kind not in "fiub" or array.size == 0:
        raise DataError(
            f"probabilities of {where} have the wrong shape",
            got=f"{array.shape} of {array.dtype}",
            allowed="numbers [rows, labels]",
        )
    return sigmoids_of(array.astype(np.float32), OutputFormat(where, None, None, 0.0, None), logits)


def as_two_classes(
    probabilities: NDArray[Any], truth: NDArray[Any], where: str, floor: float = FLOAT_LOG_FLOOR
) -> NDArray[np.float32]:
    """What a model thinks of rows as a whole, as answers of a model of two classes; the true one is 1.

    Args:
        probabilities: [rows, labels] in 0..1.
        truth: 0 or 1 [rows, labels].
        floor: Probabilities below it, and above one minus it, carry no information: at least half the
            distance from 1 to the float32 below it, on both sides: a label weighs no more for being false.

    Returns:
        float32 [rows, 2].

    Raises:
        DataError: Another number of labels than answers.
    """
    truth = np.asarray(truth)
    if truth.shape != probabilities.shape:
        raise DataError(
            f"labels of {where} do not fit the answers",
            got=f"labels {truth.shape}, answers {probabilities.shape}",
            allowed="one 0 or 1 for each answer",
        )
    floor = max(floor, FLOAT_LABEL_FLOOR)
    inside = np.clip(probabilities.astype(np.float64), floor, 1.0 - floor)
    log_odds = np.log(inside) - np.log1p(-inside)
    mean = np.where(truth.astype(np.bool_), log_odds, -log_odds).mean(axis=1)
    return np.asarray(np.exp(-np.logaddexp(0.0, np.stack([mean, -mean], axis=1))), dtype=np.float32)


def confidences_of_label_sets(
    answers: NDArray[np.float32],
    truth: NDArray[Any],
    row_ids: NDArray[np.str_],
    where: str,
    floor: float = FLOAT_LOG_FLOOR,
) -> Confidences:
    """What a model of independent labels answered, as `Confidences` of rows as a whole.

    Args and errors are those of `as_two_classes`; without raw output, grid and facts.
    """
    return Confidences(
        as_two_classes(answers, truth, where, floor),
        row_ids,
        np.ones(len(answers), dtype=np.int64),
        sets=LabelSets(answers, np.asarray(truth).astype(np.uint8)),
    )
