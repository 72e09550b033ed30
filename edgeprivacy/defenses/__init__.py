"""Defenses of the training data: one file each, mathematics written once for all backends; see `base`."""

from edgeprivacy.defenses.array_ops import ArrayOps, Batch
from edgeprivacy.defenses.base import Defense, Pass, TrainingRows, defenses, make_defense
from edgeprivacy.defenses.preparing import Preparation, SubModels

__all__ = [
    "ArrayOps",
    "Batch",
    "Defense",
    "Pass",
    "Preparation",
    "SubModels",
    "TrainingRows",
    "defenses",
    "make_defense",
]
