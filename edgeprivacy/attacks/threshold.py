"""Attacks that compare one number of the confidence vector with a threshold.

Yeom et al. (CSF 2018): the loss. Song & Mittal (USENIX Security 2021): confidence, entropy and modified
entropy with a threshold for each class; the score is then s - τ(class), so that one ROC stands for all
classes and the attack's own decision is at zero. The variants named `.global` use s itself and need no
calibration.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from edgeprivacy.attacks.base import Attack, Calibration, Floats, Needs, Scores, Signals, attacks
from edgeprivacy.metrics.roc import Roc
from edgeprivacy.metrics.thresholds import class_thresholds

_YEOM = "Yeom et al., CSF 2018"
_SONG = "Song & Mittal, USENIX Security 2021"


class Global(Attack):
    """The signal of the target itself is the score."""

    threat_model = "confidences of one model, true label"

    @abstractmethod
    def signal(self, signals: Signals) -> Floats:
        """The number compared, higher for members, [models, rows]."""

    def score(
        self, signals: Signals, target: int, calibration: Calibration | None, rng: np.random.Generator
    ) -> Scores:
        """The signal, [rows]."""
        return Scores(self.signal(signals)[target].copy())


class ClassWise(Global):
    """The signal less the threshold of the row's class, chosen on the calibration pairs."""

    threat_model = "confidences of one model, true label; calibration pairs for a threshold a class"
    needs = Needs(calibration=True)
    threshold = 0.0

    def score(
        self, signals: Signals, target: int, calibration: Calibration | None, rng: np.random.Generator
    ) -> Scores:
        """s - τ(class), [rows]. Classes without members or non-members to calibrate on take the threshold
        over all classes; a note counts them."""
        assert calibration is not None
        signal = self.signal(signals)
        thresholds, fallback = class_thresholds(
            signal[calibration.models, calibration.rows],
            signals.labels[calibration.rows],
            calibration.members,
            signals.probabilities.shape[-1],
        )
        lost = int(fallback[np.unique(signals.labels)].sum())
        notes = (f"{lost} classes without calibration pairs on both sides took the global threshold",)
        return Scores(signal[target] - thresholds[signals.labels], notes=notes if lost else ())


class Loss(Global):
    """s = -loss."""

    name = "loss"
    rests_on_truth = True
    paper = _YEOM

    def signal(self, signals: Signals) -> Floats:
        """log p_y with the output's floor."""
        return -signals.loss


class LossTnr(Loss):
    """s = -loss, read from its other end: the share of non-members whose loss no member has.

    The TNR at an FNR of 1 % needs no shadows and goes up and down with LiRA's TPR (Dodd et al., "The Tail
    Tells All", 2025, of which the abstract was read; the limit of 1 % is our choice).
    """

    name = "loss-tnr"
    rests_on_truth = True
    paper = "after Dodd et al., 2025"

    def conclusions(self, roc: Roc) -> tuple[str, ...]:
        """The indicator."""
        found = roc.tpr >= 1.0 - 0.01
        return (f"TNR at 1% FNR: {100 * (1.0 - roc.fpr[found].min()):.1f}%",)


class ConfidenceGlobal(Global):
    """s = p_y."""

    name = "confidence.global"
    rests_on_truth = True
    paper = _SONG

    def signal(self, signals: Signals) -> Floats:
        """p_y."""
        return signals.confidence


class EntropyGlobal(Global):
    """s = -H(p)."""

    name = "entropy.global"
    paper = _SONG

    def signal(self, signals: Signals) -> Floats:
        """Σ p log p."""
        return -signals.entropy


class ModifiedEntropyGlobal(Global):
    """s = -Mentr(p, y)."""

    name = "modified-entropy.global"
    paper = _SONG

    def signal(self, signals: Signals) -> Floats:
        """(1 - p_y) log p_y + Σ_{k≠y} p_k log(1 - p_k)."""
        return -signals.modified_entropy


class Confidence(ClassWise, ConfidenceGlobal):
    """s = p_y - τ(y)."""

    name = "confidence"
    rests_on_truth = True


class Entropy(ClassWise, EntropyGlobal):
    """s = -H(p) - τ(y)."""

    name = "entropy"


class ModifiedEntropy(ClassWise, ModifiedEntropyGlobal):
    """s = -Mentr(p, y) - τ(y)."""

    name = "modified-entropy"


_built_in: tuple[Attack, ...] = (
    Loss(),
    LossTnr(),
    Confidence(),
    ConfidenceGlobal(),
    Entropy(),
    EntropyGlobal(),
    ModifiedEntropy(),
    ModifiedEntropyGlobal(),
)
for _attack in _built_in:
    attacks.register(_attack.name)(_attack)
