"""The audit as an object: frozen, versioned, and the only source of everything printed, plotted or gated.

`Audit.to_dict` is the content of audit.json (schema "edgeprivacy.audit/1"), `Audit.from_dict` reads it back.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from edgeprivacy.bounds_results import Bounds
from edgeprivacy.confidences import Performance
from edgeprivacy.errors import DataError
from edgeprivacy.files import write_json

SCHEMA = "edgeprivacy.audit/1"

Verdict = Literal["pass", "fail", "inconclusive", "none"]
Role = Literal["candidate", "control", "original"]
Support = Literal["ok", "low", "none"]
Interval = tuple[float, float]


@dataclass(frozen=True)
class AcrossTargets:
    """A metric with every release taken as the target in turn."""

    mean: float
    sd: float
    n: int


@dataclass(frozen=True)
class Metric:
    """A value from 0 to 1, its 95 % interval over rows (given this target), and its spread over targets."""

    value: float
    ci: Interval
    across_targets: AcrossTargets | None = None


@dataclass(frozen=True)
class BalancedAccuracy(Metric):
    """Balanced accuracy and where its threshold was chosen; never on the measured rows unless `oracle`."""

    threshold: Literal["shadow", "cross-fit", "oracle"] = "shadow"


@dataclass(frozen=True)
class TprAtFpr:
    """True-positive rate at the largest empirical FPR not above `fpr` (step definition, no interpolation).

    `support`: "ok" from 10 expected false positives, "low" from 1, else "none".
    """

    fpr: float
    value: float
    ci: Interval
    support: Support
    across_targets: AcrossTargets | None = None
    definition: str = "step_le"


@dataclass(frozen=True)
class Curve:
    """A ROC curve thinned for drawing: vertices, and the bootstrap band of TPR at those FPRs."""

    fpr: tuple[float, ...]
    tpr: tuple[float, ...]
    tpr_low: tuple[float, ...]
    tpr_high: tuple[float, ...]


@dataclass(frozen=True)
class Histogram:
    """Shares of members and non-members per score bin; `edges` has one entry more than the shares."""

    edges: tuple[float, ...]
    members: tuple[float, ...]
    nonmembers: tuple[float, ...]


@dataclass(frozen=True)
class AttackResult:
    """One attack on one artifact. Without metrics it was skipped, for the reason in `skipped`. `notes` are
    the attack's own: what it chose, how fine its scores are.

    `targets` above 1: that many models stood as the target in turn, and members and non-members are (model,
    row) pairs of all of them; intervals are then over rows.
    """

    name: str
    version: str
    paper: str
    n_members: int
    n_nonmembers: int
    skipped: str | None = None
    auc: Metric | None = None
    balanced_accuracy: BalancedAccuracy | None = None
    tpr_at_fpr: tuple[TprAtFpr, ...] = ()
    pooled_rows: int = 0
    roc: Curve | None = None
    histogram: Histogram | None = None
    notes: tuple[str, ...] = ()
    targets: int = 1

    @property
    def trials(self) -> int:
        """On how many independent answers a TPR rests, at most: members; of a pooled attack, rows."""
        if self.targets == 1:
            return self.n_members
        return (self.n_members + self.n_nonmembers) // self.targets

    def tpr(self, fpr: float) -> TprAtFpr | None:
        """The entry for this FPR limit, or None."""
        return next((entry for entry in self.tpr_at_fpr if abs(entry.fpr - fpr) < 1e-12), None)


def worst_attack(attacks: Iterable[AttackResult]) -> AttackResult | None:
    """The attack with the highest TPR at the smallest FPR limit whose support is "ok", then AUC; None if
    every one was skipped."""
    return max((attack for attack in attacks if attack.auc is not None), key=strength, default=None)


def strength(attack: AttackResult) -> tuple[float, float]:
    """What attacks are ranked by: the TPR at the smallest supported FPR limit, then the AUC."""
    supported = [entry.fpr for entry in attack.tpr_at_fpr if entry.support == "ok"]
    entry = attack.tpr(min(supported)) if supported else None
    return (entry.value if entry else 0.0, attack.auc.value if attack.auc else 0.0)


@dataclass(frozen=True)
class Utility:
    """What the artifact is still good for. Accuracies are top-1 on the artifact's own outputs."""

    test_accuracy: Metric | None = None
    train_accuracy: Metric | None = None


