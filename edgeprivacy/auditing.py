"""`audit`: attack a model file that somebody else built, on rows of known membership, and say what holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeprivacy.attacking import (
    LEAST_ROWS,
    NO_SHADOWS,
    PERMUTATIONS,
    RESAMPLES,
    Sides,
    attack_sides,
    enough_rows,
)
from edgeprivacy.audit_data import AuditData, RowsLike, load_audit_data
from edgeprivacy.confidences import Confidences
from edgeprivacy.converters import ArtifactFacts, read_facts
from edgeprivacy.device_runner import Queries, Runner, open_runner
from edgeprivacy.device_runner.inputs import input_format
from edgeprivacy.environment import describe
from edgeprivacy.errors import ArtifactError, DataError, UsageError
from edgeprivacy.files import sha256_json
from edgeprivacy.folders import output_folder
from edgeprivacy.gate import evaluate, parse_gate, verdict
from edgeprivacy.gate_grammar import Gate, GateOn
from edgeprivacy.measuring import chosen_attacks, run_facts
from edgeprivacy.probabilities import labels_in_range
from edgeprivacy.report import write
from edgeprivacy.results import ArtifactResult, AttackResult, Audit
from edgeprivacy.seeding import derive_seed

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Settings:
    """How an audit is done; see `audit` for the fields."""

    attacks: tuple[str, ...] = ()
    fail_if: tuple[str, ...] = ()
    gate_on: GateOn = "point"
    device: str = "host"
    out: Path | None = None
    label: str | None = None
    header: bool = True
    logits: bool = False
    drop_overlap: bool = False
    resamples: int = RESAMPLES
    seed: int = 0


@dataclass(frozen=True)
class Prepared:
    """An audit that has been checked: files and rows fit, names and gates exist. Nothing has been run."""

    settings: Settings
    files: tuple[Path, ...]
    names: tuple[str, ...]
    facts: tuple[ArtifactFacts, ...]
    data: AuditData
    attacks: tuple[str, ...]
    gates: tuple[Gate, ...]
    runner: Runner
    identity: str
    folder: Path


def audit(
    files: str | Path | Sequence[str | Path],
    members: RowsLike,
    nonmembers: RowsLike,
    *,
    null_members: RowsLike | None = None,
    attacks: Sequence[str] = (),
    fail_if: Sequence[str] = (),
    gate_on: GateOn = "point",
    device: str = "host",
    out: str | Path | None = None,
    label: str | None = None,
    header: bool = True,
    logits: bool = False,
    drop_overlap: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: Progress = lambda done, total, text: None,
) -> Audit:
    """Run model files on rows of known membership, attack their answers, test the measurement and report.

    No training code and no TensorFlow are needed: attacks do without shadows, thresholds are cross-fitted,
    and a seeded part of the non-members (a quarter, at least 50, at most half) is the population, which
    attack-p compares against and which is never scored. Several files get the same rows and one report.

    The output folder then holds audit.json, report.html and confidences/ (one file an artifact and side).

    Args:
        files: One model file (.tflite) or several.
        members: Rows that trained the model: an .npz (`x` [rows, ...], `y` [rows], optional `ids`), a CSV, an
            image folder, a factory "file.py:function", a tuple (x, y) or (x, y, ids), or a `Dataset`.
        nonmembers: Rows of the same distribution that did not.
        null_members: Further rows that did not, loaded as the members are: the null test that passes them off
            as members. Without them that test is listed as not run.
        attacks: Names, see `edgeprivacy attacks`; the default set if empty. Those that need shadows are
            listed as skipped.
        fail_if: Gates, e.g. "tpr@1%fpr>0.05"; they decide `verdict` and `exit_code`.
        gate_on: Whether gates are decided by the estimate ("point") or by its interval ("ci").
        device: Where the files are run: "host".
        out: Output folder; "edgeprivacy-out/audit-NAME-HASH" if None.
        label: Label column of CSV files, by name or index.
        header: Whether CSV files begin with a line of column names.
        logits: The files answer logits: apply the softmax.
        drop_overlap: Drop non-members and null members that are also members, by id or content, instead of
            refusing them.
        resamples: Bootstrap resamples behind each interval.
        seed: Of every random choice.
        progress: Called with steps done, steps in all, and the last finished step.

    Raises:
        UsageError: Unknown attack, gate or device; a folder that belongs to something else.
        ArtifactError: A file is no model file of a known kind.
        DataError: Rows cannot be read, do not fit the file, stand on two sides, or are too few.
        MissingDependency: The extra "litert" is not installed.
        RunnerError: The interpreter failed.
    """
    settings = Settings(
        attacks=tuple(attacks),
        fail_if=tuple(fail_if),
        gate_on=gate_on,
        device=device,
        out=None if out is None else Path(out),
        label=label,
        header=header,
        logits=logits,
        drop_overlap=drop_overlap,
        resamples=resamples,
        seed=seed,
    )
    several = [files] if isinstance(files, str | Path) else list(files)
    prepared = prepare([Path(file) for file in several], members, nonmembers, null_members, settings)
    return run_audit(prepared, progress)


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
    if settings.gate_on not in ("point", "ci"):
        raise UsageError("gates are decided on", got=settings.gate_on, allowed="point or ci")
    runner = open_runner(settings.device)
    facts = tuple(read_facts(path) for path in files)
    for path in files:
        runner.identity(path)  # names a missing interpreter before rows are read
    data = load_audit_data(
        members,
        nonmembers,
        null_members,
        classes=answered_classes(files, facts),
        label=settings.label,
        header=settings.header,
        drop_overlap=settings.drop_overlap,
        seed=settings.seed,
    )
    for path, entry in zip(files, facts, strict=True):
        input_format(path, entry.inputs[0], data.members.data.x)
    enough_rows(len(data.members.data), len(data.scored))
    artifact_names = _distinct_names(files)
    identity = sha256_json(
        {
            "files": [entry.sha256 for entry in facts],
            "names": artifact_names,
            "rows": data.split["sha256"],
            "settings": _measured(settings, names),
        }
    )
    folder = settings.out or Path("edgeprivacy-out") / f"audit-{artifact_names[0]}-{identity[:8]}"
    return Prepared(
        settings, tuple(files), artifact_names, facts, data, names, gates, runner, identity, folder
    )


def run_audit(prepared: Prepared, progress: Progress = lambda done, total, text: None) -> Audit:
    """Run what `prepare` has checked; see `audit`."""
    # Imported late: half of the start-up time, which a mistake in the arguments need not wait for.
    from edgeprivacy.audit_nulls import file_null_tests

    started = time.monotonic()
    settings, data, folder = prepared.settings, prepared.data, prepared.folder
    total, done = 2 + len(prepared.files), 0
    with output_folder(folder, f"audit {prepared.identity[:16]}"):
        progress(done, total, "")
        answers = _collect(prepared)
        for name, sides in zip(prepared.names, answers, strict=True):
            for side, confidences in sides.items():
                confidences.save(folder / "confidences" / f"{name}.{side}.npz")
        progress(done := done + 1, total, "ran the files")
        results, scores = [], {}
        for position, (name, sides) in enumerate(zip(prepared.names, answers, strict=True)):
            three = Sides(sides["members"], sides["nonmembers"], sides["population"])
            attacked, found = attack_sides(
                three, prepared.attacks, settings.resamples, settings.seed, prepared.gates
            )
            scores.update({f"{name}/{attack}": values for attack, values in found.items()})
            results.append(_result(prepared, position, three, attacked))
            progress(done := done + 1, total, f"attacked {name}")
        tests = file_null_tests(
            data,
            answers,
            scores,
            lambda queries: prepared.runner.collect(prepared.files, queries, logits=settings.logits),
            derive_seed(settings.seed, "null tests"),
        )
        gates = evaluate(prepared.gates, results, settings.gate_on)
        word, code = verdict(gates, tests)
        finished = Audit(
            verdict=word,
            exit_code=code,
            recipe_id=None,
            split=data.split,
            null_tests=tests,
            artifacts=tuple(results),
            gates=gates,
            notes=(NO_SHADOWS, *data.notes),
            recipe=_measured(settings, prepared.attacks),
            environment=describe(time.monotonic() - started, device=settings.device),
        )
        finished.save(folder / "audit.json")
        write(finished, "html", folder / "report.html")
        progress(done + 1, total, "wrote the report")
    return finished


def _collect(prepared: Prepared) -> list[dict[str, Confidences]]:
    """What every file answered to every row, by side; one call, so that all rows are queried alike."""
    data = prepared.data
    sides = {
        "members": data.members.data,
        "nonmembers": data.scored,
        "population": data.population,
        **({"null_members": data.null_members.data} if data.null_members is not None else {}),
    }
    queries = Queries(
        np.concatenate([side.x for side in sides.values()]),
        np.concatenate([side.ids for side in sides.values()]),
        np.concatenate([side.y for side in sides.values()]),
    )
    collected = prepared.runner.collect(prepared.files, queries, logits=prepared.settings.logits)
    answers = []
    for path, facts, confidences in zip(prepared.files, prepared.facts, collected, strict=True):
        labels_in_range(queries.labels, confidences.probabilities.shape[1], f"the rows for {path.name}")
        known = replace(confidences, facts={**confidences.facts, "artifact": artifact_facts(path, facts)})
        edges = np.cumsum([0, *(len(side) for side in sides.values())])
        answers.append(
            {
                name: known.take(np.arange(edges[number], edges[number + 1]))
                for number, name in enumerate(sides)
            }
        )
    return answers


def _result(
    prepared: Prepared, position: int, sides: Sides, attacked: tuple[AttackResult, ...]
) -> ArtifactResult:
    path, facts = prepared.files[position], prepared.facts[position]
    known = artifact_facts(path, facts)
    run = run_facts(sides.members)
    del run["artifact"]
    return ArtifactResult(
        name=prepared.names[position],
        role="candidate",
        defense="unknown",
        utility=sides.utility(),
        parity=None,
        attacks=attacked,
        facts=facts.to_dict(),
        run=run,
        **known,
    )


def artifact_facts(path: Path, facts: ArtifactFacts) -> dict[str, Any]:
    """What a report says of a file that was given: backend, format, file, sha256, size_bytes, gzip_bytes."""
    return {
        "backend": facts.container,
        "format": found_format(facts),
        "file": path.name if path.is_absolute() else path.as_posix(),
        "sha256": facts.sha256,
        "size_bytes": facts.size_bytes,
        "gzip_bytes": facts.gzip_bytes,
    }


def found_format(facts: ArtifactFacts) -> str:
    """The format that a file's types show: "float32", "float16", "dynamic" or "int8"; other types by name.

    A file of integer weights is "int8" where its activations are integers too, and "dynamic" where not.
    """
    types = {weight.dtype for weight in facts.weights}
    if "int8" in types:
        integers = all(tensor.scale is not None for tensor in facts.inputs) or "QUANTIZE" in facts.operators
        return "int8" if integers else "dynamic"
    if types <= {"float32"}:
        return "float32"
    return "float16" if types <= {"float16", "float32"} else "+".join(sorted(types))


def answered_classes(files: Sequence[Path], facts: Sequence[ArtifactFacts]) -> int | None:
    """Number of classes that the files answer (one column stands for two), None where they do not say.

    Raises:
        ArtifactError: A file has several inputs or outputs.
        DataError: The files differ.
    """
    found: dict[str, int] = {}
    for path, entry in zip(files, facts, strict=True):
        for what, tensors in (("inputs", entry.inputs), ("outputs", entry.outputs)):
            if len(tensors) != 1:
                raise ArtifactError(f"{path} has {len(tensors)} {what}", allowed="one")
        shape = entry.outputs[0].shape
        if len(shape) > 1 and shape[-1] > 0:
            found[str(path)] = max(2, shape[-1])
    if len(set(found.values())) > 1:
        got = ", ".join(f"{name}: {count}" for name, count in found.items())
        raise DataError("the files answer different numbers of classes", got=got, hint="audit them apart")
    return next(iter(found.values()), None)


def _distinct_names(files: Sequence[Path]) -> tuple[str, ...]:
    """Stems of the files, numbered where two are the same."""
    names: list[str] = []
    for path in files:
        name, number = path.stem, 2
        while name in names:
            name, number = f"{path.stem}-{number}", number + 1
        names.append(name)
    return tuple(names)


def _measured(settings: Settings, attacks: tuple[str, ...]) -> dict[str, Any]:
    """The settings that decide what is measured (JSON values)."""
    return {
        "attacks": list(attacks),
        "device": settings.device,
        "logits": settings.logits,
        "drop_overlap": settings.drop_overlap,
        "resamples": settings.resamples,
        "permutations": PERMUTATIONS,
        "least_rows": LEAST_ROWS,
        "seed": settings.seed,
    }
