"""Canaries: rows made to be remembered, put among the training rows to see the worst a release does to a row.

Averages over a population hide the rows that suffer most. Rows that imitate the most vulnerable ones stand in
for them: some training rows are turned into canaries, and an independent fair coin for each model and each
canary says whether it trains that model, whatever the design does with the other rows.

Source: Aerni, Zhang, Tramèr, CCS 2024 (arXiv 2404.17399): 500 canaries, mislabelled for most defenses,
out-of-distribution rows for differential privacy, mislabelled near-duplicates for SELENA; each in half of the
models. Inferred here: the size of a near-duplicate's noise, and uniform noise as the out-of-distribution row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.data.dataset import Dataset, Source
from edgeprivacy.data.split import Split
from edgeprivacy.data.splits import refuse_absent_classes
from edgeprivacy.data.streams import stream
from edgeprivacy.errors import DataError, RecipeError, did_you_mean

CANARY_KINDS = ("mislabelled", "near-duplicate", "ood")
LEAST_CANARIES = 20
"""With fewer, some model has too few canaries inside or outside to be measured on."""
NEAR_DUPLICATE_NOISE = 0.02
"""Largest change of an input of a near-duplicate, as a share of that input's range in the data."""
_MOST_SHARE = 4


@dataclass(frozen=True)
class CanarySpec:
    """How many canaries of which kind.

    Attributes:
        number: At least 20.
        kind: "mislabelled": a row with a label that is not its own; "near-duplicate": a copy of another
            training row with a little noise and another label; "ood": uniform noise within the range of each
            input, with any label.
    """

    number: int
    kind: str = CANARY_KINDS[0]

    @property
    def text(self) -> str:
        """As recipes write it: "500:mislabelled"."""
        return f"{self.number}:{self.kind}"

    @classmethod
    def parse(cls, text: str) -> CanarySpec:
        """Read "500" or "500:ood".

        Raises:
            RecipeError: No number, too few, or an unknown kind.
        """
        number, colon, kind = (part.strip() for part in text.partition(":"))
        kind = kind if colon else CANARY_KINDS[0]
        form = "N or N:KIND, with KIND one of " + ", ".join(CANARY_KINDS)
        if not (number.isascii() and number.isdigit()):
            raise RecipeError("canaries are asked for by their number", got=text, allowed=form)
        if kind not in CANARY_KINDS:
            raise RecipeError(
                f"there are no canaries of the kind '{kind}'",
                allowed=", ".join(CANARY_KINDS),
                hint=did_you_mean(kind, CANARY_KINDS),
            )
        if len(number) > 9 or int(number) < LEAST_CANARIES:
            raise RecipeError(
                "too few canaries to measure on" if len(number) <= 9 else "too many canaries",
                got=text,
                allowed=f"from {LEAST_CANARIES} on",
            )
        return cls(int(number), kind)


def insert_canaries(source: Source, split: Split, spec: CanarySpec) -> tuple[Source, Split]:
    """The data and the split with some rows of the pool turned into canaries.

    They are taken at random from the pool, under `given` from the train rows, and stay in their places. Each
    model trains on each of them by an independent fair coin, whatever the design; all other rows keep their
    parts. The coins of a model are the same whatever the number of models.

    Args:
        source: The data that the split was made from.
        split: A split without canaries, whose seed also draws these.
        spec: How many, of which kind: at most a quarter of the rows they are taken from.

    Raises:
        DataError: Too many, a model has no canary inside or outside, or a class is left without rows.
    """
    pool = split.roles["pool"]
    place = source.pool.index(pool)
    free = np.flatnonzero(split.members(0)) if split.design == "given" else np.arange(len(pool))
    if spec.number > len(free) // _MOST_SHARE:
        raise DataError(
            "too many canaries: most of what is learned must come from the data",
            got=spec.number,
            allowed=f"{LEAST_CANARIES} to {len(free) // _MOST_SHARE}, a quarter of the rows to train on",
        )
    order = stream(split.seed, "canaries").permutation(free)
    chosen, copied = np.sort(order[: spec.number]), np.sort(order[spec.number :])
    data = with_canaries(source.pool, place[chosen], place[copied], spec.kind, split.seed)
    membership = split.membership.copy()
    for model in range(split.models):
        coins = stream(split.seed, "canary coins", model).integers(0, 2, len(pool)).astype(bool)
        membership[model, chosen] = coins[chosen]
        if coins[chosen].all() or not coins[chosen].any():
            raise DataError(f"all coins of model {model} fell on one side", hint="try another seed")
    changed = replace(
        split,
        roles=split.roles | {"pool": data.ids[place]},
        membership=membership,
        data_sha256=data.sha256,
        canary_ids=data.ids[place[chosen]],
        canary_kind=spec.kind,
    )
    refuse_absent_classes(changed, data)
    train = source.train_ids
    if train is not None:
        train = train[~np.isin(train, pool[chosen])]
    return replace(source, pool=data, train_ids=train), changed


