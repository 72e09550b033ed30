"""An audit of files that were checked: run them, attack their answers, test the measurement, report."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.audit_notes import rounding_notes
from edgeprivacy.audit_preparing import Prepared, measured_settings
from edgeprivacy.confidences import Confidences, Performance
from edgeprivacy.converters import ArtifactFacts
from edgeprivacy.data.checks import LABEL_SETS_NOTE
from edgeprivacy.device_runner import Queries, Runner
from edgeprivacy.drift import drift_between, equal, with_attack
from edgeprivacy.environment import describe, moved_bytes
from edgeprivacy.files import write_npz
from edgeprivacy.folders import output_folder
from edgeprivacy.found_facts import artifact_facts, found_format
from edgeprivacy.gate import evaluate, verdict
from edgeprivacy.given_shadows import GivenShadows, fit_beside
from edgeprivacy.measuring import fpr_limits, run_facts
from edgeprivacy.probabilities import labels_in_range
from edgeprivacy.records import write_records
from edgeprivacy.report import write
from edgeprivacy.results import ArtifactResult, AttackResult, Audit, Drift, VersionSet
from edgeprivacy.seeding import derive_seed
from edgeprivacy.shadow_files import shadows_beside
from edgeprivacy.sides import (
    NO_SHADOWS,
    Sides,
    attack_sides,
    bound_sides,
    shadow_tests,
)
from edgeprivacy.threads import side_by_side
from edgeprivacy.version_sets import measure_set, of_one_version, plan_sets
from edgeprivacy.worker_progress import Progress


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
    results, scores, tables = [], {}, []
    for entry in answers:
        attacked, found = _attacked(prepared, entry)
        scores.update({f"{entry.name}/{attack}": values for attack, values in found.items()})
        bounds, rows = bound_sides(entry.scored, prepared.attacks, found, settings.resamples, settings.seed)
        results.append(replace(_result(prepared, entry, attacked, on_host), bounds=bounds))
        if rows is not None:
            tables.append((entry.name, entry.scored.row_ids, rows))
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
        notes=(
            *_shadow_notes(answers),
            *((LABEL_SETS_NOTE,) if data.members.data.label_sets else ()),
            *data.notes,
            *rounding_notes(results),
        ),
        recipe=measured_settings(settings, prepared.attacks, prepared.runners),
        environment=describe(time.monotonic() - started, device=labels, **moved_bytes(prepared.runners)),
    )
    if settings.records is not None:
        write_records(settings.records, tables)
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
