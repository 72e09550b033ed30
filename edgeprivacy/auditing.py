"""`audit`: attack a model file that somebody else built, on rows of known membership, and say what holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgeprivacy.attacking import (
    NO_SHADOWS,
    PERMUTATIONS,
    RESAMPLES,
    Sides,
    attack_sides,
    enough_rows,
    shadow_tests,
)
from edgeprivacy.audit_data import AuditData, RowsLike, load_audit_data
from edgeprivacy.confidences import Confidences, Performance
from edgeprivacy.converters import ArtifactFacts, read_facts
from edgeprivacy.device_runner import Queries, Runner, open_runner, open_runners
from edgeprivacy.device_runner.inputs import input_format
from edgeprivacy.drift import drift_between, equal, with_attack
from edgeprivacy.environment import describe, moved_bytes
from edgeprivacy.errors import ArtifactError, DataError, MissingDependency, UsageError
from edgeprivacy.files import sha256_json, write_npz
from edgeprivacy.folders import output_folder
from edgeprivacy.gate import evaluate, parse_gate, verdict
from edgeprivacy.gate_grammar import Gate, GateOn
from edgeprivacy.given_shadows import LEAST_ROWS, GivenShadows, fit_beside
from edgeprivacy.measuring import chosen_attacks, fpr_limits, run_facts
from edgeprivacy.originals import runnable_original
from edgeprivacy.probabilities import labels_in_range
from edgeprivacy.report import write
from edgeprivacy.results import ArtifactResult, AttackResult, Audit, Drift, VersionSet
from edgeprivacy.seeding import derive_seed
from edgeprivacy.shadow_files import ShadowFiles, open_shadow_files, shadows_beside
from edgeprivacy.threads import side_by_side
from edgeprivacy.version_sets import measure_set, of_one_version, plan_sets

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Settings:
    """How an audit is done; see `audit` for the fields."""

    attacks: tuple[str, ...] = ()
    fail_if: tuple[str, ...] = ()
    gate_on: GateOn = "point"
    device: tuple[str, ...] = ("host",)
    out: Path | None = None
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


def audit(
    files: str | Path | Sequence[str | Path],
    members: RowsLike,
    nonmembers: RowsLike,
    *,
    null_members: RowsLike | None = None,
    attacks: Sequence[str] = (),
    fail_if: Sequence[str] = (),
    gate_on: GateOn = "point",
    device: str | Sequence[str] = "host",
    out: str | Path | None = None,
    label: str | None = None,
    header: bool = True,
    logits: bool = False,
    drop_overlap: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
    original: str | Path | None = None,
    shadow_files: Sequence[str | Path] = (),
    shadow_membership: str | Path | Mapping[str, ArrayLike] | None = None,
    progress: Progress = lambda done, total, text: None,
) -> Audit:
    """Run model files on rows of known membership, attack their answers, test the measurement and report.

    No training code and no TensorFlow are needed: without files of shadows, attacks do without, thresholds
    are cross-fitted, and a seeded part of the non-members (a quarter, at least 50, at most half) is the
    population, which attack-p compares against and which is never scored. Several files get the same rows and
    one report.

    The output folder then holds audit.json, report.html and confidences/ (one file an artifact and side).

    Args:
        files: One model file (.tflite) or several.
        members: Rows that trained the model: an .npz (`x` [rows, ...], `y` [rows], optional `ids`), a CSV, an
            image folder, a factory "file.py:function", a tuple (x, y) or (x, y, ids), or a `Dataset`.
        nonmembers: Rows of the same distribution that did not.
        null_members: Further rows that did not, loaded as the members are: the null test that passes them off
            as members. Without them that test is listed as not run.
        attacks: Names, see `edgeprivacy attacks`; the default set if empty. Those that need shadows that are
            not there are listed as skipped.
        fail_if: Gates, e.g. "tpr@1%fpr>0.05"; they decide `verdict` and `exit_code`.
        gate_on: Whether gates are decided by the estimate ("point") or by its interval ("ci").
        device: Where the files are run: "host", "native", "adb" (the only device attached), "adb:SERIAL",
            "adb:all", or several of them: then every file stands in the report once a device.
        out: Output folder; "edgeprivacy-out/audit-NAME-HASH" if None.
        label: Label column of CSV files, by name or index.
        header: Whether CSV files begin with a line of column names.
        logits: The files answer logits: apply the softmax.
        drop_overlap: Drop non-members and null members that are also members, by id or content, instead of
            refusing them.
        resamples: Bootstrap resamples behind each interval.
        seed: Of every random choice.
        original: The model that the files were made from, as a model file or a Keras file (.keras, .h5: run
            as its float32 conversion). Attacks on several versions see it beside each file; gates do not.
        shadow_files: Files (or folders of them) of models that were trained and exported as the audited one
            was, on parts of the same rows; run in the same place on the same rows. A file is attacked with
            those of its own format, where there are any. The population is then of non-members that trained
            no shadow; attacks that need one are skipped where there are too few.
        shadow_membership: What trained them: an .npz, or a mapping, of `members` bool [shadows, rows], rows
            named by `ids` [rows] or else the members, then the non-members; see
            `shadow_membership.read_membership`.
        progress: Called with steps done, steps in all, and the last finished step.

    Raises:
        UsageError: Unknown attack, gate or device; a folder that belongs to something else.
        ArtifactError: A file is no model file of a known kind.
        DataError: Rows cannot be read, do not fit the file, stand on two sides, or are too few.
        MissingDependency: The extra "litert" is not installed.
        RunnerError: The interpreter or the device failed.
    """
    settings = Settings(
        attacks=tuple(attacks),
        fail_if=tuple(fail_if),
        gate_on=gate_on,
        device=(device,) if isinstance(device, str) else tuple(device),
        out=None if out is None else Path(out),
        label=label,
        header=header,
        logits=logits,
        drop_overlap=drop_overlap,
        resamples=resamples,
        seed=seed,
        original=None if original is None else Path(original),
        shadow_files=tuple(Path(file) for file in shadow_files),
        shadow_membership=shadow_membership,
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
            "settings": _measured(settings, names, runners),
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


def run_audit(prepared: Prepared, progress: Progress = lambda done, total, text: None) -> Audit:
    """Run what `prepare` has checked; see `audit`."""
    try:
        with output_folder(prepared.folder, f"audit {prepared.identity[:16]}"):
            return _run(prepared, progress)
    finally:
        prepared.close()


def _run(prepared: Prepared, progress: Progress) -> Audit:
    # Imported late: half of the start-up time, which a mistake in the arguments need not wait for.
    from edgeprivacy.audit_nulls import file_null_tests

    started = time.monotonic()
    settings, data, folder = prepared.settings, prepared.data, prepared.folder
    total, done = 2 + len(prepared.runners) * len(prepared.files), 0
    progress(done, total, "")
    columns = side_by_side(partial(_collect, prepared), prepared.runners, prepared.close)
    answers = [entry for column in columns for entry in column]
    for entry in answers:
        for side, confidences in entry.sides.items():
            confidences.save(folder / "confidences" / f"{entry.name.replace(':', '-')}.{side}.npz")
        if entry.shadows is not None:
            entry.save_shadows(folder / "confidences" / f"{entry.name.replace(':', '-')}.shadows.npz")
    on_host = _collect(prepared, prepared.host) if prepared.host is not None else None
    progress(done := done + 1, total, "ran the files")
    results, scores = [], {}
    for entry in answers:
        attacked, found = _attacked(prepared, entry)
        scores.update({f"{entry.name}/{attack}": values for attack, values in found.items()})
        results.append(_result(prepared, entry, attacked, on_host))
        progress(done := done + 1, total, f"attacked {entry.name}")
    sets = _version_sets(prepared, columns[0], results[: len(prepared.files)], scores)
    tests = file_null_tests(
        data,
        [entry.sides for entry in answers],
        scores,
        lambda queries: [
            confidences
            for runner in prepared.runners
            for confidences in runner.collect(prepared.files, queries, logits=settings.logits)
        ],
        derive_seed(settings.seed, "null tests"),
        shadow_tests(answers[0].scored) if answers else (),
    )
    gates = evaluate(prepared.gates, results, settings.gate_on, sets)
    word, code = verdict(gates, tests)
    labels = ", ".join(runner.label for runner in prepared.runners)
    finished = Audit(
        verdict=word,
        exit_code=code,
        recipe_id=None,
        split=_split(prepared, answers),
        null_tests=tests,
        artifacts=tuple(results),
        gates=gates,
        version_sets=sets,
        notes=(*_shadow_notes(answers), *data.notes),
        recipe=_measured(settings, prepared.attacks, prepared.runners),
        environment=describe(time.monotonic() - started, device=labels, **moved_bytes(prepared.runners)),
    )
    finished.save(folder / "audit.json")
    write(finished, "html", folder / "report.html")
    progress(done + 1, total, "wrote the report")
    return finished


@dataclass(frozen=True)
class _Answers:
    """What one file answered in one place, by side."""

    name: str
    position: int
    runner: Runner
    sides: dict[str, Confidences]
    performance: Performance | None
    shadows: GivenShadows | None = None

    @property
    def scored(self) -> Sides:
        """The sides that attacks look at."""
        sides = self.sides
        return Sides(sides["members"], sides["nonmembers"], sides.get("population"), self.shadows)

    def save_shadows(self, path: Path) -> None:
        """What the shadows answered, as `edgeprivacy attack --shadows` takes it."""
        assert self.shadows is not None
        sides = [self.sides[side] for side in ("members", "nonmembers")]
        arrays = {
            "probabilities": self.shadows.probabilities,
            "members": self.shadows.members,
            "row_ids": np.concatenate([side.row_ids for side in sides]),
        }
        if self.shadows.population is not None:
            arrays["population"] = self.shadows.population
            arrays["population_ids"] = self.sides["population"].row_ids
        write_npz(path, **arrays)


def _collect(prepared: Prepared, runner: Runner) -> list[_Answers]:
    """What every file answered to every row in one place; one call, so that all rows are queried alike."""
    data = prepared.data
    sides = {
        "members": data.members.data,
        "nonmembers": data.scored,
        **({"population": data.population} if data.population is not None else {}),
        **({"null_members": data.null_members.data} if data.null_members is not None else {}),
    }
    queries = Queries(
        np.concatenate([side.x for side in sides.values()]),
        np.concatenate([side.ids for side in sides.values()]),
        np.concatenate([side.y for side in sides.values()]),
    )
    collected = runner.collect(prepared.files, queries, logits=prepared.settings.logits)
    performance = runner.measure(prepared.files, queries)
    given = _shadows_of(prepared, runner, queries)
    answers = []
    for position, (path, confidences) in enumerate(zip(prepared.files, collected, strict=True)):
        labels_in_range(queries.labels, confidences.probabilities.shape[1], f"the rows for {path.name}")
        about = artifact_facts(path, prepared.facts[position])
        known = replace(confidences, facts={**confidences.facts, "artifact": about})
        edges = np.cumsum([0, *(len(side) for side in sides.values())])
        name = prepared.names[position]
        split = {
            side: known.take(np.arange(edges[number], edges[number + 1])) for number, side in enumerate(sides)
        }
        answers.append(
            _Answers(
                name if len(prepared.runners) == 1 else f"{name}@{runner.label}",
                position,
                runner,
                split,
                performance[position],
                given(Sides(split["members"], split["nonmembers"]), prepared.facts[position]),
            )
        )
    return answers


def _shadows_of(
    prepared: Prepared, runner: Runner, queries: Queries
) -> Callable[[Sides, ArtifactFacts], GivenShadows | None]:
    """The shadows' answers in one place to the rows that attacks look at, for each file that is attacked."""
    shadows, data = prepared.shadows, prepared.data
    if shadows is None or data.shadows is None:
        return lambda sides, facts: None
    files = replace(shadows, membership=data.shadows)
    scored = len(data.members.data) + len(data.scored)
    asked = scored + (0 if data.population is None else len(data.population))
    answers = runner.collect(
        files.files,
        Queries(queries.x[:asked], queries.row_ids[:asked], queries.labels[:asked]),
        logits=prepared.settings.logits,
    )
    formats = [found_format(facts) for facts in files.facts]

    def beside(sides: Sides, facts: ArtifactFacts) -> GivenShadows:
        given = shadows_beside(
            files, answers, formats, found_format(facts), queries.row_ids[:scored], asked > scored
        )
        return fit_beside(given, sides.probabilities, sides.truth, sides.members.log_floor)

    return beside


