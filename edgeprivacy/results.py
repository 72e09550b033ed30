"""The audit as an object: frozen, versioned, and the only source of everything printed, plotted or gated.

`Audit.to_dict` is the content of audit.json (schema "edgeprivacy.audit/1"), `Audit.from_dict` reads it back.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from edgeprivacy.attack_results import (
    AcrossTargets,
    AttackResult,
    BalancedAccuracy,
    Curve,
    Histogram,
    Interval,
    Metric,
    Support,
    TprAtFpr,
    strength,
    worst_attack,
)
from edgeprivacy.bounds_results import Bounds
from edgeprivacy.confidences import Performance
from edgeprivacy.errors import DataError
from edgeprivacy.files import write_json
from edgeprivacy.version_results import Difference, Gain, Role, VersionSet

__all__ = [
    "SCHEMA",
    "AcrossTargets",
    "ArtifactResult",
    "AttackResult",
    "Audit",
    "BalancedAccuracy",
    "Curve",
    "Difference",
    "Drift",
    "Gain",
    "GateResult",
    "Histogram",
    "Interval",
    "Metric",
    "NullTest",
    "Parity",
    "Role",
    "Support",
    "TprAtFpr",
    "Utility",
    "Verdict",
    "VersionSet",
    "strength",
    "worst_attack",
]

SCHEMA = "edgeprivacy.audit/1"

Verdict = Literal["pass", "fail", "inconclusive", "none"]


@dataclass(frozen=True)
class Utility:
    """What the artifact is still good for, by its own outputs.

    Attributes:
        test_accuracy, train_accuracy: Top-1; of rows with independent labels the share of rows of which every
            label is answered rightly.
        label_accuracy: Of independent labels the share that is, over rows that trained nothing. None else.
    """

    test_accuracy: Metric | None = None
    train_accuracy: Metric | None = None
    label_accuracy: Metric | None = None


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
        max_lsb: Largest difference of an integer output, in steps of its grid; None where the two have none
            in common.
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
