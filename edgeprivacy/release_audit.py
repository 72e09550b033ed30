"""The audit of releases: attacks with shadows on every file of the target, null tests, gates, notes."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from edgeprivacy import nulls
from edgeprivacy.attacks import Population, Signals
from edgeprivacy.audit_notes import audit_notes
from edgeprivacy.canary_measuring import apart, measure_canaries, poolable
from edgeprivacy.confidences import Confidences
from edgeprivacy.data.dataset import Source
from edgeprivacy.data.splits import Split
from edgeprivacy.defenses import make_defense
from edgeprivacy.device_collecting import Column
from edgeprivacy.device_runner import Queries, Runner, open_runner
from edgeprivacy.drift import with_attack
from edgeprivacy.environment import describe, moved_bytes
from edgeprivacy.errors import DataError
from edgeprivacy.files import read_npz
from edgeprivacy.gate import evaluate, parse_gate, verdict
from edgeprivacy.measuring import chosen_attacks, fpr_limits, measure_accuracy, measure_attacks, run_facts
from edgeprivacy.metrics.null_tests import NullOutcome
from edgeprivacy.recipe import Recipe, Run
from edgeprivacy.release import (
    ORIGINAL_ARM,
    MadeArtifact,
    PlannedArtifact,
    Release,
    every_artifact,
    planned_artifacts,
)
from edgeprivacy.release_gathering import Asked
from edgeprivacy.results import (
    ArtifactResult,
    AttackResult,
    Audit,
    NullTest,
    Parity,
    Role,
    Utility,
    VersionSet,
)
from edgeprivacy.seeding import derive_seed
from edgeprivacy.version_sets import (
    PlannedSet,
    ablation_names,
    measure_set,
    of_one_version,
    plan_sets,
    together,
)
from edgeprivacy.workers import available_cores, parallel_map

QUERIED_TWICE_ROWS = 100
_TASKS_PER_WORKER = 4


def audit_releases(
    recipe: Recipe,
    run: Run,
    source: Source,
    split: Split,
    releases: Sequence[Release],
    folder: Path,
    started: float,
    columns: Sequence[Column] = (),
    asked: Asked | None = None,
    plans: Sequence[tuple[PlannedArtifact, Role]] = (),
    notes: Sequence[str] = (),
) -> Audit:
    """Attack every file of the target with the shadows' help, run the null tests, decide the gates.

    Args:
        releases: The target, then its shadows, with the host's confidences.
        folder: The output folder; the target's files are in its artifacts/.
        started: time.monotonic() at the start of the whole run.
        columns: What the files answered in the places that are audited; the host's answers if empty.
        asked: What attacks with queries of their own asked the files.
        plans: The files and their roles, where they are not those that the recipe makes.
        notes: Further sentences for the reader.
    """
    gates = [parse_gate(text) for text in run.fail_if]
    asked_for = chosen_attacks(recipe.audit.attacks)
    planned = plans or _planned(recipe)
    alone = ablation_names(recipe) | {plan.name for plan, role in plans if role == "control"}
    # Attacks on several versions are run on sets; where there is none, each file says that they were skipped.
    names = of_one_version(asked_for) if sum(p.name not in alone for p, _ in planned) > 1 else asked_for
    roles = [role for _, role in planned]
    columns = list(columns) or [Column(open_runner("host"), tuple(releases))]
    on_host = _paths(releases, len(planned))
    audited = [on_host if column.equal else _paths(column.releases, len(planned)) for column in columns]
    measure = partial(
        _measure,
        split,
        recipe.audit.bootstrap,
        fpr_limits(gates),
        recipe.audit.permutations,
        recipe.seed,
        asked or {},
    )
    measured = _measured(measure, [*audited, on_host], audited, roles, names, run.jobs)
    results: list[ArtifactResult] = []
    collected, outcomes = [], []
    for column, files in zip(columns, audited, strict=True):
        for position, (plan, role) in enumerate(planned):
            found = measured[files[position]]
            outcomes += found.permuted
            confidences = Confidences.load(column.releases[0].artifacts[position].confidences)
            name = plan.name if len(columns) == 1 else f"{plan.name}@{column.label}"
            result = _result(
                column.releases[0].artifacts[position],
                role,
                found.utility,
                found.attacks,
                confidences,
                recipe.audit.canaries,
                found.canaries,
            )
            results.append(_in_column(result, column, position, name, measured[on_host[position]].attacks))
            if role == "candidate":
                collected.append((column.runner, folder / result.file, confidences))
    sets, set_outcomes = _version_sets(
        partial(
            _measure_set,
            split,
            recipe.audit.bootstrap,
            fpr_limits(gates),
            recipe.audit.permutations,
            recipe.seed,
        ),
        results[: len(planned)],
        audited[0],
        asked_for,
        alone,
        run.jobs,
    )
    outcomes += set_outcomes
    permuted = (
        nulls.of_permutations(outcomes)
        if outcomes
        else nulls.not_run("permuted-labels", "every attack was skipped")
    )
    tests = _null_tests(recipe, source, split, collected, permuted)
    decided = evaluate(gates, results, run.gate_on, sets)
    word, code = verdict(decided, tests)
    trained = sum(len(release.trained) for release in releases)
    cached = sum(len(release.cached) for release in releases)
    return Audit(
        verdict=word,
        exit_code=code,
        recipe_id=recipe.id,
        split=split.describe(),
        null_tests=tests,
        artifacts=tuple(results),
        gates=decided,
        version_sets=sets,
        notes=(*audit_notes(recipe, source, split, results), *notes),
        recipe=recipe.model_dump(mode="json"),
        environment=describe(
            time.monotonic() - started,
            releases={"trained": trained, "cached": cached},
            device=", ".join(column.label for column in columns),
            **moved_bytes([column.runner for column in columns]),
        ),
    )


_Files = tuple[Path, ...]
"""Confidences of one artifact, the target's and then every shadow's."""


def _planned(recipe: Recipe) -> list[tuple[PlannedArtifact, Role]]:
    """All files that the recipe makes; those of its further versions are controls."""
    shipping = {plan for backend in recipe.backends for plan in planned_artifacts(recipe, backend)}
    return [
        (plan, _role(plan.arm, recipe) if plan in shipping else "control") for plan in every_artifact(recipe)
    ]


def _paths(releases: Sequence[Release], artifacts: int) -> list[_Files]:
    return [
        tuple(release.artifacts[position].confidences for release in releases)
        for position in range(artifacts)
    ]


def _measured(
    measure: Callable[[tuple[_Files, tuple[str, ...], bool]], _Measured],
    wanted: Sequence[Sequence[_Files]],
    audited: Sequence[Sequence[_Files]],
    roles: Sequence[Role],
    names: tuple[str, ...],
    jobs: int | None,
) -> dict[_Files, _Measured]:
    """Every artifact's attacks, measured once for all columns that have its very confidences.

    Args:
        wanted: What is measured, by column and artifact.
        audited: What of it is audited: the permuted labels of candidates are tested with it.
    """
    shown = {files for column in audited for files in column}
    kinds = {
        files: role == "candidate" and files in shown
        for column in wanted
        for files, role in zip(column, roles, strict=True)
    }
    # Few artifacts are measured in parts: else cores would wait for the last one.
    most = -(-_TASKS_PER_WORKER * (jobs or available_cores()) // len(kinds))
    share = max(1, min(len(names), most))
    tasks = [
        (files, names[part::share], candidate) for files, candidate in kinds.items() for part in range(share)
    ]
    parts: dict[_Files, list[_Measured]] = {}
    for task, part in zip(tasks, parallel_map(measure, tasks, jobs), strict=True):
        parts.setdefault(task[0], []).append(part)
    whole = {}
    for files, found in parts.items():
        attacked = {result.name: result for part in found for result in part.attacks}
        outcomes = [outcome for part in found for outcome in part.permuted]
        canaries = {result.name: result for part in found for result in part.canaries}
        whole[files] = _Measured(
            found[0].utility,
            tuple(attacked[name] for name in names),
            outcomes,
            tuple(canaries[name] for name in names if name in canaries),
        )
    return whole


def _in_column(
    result: ArtifactResult, column: Column, position: int, name: str, on_host: Sequence[AttackResult]
) -> ArtifactResult:
    """The result with what its device adds: drift, what that does to the worst attack, and speed."""
    drift = column.drift[position] if column.drift else ()
    told = [with_attack(entry, result, on_host) if entry.versus == "host" else entry for entry in drift]
    return replace(
        result,
        name=name,
        device=column.label,
        shadow_device=column.shadow_device,
        drift=tuple(told),
        performance=column.performance[position] if column.performance else None,
    )


@dataclass(frozen=True)
class _Measured:
    """What some attacks found on one artifact; `permuted` is the null test's part, for candidates."""

    utility: Utility
    attacks: tuple[AttackResult, ...]
    permuted: list[NullOutcome]
    canaries: tuple[AttackResult, ...] = ()


