"""Membership-inference attacks: arrays in, one score a row out. One file a family; see `base`."""

from edgeprivacy.attacks.base import (
    Attack,
    Calibration,
    Needs,
    Population,
    Scores,
    Signals,
    attacks,
)

__all__ = ["Attack", "Calibration", "Needs", "Population", "Scores", "Signals", "attacks"]
