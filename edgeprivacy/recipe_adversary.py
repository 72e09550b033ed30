"""A file that somebody else made, against an adversary who knows a recipe that comes close.

The auditor rarely has the training code, but often a recipe that is nearly it. Shadows are then made by that
recipe, on coins over the rows whose membership is known, and attack the file as if it were the recipe's own.
How far the recipe is from the file is measured on the model that it makes of the very members, and told.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeprivacy.cache import Cache, default_cache_folder
from edgeprivacy.compressing import prepare
from edgeprivacy.confidences import Confidences
from edgeprivacy.converters import ArtifactFacts, read_facts
from edgeprivacy.data.split import Split
from edgeprivacy.device_runner import open_runner
from edgeprivacy.device_runner.inputs import input_format
from edgeprivacy.errors import DataError, UsageError
from edgeprivacy.files import atomic_path, sha256_json, write_text
from edgeprivacy.folders import output_folder
from edgeprivacy.found_facts import answered_classes, found_format
from edgeprivacy.recipe import Recipe, Run
from edgeprivacy.recipe_toml import merge
from edgeprivacy.release import MadeArtifact, PlannedArtifact, Release, collected, release_queries
from edgeprivacy.release_audit import audit_releases
from edgeprivacy.report import write
from edgeprivacy.results import Audit, Role
from edgeprivacy.scratch import scratch_folder
from edgeprivacy.shadows import make_releases
from edgeprivacy.worker_progress import Progress

_BACKENDS = {"tflite": "tflite", "pte": "executorch", "ptl": "executorch"}


def audit_with_recipe(
    files: Sequence[Path],
    recipe: Recipe,
    run: Run | None = None,
    progress: Progress = lambda done, total, text: None,
) -> tuple[Audit, Path]:
    """Attack model files with shadows that a recipe makes.

    Args:
        files: Model files of one backend; each is attacked by the recipe's shadows in its own format.
        recipe: Its `data.train` are the members and `data.holdout` the non-members. Backend and formats are
            those of the files, whatever it says.
        run: Jobs, folders, gates; on the host.
        progress: Called with steps done, steps in all, and the last finished step.

    Returns:
        The audit (the files as candidates, what the recipe makes of the same members beside each as a
        control), and its folder.

    Raises:
        EdgePrivacyError: See `edgeprivacy.errors`; its `exit_code` is the command line's.
    """
    run, started = run or Run(), time.monotonic()
    if tuple(run.device) != ("host",):
        raise UsageError("with a recipe files are run on the host", got=", ".join(run.device))
    if recipe.data.train is None or recipe.data.holdout is None:
        raise UsageError("which rows trained the file is not said", hint="give --train and --holdout")
    facts = [read_facts(path) for path in files]
    recipe = _for_files(recipe, facts)
    source, split = prepare(recipe, run)
    for path, entry in zip(files, facts, strict=True):
        input_format(path, entry.inputs[0], source.pool.x)
    classes = answered_classes(list(files), facts)
    if classes is not None and classes != source.pool.classes:
        raise DataError(
            "the files answer other classes than the rows have", got=classes, allowed=str(source.pool.classes)
        )
    identity = sha256_json({"recipe": recipe.id, "files": [entry.sha256 for entry in facts]})
    out = Path(run.out) if run.out else Path("edgeprivacy-out") / f"audit-{files[0].stem}-{identity[:8]}"
    with ExitStack() as stack:
        stack.enter_context(output_folder(out, f"audit {identity[:16]}"))
        write_text(out / "recipe.toml", recipe.to_toml())
        split.save(out / "split.json")
        folder = default_cache_folder() if run.cache else stack.enter_context(scratch_folder("cache"))
        releases = make_releases(recipe, source.pool, split, folder, run.jobs, progress)
        queries, queries_hash = release_queries(source.pool, split)
        paths = collected(open_runner("host"), Cache(folder), list(files), queries, queries_hash)
        given = [_given(path, entry, recipe) for path, entry in zip(files, facts, strict=True)]
        pairs = [
            _Pair(replace(made, confidences=answers), _own(releases, made.plan))
            for made, answers in zip(given, paths, strict=True)
        ]
        for pair in pairs:
            _publish(out, pair.given)
            _publish(out, pair.renamed)
        audit = audit_releases(
            recipe,
            run,
            source,
            split,
            [_release(releases, pairs, index) for index in range(len(releases))],
            out,
            started,
            plans=[entry for pair in pairs for entry in pair.planned()],
            notes=[_distance(pair, split) for pair in pairs],
            progress=progress,
        )
        audit.save(out / "audit.json")
        write(audit, "html", out / "report.html")
    return audit, out


@dataclass(frozen=True)
class _Pair:
    """A file, and its place among what every release of the recipe makes."""

    given: MadeArtifact
    own: tuple[MadeArtifact, ...]

    @property
    def renamed(self) -> MadeArtifact:
        """What the recipe makes of the members, by a name that tells."""
        first = self.own[0]
        return replace(first, plan=replace(first.plan, name=f"recipe-{first.plan.name}"))

    def planned(self) -> list[tuple[PlannedArtifact, Role]]:
        """The file, and what the recipe makes instead."""
        return [(self.given.plan, "candidate"), (self.renamed.plan, "control")]


def _for_files(recipe: Recipe, facts: Sequence[ArtifactFacts]) -> Recipe:
    backends = {_BACKENDS[entry.container] for entry in facts}
    if len(backends) > 1:
        raise UsageError("files of one backend at a time", got=", ".join(sorted(backends)))
    formats = [_format(entry) for entry in facts]
    if len(set(formats)) != len(formats):
        raise UsageError("files of one format each", got=", ".join(formats))
    content = recipe.model_dump(mode="json", exclude={"versions"})
    changes = {"backend": backends.pop(), "formats": formats, "split.design": "given"}
    return Recipe.build(merge(content, changes))


def _format(facts: ArtifactFacts) -> str:
    found = found_format(facts)
    return f"ptl-{found}" if facts.container == "ptl" else found


def _given(path: Path, facts: ArtifactFacts, recipe: Recipe) -> MadeArtifact:
    plan = PlannedArtifact(path.stem, recipe.defense.name, _format(facts), recipe.backend)
    meta: dict[str, Any] = {"facts": facts.to_dict(), "parity": None, "history": []}
    return MadeArtifact(plan, path, meta, path)


def _own(releases: Sequence[Release], plan: PlannedArtifact) -> tuple[MadeArtifact, ...]:
    """What every release made in a file's format."""
    return tuple(
        next(m for m in release.artifacts if (m.plan.arm, m.plan.format) == (plan.arm, plan.format))
        for release in releases
    )