def _measure(
    split: Split,
    resamples: int,
    limits: tuple[float, ...],
    permutations: int,
    seed: int,
    asked: Asked,
    task: tuple[tuple[Path, ...], tuple[str, ...], bool],
) -> _Measured:
    """Some attacks of one artifact, in a worker."""
    paths, names, is_candidate = task
    everything, utility = _signals(split, [Confidences.load(path) for path in paths])
    gathered = {
        name: read_npz(path)["answers"] for name, path in asked.get(paths, {}).items() if name in names
    }
    signals, canaries = apart(replace(everything, gathered=gathered), split)
    results, scores = measure_attacks(signals, names, resamples, derive_seed(seed, "measure"), limits)
    permuted: list[NullOutcome] = []
    if is_candidate:
        audited = signals.audited[0]
        permuted = nulls.permute_labels(
            {name: values[audited] for name, values in scores.items()},
            signals.members[0, audited],
            permutations,
            derive_seed(seed, "null tests"),
        )
    on_canaries: tuple[AttackResult, ...] = ()
    if canaries is not None:
        pooled = poolable(split, canaries.models)
        on_canaries = measure_canaries(
            canaries, names, resamples, derive_seed(seed, "measure"), limits, pooled
        )
    return _Measured(utility, results, permuted, on_canaries)


