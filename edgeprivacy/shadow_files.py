"""Files of shadows that somebody else trained and exported as the target was."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgeprivacy.confidences import Confidences
from edgeprivacy.converters import ArtifactFacts, read_facts
from edgeprivacy.errors import DataError, UsageError
from edgeprivacy.given_shadows import Bools, GivenShadows
from edgeprivacy.shadow_membership import ShadowMembership, read_membership

SUFFIXES = (".tflite", ".pte", ".ptl")
_NAMED = 8
_DIGITS = 6


@dataclass(frozen=True)
class ShadowFiles:
    """Shadows' files, in the order of their membership, and their facts. Nothing has been run."""

    files: tuple[Path, ...]
    facts: tuple[ArtifactFacts, ...]
    membership: ShadowMembership

    def describe(self) -> dict[str, Any]:
        """Where they came from, for identities and audit.json."""
        return {
            "number": len(self.files),
            "files": [
                {"file": path.name, "sha256": facts.sha256}
                for path, facts in zip(self.files, self.facts, strict=True)
            ],
            "membership": {"file": self.membership.source, "sha256": self.membership.sha256},
        }


def open_shadow_files(
    given: Sequence[Path],
    membership: str | Path | Mapping[str, ArrayLike] | None,
    targets: Sequence[ArtifactFacts],
) -> ShadowFiles | None:
    """The shadows' files and their membership, checked; None where none are given.

    Args:
        given: Files, or folders whose model files are taken.
        membership: See `shadow_membership.read_membership`.
        targets: The audited files: none of them may stand among the shadows.

    Raises:
        UsageError: Files without membership, or membership without files.
        DataError: A file stands twice or is a target, or the membership does not fit the files.
        ArtifactError: A file is no model file of a known kind.
    """
    if not given and membership is None:
        return None
    if not given or membership is None:
        what = ("--shadow-files", "--shadow-membership")
        missing, there = what if not given else what[::-1]
        raise UsageError(
            f"{there} needs {missing}",
            hint="shadows are files, and an .npz of `members` [shadows, rows] that says what trained them",
        )
    files: list[Path] = []
    for path in given:
        files += _in_folder(path) if path.is_dir() else [path]
    known = read_membership(membership, len(files))
    if known.files is not None:
        files = _by_name(files, known.files, known.source)
    elif any(path.is_dir() for path in given):
        _one_order(files)
    facts = tuple(read_facts(path) for path in files)
    seen: dict[str, Path] = {}
    for path, entry in zip(files, facts, strict=True):
        if entry.sha256 in {target.sha256 for target in targets}:
            raise DataError(
                f"{path} is an audited file: a target is no shadow of its own",
                hint="its membership would give itself away; take it out of the shadows",
            )
        if entry.sha256 in seen:
            raise DataError(
                f"shadows {seen[entry.sha256]} and {path} are the same file", got=entry.sha256[:12]
            )
        seen[entry.sha256] = path
    return ShadowFiles(tuple(files), facts, known)


def shadows_beside(
    shadows: ShadowFiles,
    answers: Sequence[Confidences],
    formats: Sequence[str],
    target_format: str,
    rows: NDArray[np.str_],
    population: bool,
) -> GivenShadows:
    """What the shadows answered, as an attack takes it: those of the target's format, where there are any.

    Args:
        shadows: The files.
        answers: Of each file, to the scored rows and then the population.
        formats: Of each file ("float32", "int8", ...).
        target_format: Of the target.
        rows: str [rows], ids of the scored rows.
        population: Whether rows of a population follow them.
    """
    chosen = [index for index, found in enumerate(formats) if found == target_format]
    notes = []
    if not chosen:
        chosen = list(range(len(formats)))
        others = ", ".join(sorted(set(formats)))
        notes.append(
            f"The shadows' files are {others} and a target is {target_format}: they were not exported as it "
            "was, and attacks find less."
        )
    elif len(chosen) < len(formats):
        notes.append(
            f"Files of format {target_format} were attacked with the {len(chosen)} shadows of that format."
        )
    members = shadows.membership.of(rows)[chosen]
    probabilities = np.stack([answers[index].probabilities for index in chosen])
    about = shadows.describe()
    for place, index in enumerate(chosen):
        labels, p = answers[index].labels[: len(rows)], probabilities[place, : len(rows)]
        right, trained = p.argmax(axis=1) == labels, members[place]
        if (sets := answers[index].sets) is not None:
            right = sets.right[: len(rows)].all(axis=1)
        about["files"][index].update(
            members=int(trained.sum()),
            nonmembers=int((~trained).sum()),
            member_accuracy=_mean(right[trained]),
            nonmember_accuracy=_mean(right[~trained]),
        )
    gaps = [entry for entry in about["files"] if "members" in entry]
    if all(entry["member_accuracy"] <= entry["nonmember_accuracy"] for entry in gaps):
        notes.append(
            "No shadow is better on the rows that it is said to have trained on than on the others: they do "
            "not overfit at all, or their membership is in another order than their files."
        )
    return GivenShadows(
        probabilities[:, : len(rows)],
        members,
        probabilities[:, len(rows) :] if population else None,
        max(answers[index].log_floor for index in chosen),
        about,
        (_origin(shadows), *notes),
    )


def _origin(shadows: ShadowFiles) -> str:
    named = [
        f"{path.name} ({facts.sha256[:12]})"
        for path, facts in zip(shadows.files[:_NAMED], shadows.facts, strict=False)
    ]
    more = f" and {len(shadows.files) - _NAMED} more" if len(shadows.files) > _NAMED else ""
    return (
        f"{len(shadows.files)} shadows were given as files: {', '.join(named)}{more}; what trained them is "
        f"said by {shadows.membership.source} ({shadows.membership.sha256[:12]}). That they were trained and "
        "exported as the target was is taken on trust: shadows of another recipe find less."
    )


def _mean(values: Bools) -> float:
    return round(float(values.mean()), _DIGITS) if len(values) else 0.0


def _in_folder(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not found:
        raise DataError(f"{folder} holds no model files", allowed=", ".join(SUFFIXES))
    return found


def _by_name(files: Sequence[Path], names: Sequence[str], source: str) -> list[Path]:
    there = {path.name: path for path in files}
    if Counter(names) != Counter(path.name for path in files) or len(there) != len(files):
        strange = sorted(set(names) ^ set(there))
        raise DataError(
            f"the shadows' files are not those that {source} names",
            got=", ".join(strange[:4]) or "a name that stands twice",
            hint="`files` holds each file's name once, without its folder",
        )
    return [there[name] for name in names]


def _one_order(files: Sequence[Path]) -> None:
    """Refuses names whose order by letters is not that by numbers: which rows trained which is at stake."""

    def numbers(path: Path) -> list[tuple[int, str]]:
        parts = re.split(r"(\d+)", path.name)
        return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]

    by_parent: dict[Path, list[Path]] = {}
    for path in files:
        by_parent.setdefault(path.parent, []).append(path)
    for folder, inside in by_parent.items():
        if sorted(inside, key=numbers) != inside:
            raise DataError(
                f"the order of the shadows in {folder} is not clear",
                got=", ".join(path.name for path in inside[:3]),
                hint="name the files in an array `files` of the membership, or pad their numbers with zeros",
            )
