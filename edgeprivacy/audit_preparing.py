"""Before an audit of files: what it is asked to do, and everything that can be checked before one is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from edgeprivacy.audit_data import AuditData, RowsLike, load_audit_data
from edgeprivacy.converters import ArtifactFacts, read_facts
from edgeprivacy.device_runner import Runner, open_runner, open_runners
from edgeprivacy.device_runner.inputs import input_format
from edgeprivacy.errors import MissingDependency, UsageError
from edgeprivacy.files import sha256_json
from edgeprivacy.found_facts import answered_classes
from edgeprivacy.gate import parse_gate
from edgeprivacy.gate_grammar import Gate, GateOn, refuse_bounds
from edgeprivacy.given_shadows import LEAST_ROWS
from edgeprivacy.measuring import chosen_attacks
from edgeprivacy.originals import runnable_original
from edgeprivacy.records import check_records
from edgeprivacy.shadow_files import ShadowFiles, open_shadow_files
from edgeprivacy.sides import (
    PERMUTATIONS,
    RESAMPLES,
    enough_rows,
)


@dataclass(frozen=True)
class Settings:
    """How an audit is done; see `audit` for the fields."""

    attacks: tuple[str, ...] = ()
    fail_if: tuple[str, ...] = ()
    gate_on: GateOn = "point"
    device: tuple[str, ...] = ("host",)
    out: Path | None = None
    records: Path | None = None
    label: str | None = None
    header: bool = True
    logits: bool = False
    drop_overlap: bool = False
    resamples: int = RESAMPLES
    seed: int = 0
    original: Path | None = None
    shadow_files: tuple[Path, ...] = ()
    shadow_membership: str | Path | Mapping[str, ArrayLike] | None = None


@dataclass(frozen=True)
class Prepared:
    """An audit that has been checked: files and rows fit, names and gates exist. Nothing has been run.

    `host` runs the files here as well, to compare with; None where that is asked for anyway, or impossible.
    """

    settings: Settings
    files: tuple[Path, ...]
    names: tuple[str, ...]
    facts: tuple[ArtifactFacts, ...]
    data: AuditData
    attacks: tuple[str, ...]
    gates: tuple[Gate, ...]
    runners: tuple[Runner, ...]
    host: Runner | None
    identity: str
    folder: Path
    shadows: ShadowFiles | None

    def close(self) -> None:
        """Stop what the runners hold."""
        for runner in (*self.runners, *([self.host] if self.host is not None else [])):
            runner.close()


def prepare(
    files: Sequence[Path],
    members: RowsLike,
    nonmembers: RowsLike,
    null_members: RowsLike | None,
    settings: Settings,
) -> Prepared:
    """Check everything that can be checked before a file is run; load the rows. Errors as `audit`."""
    if not files:
        raise UsageError("there is no file to audit")
    names = chosen_attacks(settings.attacks)
    gates = tuple(parse_gate(text) for text in settings.fail_if)
    refuse_bounds(gates)
    if settings.gate_on not in ("point", "ci"):
        raise UsageError("gates are decided on", got=settings.gate_on, allowed="point or ci")
    check_records(settings.records)
    runners = tuple(open_runners(settings.device))
    if settings.original is not None:
        files = [*files, runnable_original(settings.original)]
    facts = tuple(read_facts(path) for path in files)
    shadows = open_shadow_files(settings.shadow_files, settings.shadow_membership, facts)
    every, every_facts = list(files), list(facts)
    if shadows is not None:
        every, every_facts = [*every, *shadows.files], [*every_facts, *shadows.facts]
    for runner in runners:
        for path in every:
            runner.identity(path)  # names a missing interpreter before rows are read
    data = load_audit_data(
        members,
        nonmembers,
        null_members,
        classes=answered_classes(every, every_facts),
        label=settings.label,
        header=settings.header,
        drop_overlap=settings.drop_overlap,
        seed=settings.seed,
        shadows=None if shadows is None else shadows.membership,
    )
    for path, entry in zip(every, every_facts, strict=True):
        input_format(path, entry.inputs[0], data.members.data.x)
    enough_rows(len(data.members.data), len(data.scored))
    artifact_names = _distinct_names(files)
    identity = sha256_json(
        {
            "files": [entry.sha256 for entry in facts],
            "names": artifact_names,
            "rows": data.split["sha256"],
            **({} if shadows is None else {"shadows": shadows.describe()}),
            "settings": measured_settings(settings, names, runners),
        }
    )
    folder = settings.out or Path("edgeprivacy-out") / f"audit-{artifact_names[0]}-{identity[:8]}"
    host = _host_beside(runners, every)
    return Prepared(
        settings,
        tuple(files),
        artifact_names,
        facts,
        data,
        names,
        gates,
        runners,
        host,
        identity,
        folder,
        shadows,
    )


def _host_beside(runners: Sequence[Runner], files: Sequence[Path]) -> Runner | None:
    """A host runner to compare the devices with, where none is asked for and its interpreters are there."""
    if all(runner.name == "host" for runner in runners):
        return None
    host = next((runner for runner in runners if runner.name == "host"), None) or open_runner("host")
    try:
        for path in files:
            host.identity(path)
    except MissingDependency:
        return None
    return host


def _distinct_names(files: Sequence[Path]) -> tuple[str, ...]:
    """Stems of the files, numbered where two are the same."""
    names: list[str] = []
    for path in files:
        name, number = path.stem, 2
        while name in names:
            name, number = f"{path.stem}-{number}", number + 1
        names.append(name)
    return tuple(names)


def measured_settings(
    settings: Settings, attacks: tuple[str, ...], runners: Sequence[Runner]
) -> dict[str, Any]:
    """The settings that decide what is measured (JSON values)."""
    return {
        "attacks": list(attacks),
        "device": ", ".join(runner.label for runner in runners),
        "logits": settings.logits,
        "drop_overlap": settings.drop_overlap,
        "resamples": settings.resamples,
        "permutations": PERMUTATIONS,
        "least_rows": LEAST_ROWS,
        "seed": settings.seed,
        **({"original": settings.original.name} if settings.original is not None else {}),
    }