def _version_sets(
    measure: Callable[[tuple[PlannedSet, tuple[str, ...], tuple[_Files, ...]]], _MeasuredSet],
    results: Sequence[ArtifactResult],
    files: Sequence[_Files],
    names: Sequence[str],
    alone: Collection[str],
    jobs: int | None,
) -> tuple[tuple[VersionSet, ...], list[NullOutcome]]:
    """The sets of the first place's files, attacked, and the permuted labels of those that ship."""
    planned = plan_sets(results, names, alone)
    tasks = [
        (
            entry,
            tuple(results[position].name for position in entry.positions),
            tuple(files[position] for position in entry.positions),
        )
        for whole in planned
        for entry in whole.one_by_one()
    ]
    found = list(parallel_map(measure, tasks, jobs)) if tasks else []
    return together([entry.result for entry in found]), [o for entry in found for o in entry.permuted]


@dataclass(frozen=True)
class _MeasuredSet:
    result: VersionSet
    permuted: list[NullOutcome]


def _measure_set(
    split: Split,
    resamples: int,
    limits: tuple[float, ...],
    permutations: int,
    seed: int,
    task: tuple[PlannedSet, tuple[str, ...], tuple[_Files, ...]],
) -> _MeasuredSet:
    """One set of versions, in a worker."""
    planned, names, files = task
    everything = [_signals(split, [Confidences.load(path) for path in paths])[0] for paths in files]
    signals = [apart(entry, split)[0] for entry in everything]
    result, scores = measure_set(planned, names, signals, resamples, derive_seed(seed, "measure"), limits)
    audited = signals[0].audited[0]
    permuted = nulls.permute_labels(
        {name: values[audited] for name, values in scores.items()},
        signals[0].members[0, audited],
        permutations,
        derive_seed(seed, "null tests"),
    )
    return _MeasuredSet(result, permuted)


def _signals(split: Split, confidences: Sequence[Confidences]) -> tuple[Signals, Utility]:
    """What the attacker holds of one artifact, canaries included, and what it is good for without them."""
    pool = len(split.roles["pool"])
    probabilities = np.stack([entry.probabilities for entry in confidences])
    labels = confidences[0].labels
    assert probabilities.shape[1] == pool + len(split.roles["test"])
    members = np.stack([split.members(model) for model in range(len(confidences))])
    audited = np.stack([split.audited(model) for model in range(len(confidences))])
    floor = confidences[0].log_floor
    population = pool + split.test_halves()[0]
    signals = Signals(
        probabilities[:, :pool],
        labels[:pool],
        members,
        audited,
        floor,
        Population(probabilities[:, population], labels[population], floor),
        np.array(
            [-1 if partner is None else partner for partner in map(split.partner, range(len(confidences)))]
        ),
    )
    correct = probabilities.argmax(axis=2) == labels
    trained = members & ~split.canaries
    utility = Utility(
        test_accuracy=measure_accuracy(
            probabilities[0, pool:], labels[pool:], correct[:, pool:].mean(axis=1)
        ),
        train_accuracy=measure_accuracy(
            probabilities[0, :pool][trained[0]],
            labels[:pool][trained[0]],
            [float(hits[:pool][inside].mean()) for hits, inside in zip(correct, trained, strict=True)],
        ),
    )
    return signals, utility


