"""Measured files, and which of them nothing else beats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeprivacy.audit_notes import answers_in_steps
from edgeprivacy.errors import UsageError
from edgeprivacy.measuring import FPR_LIMITS
from edgeprivacy.results import ArtifactResult, AttackResult, Audit, Interval
from edgeprivacy.tuning.latency import SAME
from edgeprivacy.tuning.space import Setting

_LIMITS = {f"tpr@{100 * limit:g}%fpr": limit for limit in FPR_LIMITS}


@dataclass(frozen=True)
class Value:
    """A measured share.

    Attributes:
        value: The mean over all releases that stood as the target, where several did; else the target's.
        ci: The target's 95 % interval over rows.
        sd: Standard deviation over those releases, or None.
        targets: How many they are.
    """

    value: float
    ci: Interval
    sd: float | None = None
    targets: int = 1

    @classmethod
    def of(cls, metric: Any) -> Value:
        """Of a `Metric` or a `TprAtFpr`."""
        spread = metric.across_targets
        if spread is None:
            return cls(metric.value, metric.ci)
        return cls(spread.mean, metric.ci, spread.sd, spread.n)


@dataclass(frozen=True)
class Point:
    """One file of one setting, as measured in one round.

    Attributes:
        round: From 0; -1 for a re-audit.
        attack: The strongest one, by the objective.
        leakage: The objective's value for it.
        accuracy: Test accuracy; of independent labels the share of labels that are right.
        size_bytes, gzip_bytes: Of the file.
        rounded: Whether the answers' grid hides small probabilities.
        latency_ms: Time a row, one at a time: the median on a device that measured it, else the least on the
            host.
    """

    setting: Setting
    round: int
    name: str
    format: str
    attack: str
    leakage: Value
    accuracy: Value
    size_bytes: int
    gzip_bytes: int
    latency_ms: float | None = None
    rounded: bool = False

    @property
    def told(self) -> str:
        """ "selena, int8 (tflite): temperature 1.2"."""
        where = f"{self.setting.candidate.defense}, {self.format} ({self.setting.candidate.backend})"
        return f"{where}: {self.setting.told}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "backend": self.setting.candidate.backend,
            "defense": self.setting.candidate.defense,
            "format": self.format,
            "changes": dict(self.setting.changes),
            "recipe_id": self.setting.recipe.id,
            "round": self.round,
            "attack": self.attack,
            "leakage": _plain(self.leakage),
            "accuracy": _plain(self.accuracy),
            "size_bytes": self.size_bytes,
            "gzip_bytes": self.gzip_bytes,
            "latency_ms": self.latency_ms,
        }


def points_of(
    audit: Audit, setting: Setting, round: int, objective: str, latencies: Mapping[str, float] | None = None
) -> list[Point]:
    """The files of a setting in its audit; those that no attack could run on are left out.

    Args:
        latencies: Milliseconds a row by the artifact's name, for those that no device measured.
    """
    found = []
    for artifact in audit.artifacts:
        if artifact.role == "original" or artifact.defense != setting.candidate.defense:
            continue
        attacks = [
            (value, attack.name) for attack in artifact.attacks if (value := leakage(attack, objective))
        ]
        accuracy = artifact.utility.label_accuracy or artifact.utility.test_accuracy
        if not attacks or accuracy is None:
            continue
        value, attack = max(attacks, key=lambda entry: entry[0].value)
        found.append(
            Point(
                setting,
                round,
                artifact.name,
                artifact.format,
                attack,
                value,
                Value.of(accuracy),
                artifact.size_bytes,
                artifact.gzip_bytes,
                _latency(artifact, latencies or {}),
                answers_in_steps(artifact),
            )
        )
    return found


def leakage(attack: AttackResult, objective: str) -> Value | None:
    """What the objective says of an attack; None where it was skipped or the limit has no support."""
    if attack.auc is None:
        return None
    if objective == "auc":
        return Value.of(attack.auc)
    entry = attack.tpr(false_positives(objective))
    return None if entry is None or entry.support == "none" else Value.of(entry)


def false_positives(objective: str) -> float:
    """ "tpr@1%fpr" to 0.01; UsageError for what is no such objective. "auc" has none and is not asked."""
    if objective not in _LIMITS:
        raise UsageError(f"'{objective}' is no objective", allowed=", ".join(["auc", *_LIMITS]))
    return _LIMITS[objective]


def front(points: Sequence[Point]) -> list[Point]:
    """Those that no other beats or equals in leakage, accuracy, size and latency together while beating it in
    one, the least leaking first. Of files alike in all but latency one stands: the first of the fastest.
    `SAME` says when latencies are equal."""
    alike: dict[tuple[float, int, float], list[Point]] = {}
    for point in points:
        alike.setdefault(_ranked(point), []).append(point)
    stand = {values: _first_of_the_fastest(group) for values, group in alike.items()}

    def beaten(values: tuple[float, int, float]) -> bool:
        # Equal latencies are not transitive; without them this is a strict order, so that something stands.
        return any(
            other != values
            and all(theirs <= own for theirs, own in zip(other, values, strict=True))
            and not _faster(stand[values], stand[other])
            for other in stand
        )

    return [stand[values] for values in sorted(stand) if not beaten(values)]


def _ranked(point: Point) -> tuple[float, int, float]:
    """What is compared exactly; smaller is better in each."""
    return (point.leakage.value, point.size_bytes, -point.accuracy.value)


def _first_of_the_fastest(points: Sequence[Point]) -> Point:
    return next(p for p in points if not any(_faster(other, p) for other in points))


def _faster(one: Point, other: Point) -> bool:
    if one.latency_ms is None or other.latency_ms is None:
        return False
    return one.latency_ms * SAME < other.latency_ms


def _latency(artifact: ArtifactResult, latencies: Mapping[str, float]) -> float | None:
    measured = artifact.performance
    return latencies.get(artifact.name) if measured is None else measured.median_us / 1000


def _plain(value: Value) -> dict[str, Any]:
    plain: dict[str, Any] = {"value": round(value.value, 6), "ci": [round(end, 6) for end in value.ci]}
    if value.sd is not None:
        plain |= {"sd": round(value.sd, 6), "targets": value.targets}
    return plain