def _shadow_notes(answers: Sequence[_Answers]) -> tuple[str, ...]:
    notes = [note for entry in answers if entry.shadows is not None for note in entry.shadows.notes]
    return tuple(dict.fromkeys(notes)) or (NO_SHADOWS,)


def _split(prepared: Prepared, answers: Sequence[_Answers]) -> dict[str, Any]:
    """What audit.json says of the rows, and of the shadows where they were given."""
    if prepared.shadows is None:
        return prepared.data.split
    about: dict[str, Any] = prepared.shadows.describe()
    for entry in answers:
        if entry.shadows is not None:
            for told, found in zip(about["files"], entry.shadows.about["files"], strict=True):
                told.update({key: value for key, value in found.items() if key not in told})
    return {**prepared.data.split, "shadows": about}


def _attacked(
    prepared: Prepared, entry: _Answers
) -> tuple[tuple[AttackResult, ...], dict[str, NDArray[np.float64]]]:
    settings = prepared.settings
    names = prepared.attacks if len(prepared.files) == 1 else of_one_version(prepared.attacks)
    return attack_sides(entry.scored, names, settings.resamples, settings.seed, prepared.gates)


def _is_original(prepared: Prepared, position: int) -> bool:
    return prepared.settings.original is not None and position == len(prepared.files) - 1