def _role(arm: str, recipe: Recipe) -> Role:
    """A defense's declared role; "none" is a control beside a defense. What was asked for is a candidate,
    whatever it is."""
    if arm == ORIGINAL_ARM:
        return "original"
    if arm == recipe.defense.name:
        return "candidate"
    return "control" if arm == "none" or make_defense(arm).role == "control" else "candidate"


def _result(
    made: MadeArtifact,
    role: Role,
    utility: Utility,
    attacked: tuple[AttackResult, ...],
    confidences: Confidences,
    canaries: str | None,
    on_canaries: tuple[AttackResult, ...],
) -> ArtifactResult:
    facts = dict(made.meta["facts"])
    told = {} if canaries is None else {"canaries": canaries, "ship": False}
    return ArtifactResult(
        name=made.plan.name,
        role=role,
        backend=made.plan.backend,
        format=made.plan.format,
        defense="none" if made.plan.arm == ORIGINAL_ARM else made.plan.arm,
        file=f"artifacts/{made.published_name(canaries)}",
        sha256=facts["sha256"],
        size_bytes=facts["size_bytes"],
        gzip_bytes=facts["gzip_bytes"],
        utility=utility,
        parity=None if made.meta["parity"] is None else Parity(**made.meta["parity"]),
        attacks=attacked,
        facts={**told, **facts, "history": made.meta["history"]},
        run=run_facts(confidences),
        canary_attacks=on_canaries,
    )


def _null_tests(
    recipe: Recipe,
    source: Source,
    split: Split,
    collected: Sequence[tuple[Runner, Path, Confidences]],
    permuted: NullTest,
) -> tuple[NullTest, ...]:
    """All null tests; `collected` are the candidates, where they are run, and what they answered."""
    pool = split.roles["pool"]
    inside, audited = split.members(0), split.audited(0)
    members, nonmembers = pool[inside & audited], pool[~inside & audited]
    held_out = split.roles["test"][split.test_halves()[1]]
    seed = derive_seed(recipe.seed, "null tests")

    def again(queries: Queries) -> list[Confidences]:
        found: dict[int, Confidences] = {}
        for runner in dict.fromkeys(runner for runner, _, _ in collected):
            mine = [number for number, entry in enumerate(collected) if entry[0] is runner]
            found |= zip(mine, runner.collect([collected[i][1] for i in mine], queries), strict=True)
        return [found[number] for number in range(len(collected))]

    def reload(ids: np.ndarray, path: str) -> Queries:
        if source.reload is None:
            raise DataError("the data cannot be loaded again")
        return Queries(source.reload(ids, path), ids, source.pool.take(ids).y)

    def through_members_path() -> NullTest:
        null = again(reload(held_out, "train"))
        where = np.flatnonzero(~inside & audited)
        theirs = [confidences.take(where) for _, _, confidences in collected]
        return nulls.held_out_as_members(null, theirs)

    def twice() -> NullTest:
        passes = []
        for ids, path in ((members, "train"), (nonmembers, "holdout")):
            some = np.random.default_rng(seed).permutation(ids)[:QUERIED_TWICE_ROWS]
            queries = reload(some, path)
            positions = {str(row_id): number for number, row_id in enumerate(pool)}
            where = np.array([positions[str(row_id)] for row_id in some])
            for (_, _, confidences), second in zip(collected, again(queries), strict=True):
                first = confidences.take(where)
                passes.append(
                    nulls.Twice(
                        source.pool.take(some).x, queries.x, first.probabilities, second.probabilities
                    )
                )
        return nulls.queried_twice(passes)

    tests = [
        nulls.tried("held-out-as-members", through_members_path),
        permuted,
        nulls.blind_classifier(source.pool.take(members).x, source.pool.take(nonmembers).x, seed),
        nulls.tried("queried-twice", twice),
    ]
    return nulls.judge(tests)
