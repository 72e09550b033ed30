"""Several files of one model attacked together: what somebody knows who holds more than one of them.

Three kinds of sets are made of what an audit has: the original beside each file, all files of one defense,
and these with the original. A set's attacks are compared with the best attack on any single one of its files.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.attacks import Signals, Version, attacks, score_target
from edgeprivacy.measuring import measure_attacks
from edgeprivacy.metrics.paired import paired_differences
from edgeprivacy.recipe import Recipe
from edgeprivacy.results import ArtifactResult, AttackResult, Difference, Gain, Role, VersionSet, strength
from edgeprivacy.seeding import derive_seed

_DIGITS = 6


@dataclass(frozen=True)
class PlannedSet:
    """A set before it is attacked.

    Attributes:
        positions: Of its files among the audit's artifacts, the original first where it is among them, the
            others from the largest (gzipped) to the smallest: the least compressed first.
        attacks: What is run on it.
        best: (position, attack) of the single version that it must beat.
    """

    name: str
    role: Role
    positions: tuple[int, ...]
    with_original: bool
    attacks: tuple[str, ...]
    best: tuple[int, str] | None

    def one_by_one(self) -> list[PlannedSet]:
        """The same set once an attack, for workers."""
        return [replace(self, attacks=(attack,)) for attack in self.attacks]


def together(parts: Sequence[VersionSet]) -> tuple[VersionSet, ...]:
    """Sets whose attacks were measured apart, each as one again; in the order they come."""
    found: dict[str, VersionSet] = {}
    for part in parts:
        if part.name in found:
            one = found[part.name]
            part = replace(one, attacks=(*one.attacks, *part.attacks), gains=(*one.gains, *part.gains))
        found[part.name] = part
    return tuple(found.values())


def of_one_version(names: Sequence[str]) -> tuple[str, ...]:
    """The attacks that look at one file."""
    return tuple(name for name in names if attacks[name].needs.versions == 1)


def of_several_versions(names: Sequence[str]) -> tuple[str, ...]:
    """The attacks that look at several."""
    return tuple(name for name in names if attacks[name].needs.versions > 1)


def plan_sets(
    results: Sequence[ArtifactResult], names: Sequence[str], alone: Collection[str] = ()
) -> list[PlannedSet]:
    """The sets of one place's artifacts.

    Args:
        results: Attacked artifacts: originals, candidates, controls; each with its backend and defense.
        names: All attacks that were asked for.
        alone: Names of artifacts that nobody holds beside others: they are in no set of several files.
    """
    several = of_several_versions(names)
    if not several:
        return []
    pairwise = tuple(name for name in several if attacks[name].pairwise)
    whole = tuple(name for name in several if not attacks[name].pairwise)
    originals = {r.backend: i for i, r in reversed(list(enumerate(results))) if r.role == "original"}
    first = next(iter(originals.values()), None)
    compressed = [i for i, r in enumerate(results) if r.role != "original" and r.name not in alone]
    compressed.sort(key=lambda i: -results[i].gzip_bytes)
    groups: dict[str, list[int]] = {}
    for position in compressed:
        groups.setdefault(results[position].defense, []).append(position)

    def planned(name: str, role: Role, positions: list[int], attacks: tuple[str, ...]) -> PlannedSet:
        with_original = positions[0] in originals.values()
        best = _best([(i, results[i]) for i in positions])
        return PlannedSet(name, role, tuple(positions), with_original, attacks, best)

    found = []
    for defense, group in groups.items():
        role: Role = "candidate" if any(results[i].role == "candidate" for i in group) else "control"
        files = f"{len(group)} files" if defense == "unknown" else f"{defense}: {len(group)} files"
        if len(group) > 1 and whole:
            found.append(planned(files, role, group, whole))
        original = originals.get(results[group[0]].backend, first)
        if original is None:
            continue
        if len(group) > 1 and whole:
            found.append(planned(f"{files} and the original", "control", [original, *group], whole))
        for position in sorted(group):
            beside = originals.get(results[position].backend, original)
            name = f"{results[position].name} and the original"
            found.append(planned(name, "control", [beside, position], (*pairwise, *whole)))
    return found


def _best(results: Sequence[tuple[int, ArtifactResult]]) -> tuple[int, str] | None:
    ran = [
        (position, attack)
        for position, result in results
        for attack in result.attacks
        if attack.auc is not None and attacks[attack.name].needs.versions == 1
    ]
    if not ran:
        return None
    position, attack = max(ran, key=lambda entry: strength(entry[1]))
    return position, attack.name


def joined(signals: Sequence[Signals], names: Sequence[str], with_original: bool) -> Signals:
    """The last of several versions' signals, with the others beside it.

    Raises:
        DataError: They did not see the same rows.
    """
    *others, attacked = signals
    versions = tuple(
        Version(name, other.probabilities, other.labels, other.log_floor, other.population)
        for name, other in zip(names, others, strict=False)
    )
    return replace(attacked, versions=versions, has_original=with_original)


def measure_set(
    planned: PlannedSet,
    names: Sequence[str],
    signals: Sequence[Signals],
    resamples: int,
    seed: int,
    limits: Sequence[float],
) -> tuple[VersionSet, dict[str, NDArray[np.float64]]]:
    """Attack a set, and compare with the best single version.

    Args:
        names: Of its artifacts, in the order of `planned.positions`, as are the signals.
        resamples, seed, limits: As `measure_attacks`; single versions must have been measured with the same
            seed.

    Returns:
        The result, and the target's scores [rows] of every attack that ran.
    """
    attacked, scores = measure_attacks(
        joined(signals, names, planned.with_original), planned.attacks, resamples, seed, limits
    )
    gains: tuple[Gain, ...] = ()
    best_artifact = best_attack = None
    if planned.best is not None:
        position, best_attack = planned.best
        index = planned.positions.index(position)
        best_artifact = names[index]
        alone = score_target(
            attacks[best_attack], signals[index], 0, derive_seed(seed, "attack", best_attack)
        )
        gains = tuple(
            _gain(result, scores[result.name], alone.values, signals[index], resamples, seed, limits)
            for result in attacked
            if result.name in scores
        )
    found = VersionSet(
        planned.name,
        planned.role,
        tuple(names),
        planned.with_original,
        attacked,
        best_artifact,
        best_attack,
        gains,
    )
    return found, scores


def ablation_note(recipe: Recipe, results: Sequence[ArtifactResult]) -> str | None:
    """What the same attack finds without compression, without fine-tuning, and with both; None where these
    versions were not made."""
    schedules = {version.prune.schedule: version for version in recipe.all_versions[1:]}
    if not {"finetune", "untrained"} <= set(schedules):
        return None
    by_name = {result.name: result for result in results}
    told = []
    for backend in recipe.backends:
        original = next(r for r in results if r.role == "original" and r.backend == backend)
        for format in recipe.formats_of(backend):
            arms = (recipe, schedules["finetune"], schedules["untrained"])
            names = [arm.artifact_name(format, recipe.defense.name, backend) for arm in arms]
            both, *others = [by_name[name] for name in names if name in by_name]
            worst = both.worst_attack()
            if worst is None or len(others) < 2:
                continue
            found = [r.attack(worst.name) for r in (original, *others, both)]
            numbers = ["–" if a is None or a.auc is None else f"{a.auc.value:.3f}" for a in found]
            told.append(
                f"{names[0]}, {worst.name}: original {numbers[0]}, fine-tuned and not compressed "
                f"{numbers[1]}, compressed and not fine-tuned {numbers[2]}, both {numbers[3]}"
            )
    return f"Ablation, AUC. {'; '.join(told)}." if told else None


def ablation_names(recipe: Recipe) -> set[str]:
    """Names of the artifacts that are made for the ablation alone."""
    return {
        version.artifact_name(format, arm.name, backend)
        for version in recipe.all_versions[1:]
        if version.prune.schedule in ("finetune", "untrained")
        for arm in version.arms
        for backend in version.backends
        for format in version.formats_of(backend)
    }


def _gain(
    result: AttackResult,
    together: NDArray[np.float64],
    alone: NDArray[np.float64],
    signals: Signals,
    resamples: int,
    seed: int,
    limits: Sequence[float],
) -> Gain:
    audited = signals.audited[0]
    found = paired_differences(
        together[audited],
        alone[audited],
        signals.members[0, audited],
        tuple(limits),
        resamples,
        derive_seed(seed, "gain", result.name),
    )
    return Gain(
        result.name,
        _rounded(found.auc),
        tuple((limit, _rounded(entry)) for limit, entry in zip(limits, found.tpr, strict=True)),
    )


def _rounded(difference: Difference) -> Difference:
    low, high = difference.ci
    return Difference(round(difference.value, _DIGITS), (round(low, _DIGITS), round(high, _DIGITS)))
