"""Attacks that look at nothing but the predicted class, of the row and of variations of it (Choquette-Choo et
al., "Label-Only Membership Inference Attacks", ICML 2021; Li & Zhang, CCS 2021).

    label-only.noise     share of noisy copies that get the right class, P_u[argmax f(x + σ u) = y]
    label-only.augment   number of shifted and turned copies that get the right class, the row itself included

A model is surer of rows it trained on, and keeps to their class when they are varied. `boundary` measures the
same by distance. Scores are counts, hence few: a threshold of few false positives may not exist.

σ is 0.3 of the data's spread and at least two steps of a quantized input (inferred; the authors tune σ on
their shadow). Shifts are |dx| + |dy| = 1, the authors' choice for CIFAR-10; turns are by 4 and 8 degrees, as
far as their range goes; what comes in at an edge repeats the edge (inferred), and turned pixels are
interpolated linearly. The authors feed the bits to a network for each class; here they are counted, which is
the variant that needs no shadow.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.attacks.base import Calibration, Scores, Signals, attacks
from edgeprivacy.attacks.queries import Ask, InputSpace, QueryAttack, Rows, correct, moved

NOISY_QUERIES = 16
DISTANCE = 1
TURNS = (-8.0, -4.0, 4.0, 8.0)
_SHARE = 0.3
_QUANTA = 2.0


def translations(distance: int) -> list[tuple[int, int]]:
    """All (dy, dx) with |dy| + |dx| = distance, 4 · distance of them."""
    return [
        (dy, dx)
        for dy in range(-distance, distance + 1)
        for dx in sorted({distance - abs(dy), abs(dy) - distance})
    ]


def shifted(images: Rows, dy: int, dx: int) -> Rows:
    """Images [rows, h, w, ...] moved down by dy and right by dx pixels; edges are repeated."""
    down = np.clip(np.arange(images.shape[1]) - dy, 0, images.shape[1] - 1)
    right = np.clip(np.arange(images.shape[2]) - dx, 0, images.shape[2] - 1)
    return np.asarray(images[:, down][:, :, right])


def turned(images: Rows, degrees: float) -> Rows:
    """Images [rows, h, w, ...] turned about their middle, as large as before, in their own type."""
    from scipy import ndimage

    real = images.astype(np.float32)
    found = ndimage.rotate(real, degrees, axes=(1, 2), reshape=False, order=1, mode="nearest")
    return moved(images, found - real)


def variations(images: Rows) -> Iterator[Rows]:
    """The images themselves, all shifts, all turns."""
    yield images
    for dy, dx in translations(DISTANCE):
        yield shifted(images, dy, dx)
    for degrees in TURNS:
        yield turned(images, degrees)


class LabelOnly(QueryAttack):
    """Counts right answers, [models, rows, queries] of 0 and 1."""

    paper = "Choquette-Choo et al., ICML 2021"

    def score(
        self, signals: Signals, target: int, calibration: Calibration | None, rng: np.random.Generator
    ) -> Scores:
        """Share of right answers, [rows]."""
        right = self.gathered(signals)[target]
        return Scores(right.mean(axis=1), notes=(f"scores move in steps of 1/{right.shape[1]}",))


class LabelNoise(LabelOnly):
    """Share of 16 noisy copies with the right class."""

    name = "label-only.noise"
    threat_model = "predicted class of noisy copies of the row, true label"
    queries = NOISY_QUERIES

    def gather(
        self, ask: Ask, x: Rows, labels: NDArray[np.int64], inputs: InputSpace, rng: np.random.Generator
    ) -> NDArray[Any]:
        """Whether each noisy copy got the right class, bool [rows, 16]."""
        width = inputs.width(_SHARE, _QUANTA)
        right = [
            correct(ask, moved(x, rng.standard_normal(x.shape, dtype=np.float32) * width), labels)
            for _ in range(self.queries)
        ]
        return np.stack(right, axis=1)


class LabelAugment(LabelOnly):
    """Share of shifted and turned copies with the right class."""

    name = "label-only.augment"
    threat_model = "predicted class of shifted and turned copies of an image, true label"
    queries = 1 + 4 * DISTANCE + len(TURNS)
    rows_needed = "images, [height, width] or [height, width, channels]: nothing else can be shifted"

    def usable(self, x: Rows) -> bool:
        """Whether rows are [rows, h, w] or [rows, h, w, channels] of three pixels or more each way."""
        return x.ndim in (3, 4) and min(x.shape[1:3]) >= 3

    def gather(
        self, ask: Ask, x: Rows, labels: NDArray[np.int64], inputs: InputSpace, rng: np.random.Generator
    ) -> NDArray[Any]:
        """Whether the row and each variation got the right class, bool [rows, 9]."""
        return np.stack([correct(ask, varied, labels) for varied in variations(x)], axis=1)


for _attack in (LabelNoise(), LabelAugment()):
    attacks.register(_attack.name)(_attack)