def _version_sets(
    prepared: Prepared,
    answers: Sequence[_Answers],
    results: Sequence[ArtifactResult],
    scores: dict[str, NDArray[np.float64]],
) -> tuple[VersionSet, ...]:
    """The files attacked together, in the first place they were run; `scores` takes theirs."""
    settings, found = prepared.settings, []
    if len(prepared.files) == 1:
        return ()
    signals = [entry.scored.signals() for entry in answers]
    for planned in plan_sets(results, prepared.attacks):
        one, values = measure_set(
            planned,
            [results[position].name for position in planned.positions],
            [signals[position] for position in planned.positions],
            settings.resamples,
            derive_seed(settings.seed, "measure"),
            fpr_limits(prepared.gates),
        )
        scores.update({f"{planned.name}/{attack}": entry for attack, entry in values.items()})
        found.append(one)
    return tuple(found)


def _result(
    prepared: Prepared,
    entry: _Answers,
    attacked: tuple[AttackResult, ...],
    on_host: Sequence[_Answers] | None,
) -> ArtifactResult:
    path, facts = prepared.files[entry.position], prepared.facts[entry.position]
    known = artifact_facts(path, facts)
    run = run_facts(entry.sides["members"])
    del run["artifact"]
    result = ArtifactResult(
        name=entry.name,
        role="original" if _is_original(prepared, entry.position) else "candidate",
        defense="unknown",
        utility=entry.scored.utility(),
        parity=None,
        attacks=attacked,
        facts=facts.to_dict(),
        run=run,
        device=entry.runner.label,
        shadow_device=None if entry.shadows is None else f"{entry.runner.label}: run with the file",
        performance=entry.performance,
        **known,
    )
    if entry.runner.name == "host":
        return result
    if on_host is None:
        missing = "the host's interpreter for this file is not installed"
        return replace(result, drift=(Drift("host", not_run=missing),))
    there = on_host[entry.position]
    scored = [side for side in ("members", "nonmembers", "population") if side in entry.sides]
    drift = drift_between(
        _together([entry.sides[side] for side in scored]),
        _together([there.sides[side] for side in scored]),
        "host",
    )
    attacks = attacked if equal(drift) else _attacked(prepared, there)[0]
    return replace(result, drift=(with_attack(drift, result, attacks),))


def _together(sides: Sequence[Confidences]) -> Confidences:
    """All sides' rows as one."""
    raw = [side.raw for side in sides if side.raw is not None]
    return replace(
        sides[0],
        probabilities=np.concatenate([side.probabilities for side in sides]),
        row_ids=np.concatenate([side.row_ids for side in sides]),
        labels=np.concatenate([side.labels for side in sides]),
        raw=np.concatenate(raw) if len(raw) == len(sides) else None,
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


def _measured(settings: Settings, attacks: tuple[str, ...], runners: Sequence[Runner]) -> dict[str, Any]:
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
