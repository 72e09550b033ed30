"""Attacks on releases, divided over workers: every file's, and those of several files together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeprivacy import nulls
from edgeprivacy.attacks import Population, Signals
from edgeprivacy.bounds_results import Bounds, Records
from edgeprivacy.canary_measuring import apart, measure_canaries, poolable
from edgeprivacy.confidences import Confidences
from edgeprivacy.data.splits import Split
from edgeprivacy.files import read_npz
from edgeprivacy.measuring import measure_attacks, measure_labels, measure_right
from edgeprivacy.metrics.epsilon import Draw
from edgeprivacy.metrics.null_tests import NullOutcome
from edgeprivacy.release import Release
from edgeprivacy.release_gathering import Asked
from edgeprivacy.results import ArtifactResult, AttackResult, Role, Utility, VersionSet
from edgeprivacy.seeding import derive_seed
from edgeprivacy.version_sets import PlannedSet, measure_set, plan_sets, together
from edgeprivacy.worker_progress import Progress
from edgeprivacy.workers import available_cores, parallel_map

_TASKS_PER_WORKER = 4

Files = tuple[Path, ...]
"""Confidences of one artifact, the target's and then every shadow's."""


def answers_of(releases: Sequence[Release], artifacts: int) -> list[Files]:
    """Each artifact's confidences, by position."""
    return [
        tuple(release.artifacts[position].confidences for release in releases)
        for position in range(artifacts)
    ]


@dataclass(frozen=True)
class Measuring:
    """How releases are attacked; sent to every worker.

    Attributes:
        names: All attacks of one file that were asked for.
        resamples: Of the bootstrap behind intervals.
        limits: FPR limits.
        permutations: Of the null test of permuted labels.
        asked: What attacks with queries of their own asked the files.
    """

    split: Split
    names: tuple[str, ...]
    resamples: int
    limits: tuple[float, ...]
    permutations: int
    seed: int
    asked: Asked

    def permuted(self, signals: Signals, scores: Mapping[str, NDArray[np.float64]]) -> list[NullOutcome]:
        """The null test's part of these scores of model 0."""
        audited = signals.audited[0]
        return nulls.permute_labels(
            {name: values[audited] for name, values in scores.items()},
            signals.members[0, audited],
            self.permutations,
            derive_seed(self.seed, "null tests"),
        )


@dataclass(frozen=True)
class Measured:
    """What some attacks found on one artifact; `permuted` is the null test's part, for candidates. `bounds`
    come with the attack that they are of."""

    utility: Utility
    attacks: tuple[AttackResult, ...]
    permuted: list[NullOutcome]
    canaries: tuple[AttackResult, ...] = ()
    bounds: Bounds | None = None
    records: Records | None = None


_Task = tuple[Files, tuple[str, ...], bool]


