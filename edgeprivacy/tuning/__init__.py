"""`edgeprivacy tune`: the search for the compression and the defense that leak least within a budget."""

from edgeprivacy.tuning.budget import Budget
from edgeprivacy.tuning.section import TuneSection
from edgeprivacy.tuning.tune import tune

__all__ = ["Budget", "TuneSection", "tune"]