def _release(releases: Sequence[Release], pairs: Sequence[_Pair], index: int) -> Release:
    """A release of the files (the target) or of what the recipe makes in their place (a shadow), each beside
    the recipe's own."""
    made = []
    for pair in pairs:
        made += [pair.given, pair.renamed] if index == 0 else [pair.own[index], pair.own[index]]
    return replace(releases[index], artifacts=tuple(made))


def _publish(out: Path, made: MadeArtifact) -> None:
    for source, name in (
        (made.file, f"artifacts/{made.plan.name}{made.file.suffix}"),
        (made.confidences, f"confidences/{made.plan.name}.npz"),
    ):
        with atomic_path(out / name) as temporary:
            shutil.copyfile(source, temporary)


def _distance(pair: _Pair, split: Split) -> str:
    """How far the recipe's model is from the file, on rows that trained neither."""
    pool = len(split.roles["pool"])
    theirs, ours = (
        Confidences.load(made.confidences).take(np.arange(pool, pool + len(split.roles["test"])))
        for made in (pair.given, pair.renamed)
    )
    p, q = theirs.probabilities, ours.probabilities
    what = "same class"
    if theirs.sets is not None and ours.sets is not None:
        p, q, what = theirs.sets.answers, ours.sets.answers, "same answer to every label"
        accuracy = [float(entry.sets.right.all(axis=1).mean()) for entry in (theirs, ours) if entry.sets]
        same = float(((p > 0.5) == (q > 0.5)).all(axis=1).mean())
        sure = [float(np.maximum(entry, 1 - entry).mean()) for entry in (p, q)]
    else:
        accuracy = [float((entry.argmax(axis=1) == theirs.labels).mean()) for entry in (p, q)]
        same = float((p.argmax(axis=1) == q.argmax(axis=1)).mean())
        sure = [float(entry.max(axis=1).mean()) for entry in (p, q)]
    return (
        f"How close the recipe comes to {pair.given.plan.name}, on {len(p)} rows that trained neither: "
        f"accuracy {100 * accuracy[0]:.1f}% (file) and {100 * accuracy[1]:.1f}% (recipe), {what} "
        f"{100 * same:.1f}%, mean largest probability {sure[0]:.3f} and {sure[1]:.3f}, mean difference of a "
        "probability "
        f"{float(np.abs(p - q).mean()):.4f}. The further apart, the more an attacker with the true recipe "
        "could find beyond what stands here."
    )