def measure_all(
    how: Measuring,
    wanted: Sequence[Sequence[Files]],
    audited: Sequence[Sequence[Files]],
    roles: Sequence[Role],
    jobs: int | None,
    progress: Progress,
) -> dict[Files, Measured]:
    """Every artifact's attacks, measured once for all columns that have its very confidences.

    Args:
        wanted: What is measured, by column and artifact.
        audited: What of it is audited: the permuted labels of candidates are tested with it.
    """
    shown = {files for column in audited for files in column}
    kinds: dict[Files, bool] = {}
    for column in wanted:
        for files, role in zip(column, roles, strict=True):
            # A control's file may be a candidate's to the last byte.
            kinds[files] = kinds.get(files, False) or (role == "candidate" and files in shown)
    # Few artifacts are measured in parts: else cores would wait for the last one.
    most = -(-_TASKS_PER_WORKER * (jobs or available_cores()) // len(kinds))
    share = max(1, min(len(how.names), most))
    tasks: list[_Task] = [
        (files, how.names[part::share], candidate)
        for files, candidate in kinds.items()
        for part in range(share)
    ]
    parts: dict[Files, list[Measured]] = {}
    told = _told(progress, [", ".join(names) for _, names, _ in tasks])
    for task, part in zip(tasks, parallel_map(partial(_measure, how), tasks, jobs, told), strict=True):
        parts.setdefault(task[0], []).append(part)
    return {files: _together(found, how.names) for files, found in parts.items()}


def _together(parts: Sequence[Measured], names: Sequence[str]) -> Measured:
    attacked = {result.name: result for part in parts for result in part.attacks}
    canaries = {result.name: result for part in parts for result in part.canaries}
    bounded = next((part for part in parts if part.bounds is not None), parts[0])
    return Measured(
        parts[0].utility,
        tuple(attacked[name] for name in names),
        [outcome for part in parts for outcome in part.permuted],
        tuple(canaries[name] for name in names if name in canaries),
        bounded.bounds,
        bounded.records,
    )


def _told(progress: Progress, texts: Sequence[str]) -> Callable[[int], None]:
    """Tells `progress` of each finished task."""
    done = 0
    progress(0, len(texts), "attacks | ")

    def finished(position: int) -> None:
        nonlocal done
        done += 1
        progress(done, len(texts), f"attacks | {texts[position]}")

    return finished


def _measure(how: Measuring, task: _Task) -> Measured:
    """Some attacks of one artifact, in a worker."""
    from edgeprivacy.bounds import chosen_attack, measure_bounds

    paths, names, is_candidate = task
    split, seed = how.split, derive_seed(how.seed, "measure")
    everything, utility = signals_of(split, [Confidences.load(path) for path in paths])
    gathered = {
        name: read_npz(path)["answers"] for name, path in how.asked.get(paths, {}).items() if name in names
    }
    signals, canaries = apart(replace(everything, gathered=gathered), split)
    results, scores = measure_attacks(signals, names, how.resamples, seed, how.limits)
    on_canaries: tuple[AttackResult, ...] = ()
    if canaries is not None:
        pooled = poolable(split, canaries.models)
        on_canaries = measure_canaries(canaries, names, how.resamples, seed, how.limits, pooled)
    bounds = records = None
    chosen = chosen_attack(signals, how.names)
    if chosen in scores:
        # A coin decides over every row of `half`, and over every row of the target's half of `disjoint`.
        drawn: Draw = "given_split" if split.design == "given" else "independent_coins"
        bounds, records = measure_bounds(
            signals, chosen, scores[chosen], drawn, how.resamples, derive_seed(how.seed, "bounds")
        )
    permuted = how.permuted(signals, scores) if is_candidate else []
    return Measured(utility, results, permuted, on_canaries, bounds, records)


def measure_sets(
    how: Measuring,
    results: Sequence[ArtifactResult],
    files: Sequence[Files],
    names: Sequence[str],
    alone: Collection[str],
    jobs: int | None,
    progress: Progress,
) -> tuple[tuple[VersionSet, ...], list[NullOutcome]]:
    """The sets of the first place's files, attacked, and the permuted labels of those that ship.

    Args:
        results: What single files gave; files: their confidences.
        names: All attacks that were asked for.
        alone: Artifacts that nobody holds beside others.
    """
    tasks = [
        (
            entry,
            tuple(results[position].name for position in entry.positions),
            tuple(files[position] for position in entry.positions),
        )
        for whole in plan_sets(results, names, alone)
        for entry in whole.one_by_one()
    ]
    if not tasks:
        return (), []
    told = _told(progress, [f"{', '.join(entry.attacks)}, {entry.name}" for entry, _, _ in tasks])
    found = parallel_map(partial(_measure_set, how), tasks, jobs, told)
    return together([result for result, _ in found]), [o for _, permuted in found for o in permuted]


def _measure_set(
    how: Measuring, task: tuple[PlannedSet, tuple[str, ...], tuple[Files, ...]]
) -> tuple[VersionSet, list[NullOutcome]]:
    """One set of versions, in a worker."""
    planned, names, files = task
    everything = [signals_of(how.split, [Confidences.load(path) for path in paths])[0] for paths in files]
    signals = [apart(entry, how.split)[0] for entry in everything]
    seed = derive_seed(how.seed, "measure")
    result, scores = measure_set(planned, names, signals, how.resamples, seed, how.limits)
    return result, how.permuted(signals[0], scores)


def signals_of(split: Split, confidences: Sequence[Confidences]) -> tuple[Signals, Utility]:
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
        independent_labels=confidences[0].sets is not None,
    )
    correct = np.stack([_right(entry) for entry in confidences])
    trained = members & ~split.canaries
    utility = Utility(
        test_accuracy=measure_right(correct[0, pool:], correct[:, pool:].mean(axis=1)),
        train_accuracy=measure_right(
            correct[0, :pool][trained[0]],
            [float(hits[:pool][inside].mean()) for hits, inside in zip(correct, trained, strict=True)],
        ),
        label_accuracy=None
        if confidences[0].sets is None
        else measure_labels(confidences[0].sets.right[pool:]),
    )
    return signals, utility


def _right(answers: Confidences) -> NDArray[np.bool_]:
    """Rows whose most likely class is the true one; of independent labels those of which all are right."""
    if answers.sets is not None:
        return np.asarray(answers.sets.right.all(axis=1))
    return np.asarray(answers.probabilities.argmax(axis=1) == answers.labels)
