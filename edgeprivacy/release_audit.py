"""The audit of releases: attacks with shadows on every file of the target, null tests, gates, notes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgeprivacy import nulls
from edgeprivacy.audit_notes import audit_notes
from edgeprivacy.bounds_results import Bounds
from edgeprivacy.confidences import Confidences
from edgeprivacy.data.dataset import Source
from edgeprivacy.data.splits import Split
from edgeprivacy.defenses import Defense, make_defense
from edgeprivacy.defenses.accountant import guarantee, told
from edgeprivacy.device_collecting import Column
from edgeprivacy.device_runner import Queries, Runner, open_runner
from edgeprivacy.drift import with_attack
from edgeprivacy.environment import describe, moved_bytes
from edgeprivacy.errors import DataError
from edgeprivacy.gate import evaluate, parse_gate, verdict
from edgeprivacy.measuring import chosen_attacks, fpr_limits, run_facts
from edgeprivacy.recipe import Recipe, Run
from edgeprivacy.records import write_records
from edgeprivacy.release import (
    ORIGINAL_ARM,
    MadeArtifact,
    PlannedArtifact,
    Release,
    every_artifact,
    planned_artifacts,
)
from edgeprivacy.release_gathering import Asked
from edgeprivacy.release_measuring import Measuring, answers_of, measure_all, measure_sets
from edgeprivacy.results import (
    ArtifactResult,
    AttackResult,
    Audit,
    NullTest,
    Parity,
    Role,
    Utility,
)
from edgeprivacy.seeding import derive_seed
from edgeprivacy.version_sets import ablation_names, of_one_version
from edgeprivacy.worker_progress import Progress

QUERIED_TWICE_ROWS = 100


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
    progress: Progress = lambda done, total, text: None,
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
        progress: Called with attacks done, attacks in all, and which was done.
    """
    gates = [parse_gate(text) for text in run.fail_if]
    asked_for = chosen_attacks(recipe.audit.attacks)
    planned = plans or _planned(recipe)
    alone = ablation_names(recipe) | {plan.name for plan, role in plans if role == "control"}
    # Attacks on several versions are run on sets; where there is none, each file says that they were skipped.
    names = of_one_version(asked_for) if sum(p.name not in alone for p, _ in planned) > 1 else asked_for
    roles = [role for _, role in planned]
    columns = list(columns) or [Column(open_runner("host"), tuple(releases))]
    on_host = answers_of(releases, len(planned))
    audited = [on_host if column.equal else answers_of(column.releases, len(planned)) for column in columns]
    settings = recipe.audit
    limits = fpr_limits(gates)
    how = Measuring(split, names, settings.bootstrap, limits, settings.permutations, recipe.seed, asked or {})
    measured = measure_all(how, [*audited, on_host], audited, roles, run.jobs, progress)
    results: list[ArtifactResult] = []
    collected, outcomes, tables = [], [], []
    defenses = {arm.name: make_defense(arm.name, arm.settings) for arm in recipe.arms}
    ids = split.roles["pool"][~split.canaries]
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
                found.bounds,
            )
            result = _with_guarantee(result, defenses.get(result.defense))
            results.append(_in_column(result, column, position, name, measured[on_host[position]].attacks))
            if found.records is not None:
                tables.append((name, ids, found.records))
            if role == "candidate":
                collected.append((column.runner, folder / result.file, confidences))
    sets, set_outcomes = measure_sets(
        how, results[: len(planned)], audited[0], asked_for, alone, run.jobs, progress
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
    if run.records is not None:
        write_records(Path(run.records), tables)
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


def _planned(recipe: Recipe) -> list[tuple[PlannedArtifact, Role]]:
    """All files that the recipe makes; those of its further versions are controls."""
    shipping = {plan for backend in recipe.backends for plan in planned_artifacts(recipe, backend)}
    return [
        (plan, _role(plan.arm, recipe) if plan in shipping else "control") for plan in every_artifact(recipe)
    ]


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


def _with_guarantee(result: ArtifactResult, defense: Defense | None) -> ArtifactResult:
    """The result with what its defense guarantees of the training that its history tells."""
    found = None if defense is None else guarantee(defense, result.facts["history"])
    if found is None:
        return result
    return replace(
        result, facts={**result.facts, "guarantee": found.to_dict() | {"told": told(found, result.defense)}}
    )


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
    bounds: Bounds | None,
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
        bounds=bounds,
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