@dataclass(frozen=True)
class Parity:
    """The file against the framework model it came from, on real rows."""

    max_abs: float
    top1_flips: int
    rows: int


@dataclass(frozen=True)
class Drift:
    """How far a file's answers on its device are from those that another runner gave, on the same rows.

    Attributes:
        versus: The other runner: "host" or "native".
        rows: That were compared.
        max_abs: Largest difference of a probability.
        top1_flips: Rows whose top class differs.
        max_lsb: Largest difference of an integer output, in steps of its grid; None for a float output.
        not_run: Why there is nothing to compare with, else None; the numbers are then 0.
        attack: The attack that hurts most on the device, and what it finds with either's answers; None where
            it was not measured with the other's.
        metric: What is compared: "tpr@1%fpr", or "auc" where no limit is supported.
        here, there: Its value on the device, and with the other runner's answers.
    """

    versus: str
    rows: int = 0
    max_abs: float = 0.0
    top1_flips: int = 0
    max_lsb: int | None = None
    not_run: str | None = None
    attack: str | None = None
    metric: str | None = None
    here: float | None = None
    there: float | None = None


@dataclass(frozen=True)
class ArtifactResult:
    """One file that ships (or a control that does not) and what was found about it.

    Attributes:
        facts: The converter's read-back manifest.
        run: The runner's facts.
        device: Where its answers come from: "host", "native", "adb:SERIAL".
        shadow_device: Where the shadows' answers come from, and why; None without shadows.
        drift: Against other runners; empty on the host.
        performance: Row by row, as an app asks; None where it was not measured.
        canary_attacks: The same attacks on the canaries alone, where it was trained on any.
        bounds: Bounds, records' risk and slices, from one attack; None where no attack ran.
    """

    name: str
    role: Role
    backend: str
    format: str
    defense: str
    file: str
    sha256: str
    size_bytes: int
    gzip_bytes: int
    utility: Utility
    parity: Parity | None
    attacks: tuple[AttackResult, ...]
    facts: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    device: str = "host"
    shadow_device: str | None = None
    drift: tuple[Drift, ...] = ()
    performance: Performance | None = None
    canary_attacks: tuple[AttackResult, ...] = ()
    bounds: Bounds | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The name, and without its device where it carries one: both mean this artifact."""
        return tuple(dict.fromkeys([self.name, self.name.removesuffix(f"@{self.device}")]))

    def attack(self, name: str) -> AttackResult | None:
        """The result of the attack of this name, or None."""
        return next((attack for attack in self.attacks if attack.name == name), None)

    def worst_attack(self) -> AttackResult | None:
        """The attack with the highest TPR at the smallest FPR limit whose support is "ok", then AUC.

        None if every attack was skipped.
        """
        return worst_attack(self.attacks)


@dataclass(frozen=True)
class Difference:
    """A difference of two shares, from -1 to 1, and its 95 % interval over rows (paired)."""

    value: float
    ci: Interval


@dataclass(frozen=True)
class Gain:
    """What an attack on several versions finds beyond the best attack on one of them, on the same rows.

    Attributes:
        attack: The attack on several versions.
        auc: Difference of the AUCs.
        tpr_at_fpr: Difference of the TPRs, by FPR limit: (limit, difference).
    """

    attack: str
    auc: Difference
    tpr_at_fpr: tuple[tuple[float, Difference], ...]


@dataclass(frozen=True)
class VersionSet:
    """Several files of one model, attacked together: what somebody knows who holds them all.

    Attributes:
        role: "candidate" where all of them ship, "control" where the original is among them.
        versions: Names of the artifacts, the original first where it is among them.
        attacks: Attacks on several versions.
        best_artifact, best_attack: The single version and attack that find most on the same rows, which the
            attacks of this set are compared with; None where none ran. It was chosen by its own result on the
            measured rows, so it is hard to beat.
        gains: By attack that ran.
    """

    name: str
    role: Role
    versions: tuple[str, ...]
    with_original: bool
    attacks: tuple[AttackResult, ...]
    best_artifact: str | None = None
    best_attack: str | None = None
    gains: tuple[Gain, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """As `ArtifactResult.names`."""
        return (self.name,)

    def gain(self, attack: str) -> Gain | None:
        """The gain of the attack of this name, or None."""
        return next((gain for gain in self.gains if gain.attack == attack), None)


@dataclass(frozen=True)
class NullTest:
    """A test that must find nothing. `passed` is None where it could not run; `detail` says why and what
    that leaves unseen."""

    name: str
    passed: bool | None
    p_value: float | None
    detail: str
    title: str = ""


@dataclass(frozen=True)
class GateResult:
    """A gate expression, what it looked at, and its verdict."""

    expr: str
    canonical: str
    observed: float | None
    ci: Interval | None
    verdict: Verdict
    detail: str = ""


@dataclass(frozen=True)
class Audit:
    """The verdict on a set of artifacts.

    Attributes:
        verdict: "none" without a gate and with all null tests passed.
        notes: Sentences a reader must see (overlaps, half of the pool, controls, fallbacks).
        environment: Versions, machine, times, releases trained and cached: the only part that may differ
            between two runs of the same recipe.
    """

    verdict: Verdict
    exit_code: int
    recipe_id: str | None
    split: dict[str, Any]
    null_tests: tuple[NullTest, ...]
    artifacts: tuple[ArtifactResult, ...]
    gates: tuple[GateResult, ...] = ()
    version_sets: tuple[VersionSet, ...] = ()
    notes: tuple[str, ...] = ()
    recipe: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready content in the order of the schema."""
        content = asdict(self)
        for attacked in (*content["artifacts"], *content["version_sets"]):
            for attack in (*attacked["attacks"], *attacked.get("canary_attacks", ())):
                names = ("auc", "balanced_accuracy", "tpr_at_fpr")
                attack["metrics"] = {name: attack.pop(name) for name in names}
        return {"schema": SCHEMA, **json.loads(json.dumps(content))}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Audit:
        """Inverse of `to_dict`.

        Raises:
            DataError: Not an audit of this schema.
        """
        if not isinstance(content, dict) or content.get("schema") != SCHEMA:
            got = content.get("schema") if isinstance(content, dict) else type(content).__name__
            raise DataError("this is not an audit.json", got=f"schema {got!r}", allowed=SCHEMA)
        try:
            return _reader().validate_python(_flattened(content))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            problem = f"{where}: {first['msg']}"
        except (LookupError, TypeError, AttributeError) as error:
            problem = f"{type(error).__name__}: {error}"
        raise DataError("this audit.json is damaged or was written by another version", got=problem)

    def save(self, path: Path) -> None:
        """Write audit.json, whole or not at all."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: Path) -> Audit:
        """Read audit.json.

        Raises:
            DataError: The file is missing, not JSON, or not an audit.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
        except FileNotFoundError:
            raise DataError(f"{path} does not exist") from None
        except (ValueError, OSError, RecursionError) as error:
            raise DataError(f"{path} is not readable JSON", got=error) from None
        return cls.from_dict(content)

    def _repr_html_(self) -> str:
        from edgeprivacy.report import render

        return render(self, "html-fragment")


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number")


@cache
def _reader() -> TypeAdapter[Audit]:
    """Checks every field's type: a damaged file must end here and not in the middle of a report."""
    return TypeAdapter(Audit)


def _flattened(content: dict[str, Any]) -> dict[str, Any]:
    """The content with each attack's `metrics` where the dataclass has them."""

    def flat(attacked: dict[str, Any]) -> dict[str, Any]:
        attacks: dict[str, Any] = {
            kind: [
                {**{k: v for k, v in attack.items() if k != "metrics"}, **attack["metrics"]}
                for attack in attacked[kind]
            ]
            for kind in ("attacks", "canary_attacks")
            if kind in attacked
        }
        return {**attacked, **attacks}

    found = {name: [flat(entry) for entry in content.get(name, ())] for name in ("artifacts", "version_sets")}
    return {**content, **found}
