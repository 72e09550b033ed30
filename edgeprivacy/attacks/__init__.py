"""Membership-inference attacks: arrays in, one score a row out. One file a family; see `base`.

scikit-learn and scipy.stats are imported in the functions that use them, here and in `metrics`: every
command loads all attacks, and one that ends with a mistake, a list or a plan should not wait two seconds for
learners.
"""

from edgeprivacy.attacks.base import (
    Attack,
    Calibration,
    Needs,
    Population,
    Scores,
    Signals,
    Version,
    attacks,
)
from edgeprivacy.attacks.calibration import (
    Decisions,
    cross_fit,
    decide,
    score_target,
    scores_for_all_targets,
    shadow_calibration,
    transfer_threshold,
)

DEFAULT_ATTACKS = (
    "gap",
    "loss",
    "confidence",
    "confidence.global",
    "entropy",
    "modified-entropy",
    "nn",
    "attack-p",
    "lira.online",
    "lira.online.global",
    "lira.offline",
    "rmia.offline",
)
"""The attacks of an audit that names none."""

__all__ = [
    "DEFAULT_ATTACKS",
    "Attack",
    "Calibration",
    "Decisions",
    "Needs",
    "Population",
    "Scores",
    "Signals",
    "Version",
    "attacks",
    "cross_fit",
    "decide",
    "score_target",
    "scores_for_all_targets",
    "shadow_calibration",
    "transfer_threshold",
]