def with_canaries(
    data: Dataset, chosen: NDArray[np.intp], copied: NDArray[np.intp], kind: str, seed: int
) -> Dataset:
    """The data with some rows turned into canaries; all other rows stand as they are, in their places.

    A canary's id is its kind and the id of the row whose place it took: "canary:mislabelled:digits:17".

    Args:
        data: All rows.
        chosen: Positions of the rows that become canaries, [canaries].
        copied: Positions of the rows that near-duplicates may copy and whose ranges noise keeps to; none of
            them chosen, at least one.
        kind: One of `CANARY_KINDS`.
        seed: Non-negative; the same seed gives the same canaries.
    """
    rng = stream(seed, "canaries", kind)
    x, y, ids = data.x.copy(), data.y.copy(), np.array(data.ids.tolist(), dtype=object)
    x[chosen], y[chosen] = _MAKERS[kind](data, chosen, copied, rng)
    ids[chosen] = [f"canary:{kind}:{row_id}" for row_id in data.ids[chosen].tolist()]
    return replace(data, x=x, y=y, ids=ids.astype(np.str_))


Made = tuple[NDArray[Any], NDArray[np.int64]]


def _mislabelled(
    data: Dataset, chosen: NDArray[np.intp], copied: NDArray[np.intp], rng: np.random.Generator
) -> Made:
    return data.x[chosen], _another_label(data.y[chosen], data.classes, rng)


def _near_duplicates(
    data: Dataset, chosen: NDArray[np.intp], copied: NDArray[np.intp], rng: np.random.Generator
) -> Made:
    origin = rng.choice(copied, len(chosen), replace=len(chosen) > len(copied))
    low, high = _range(data, copied)
    noise = rng.uniform(-1.0, 1.0, (len(chosen), *data.input_shape)) * NEAR_DUPLICATE_NOISE * (high - low)
    inputs = np.clip(data.x[origin] + noise, low, high)
    return _as_rows(inputs, data), _another_label(data.y[origin], data.classes, rng)


def _out_of_distribution(
    data: Dataset, chosen: NDArray[np.intp], copied: NDArray[np.intp], rng: np.random.Generator
) -> Made:
    low, high = _range(data, copied)
    inputs = low + rng.random((len(chosen), *data.input_shape)) * (high - low)
    return _as_rows(inputs, data), rng.integers(0, data.classes, len(chosen), dtype=np.int64)


_MAKERS: dict[str, Callable[[Dataset, NDArray[np.intp], NDArray[np.intp], np.random.Generator], Made]] = dict(
    zip(CANARY_KINDS, (_mislabelled, _near_duplicates, _out_of_distribution), strict=True)
)


def _another_label(labels: NDArray[np.int64], classes: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Each label replaced by one of the others, all equally likely."""
    return np.asarray((labels + rng.integers(1, classes, len(labels))) % classes, dtype=np.int64)


def _range(data: Dataset, rows: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Least and largest value of every input over some rows, each of the shape of a row."""
    inputs = data.x[rows]
    return inputs.min(axis=0).astype(np.float64), inputs.max(axis=0).astype(np.float64)


def _as_rows(inputs: NDArray[np.float64], data: Dataset) -> NDArray[Any]:
    whole = np.rint(inputs) if data.x.dtype.kind in "iu" else inputs
    return whole.astype(data.x.dtype)
