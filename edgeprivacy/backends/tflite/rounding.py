"""Weights that lie on a grid while what is behind them is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgeprivacy.backends.tflite.frameworks import tf


class RoundedWeights:
    """Variables that are rounded after each step: gradients are those of the rounded ones and move the full
    ones, straight through (Courbariaux et al., BinaryConnect, NeurIPS 2015).

    Args:
        variables: All that training moves.
    """

    def __init__(self, variables: Sequence) -> None:
        self._variables = variables
        # Made when they are first asked for: as much memory as the network once more.
        self._full: list = []
        self._steps: list = []
        self._levels: list = []

    def hold(self, steps: Mapping[int, np.ndarray], levels: Mapping[int, int]) -> None:
        """Round variables, by their position, to multiples of their steps (compression.grid)."""
        if not self._full:
            made = [tf.zeros_like(variable) for variable in self._variables]
            self._full = [tf.Variable(zeros, trainable=False) for zeros in made]
            self._steps = [tf.Variable(zeros, trainable=False) for zeros in made]
            self._levels = [tf.Variable(0.0, trainable=False) for _ in made]
        for k, variable in enumerate(self._variables):
            self._full[k].assign(variable)
            self._steps[k].assign(np.broadcast_to(steps.get(k, np.float32(1)), variable.shape))
            self._levels[k].assign(float(levels.get(k, 0)))
        self.round()

    def unround(self) -> None:
        """Before a step: what is behind the rounded ones."""
        for variable, full in zip(self._variables, self._full, strict=True):
            variable.assign(full)

    def round(self) -> None:
        """After a step: keep what came out, and round it."""
        for variable, full, step, levels in zip(
            self._variables, self._full, self._steps, self._levels, strict=True
        ):
            full.assign(variable)
            rounded = step * tf.clip_by_value(tf.round(variable / step), -levels, levels)
            variable.assign(tf.where(levels > 0, rounded, variable))
