"""Defenses of the training data: one file each, mathematics written once for all backends; see `base`."""

from edgeprivacy.defenses.base import ArrayOps, Defense, Pass, TrainingRows, defenses, make_defense

__all__ = ["ArrayOps", "Defense", "Pass", "TrainingRows", "defenses", "make_defense"]
