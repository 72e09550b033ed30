"""Search, re-audit, write: the whole of `edgeprivacy tune`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from edgeprivacy.backends.table import backend_versions
from edgeprivacy.compressing import DEFAULT_FOLDER, compress, prepare
from edgeprivacy.data.dataset import Dataset
from edgeprivacy.errors import DataError, UsageError
from edgeprivacy.files import sha256_json, write_json, write_text
from edgeprivacy.folders import output_folder
from edgeprivacy.recipe import Recipe, Run
from edgeprivacy.recipe_checks import check_defenses
from edgeprivacy.results import Audit
from edgeprivacy.seeding import derive_seed
from edgeprivacy.tuning.budget import Budget
from edgeprivacy.tuning.latency import host_latencies
from edgeprivacy.tuning.outcome import ReAudit, Tuned, numbered
from edgeprivacy.tuning.points import Point, false_positives, points_of
from edgeprivacy.tuning.search import Round, check_optimizer, evaluations, rounds_of, search
from edgeprivacy.tuning.section import TuneSection
from edgeprivacy.tuning.space import Setting, Space

FEWEST_SHADOWS = 2
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Plan:
    """What a search will do.

    Attributes:
        total: How many settings will be made and measured, all rounds together.
        rows: Those that files are timed with.
    """

    space: Space
    budget: Budget
    rounds: tuple[Round, ...]
    total: int
    rows: Dataset


def plan(recipe: Recipe, section: TuneSection, run: Run) -> Plan:
    """Check everything that can be checked before the first expensive step.

    Raises:
        UsageError: A name, key, size or objective that does not exist or does not fit.
        MissingDependency: The optimizer, or a backend, is not installed.
    """
    check_optimizer()
    if recipe.audit.shadows < FEWEST_SHADOWS:
        raise UsageError(
            "a search needs shadows to tell leakage by",
            got=f"audit.shadows {recipe.audit.shadows}",
            allowed=f"{FEWEST_SHADOWS} or more",
        )
    if recipe.versions:
        raise UsageError("a search makes its versions itself", hint="leave out the recipe's versions")
    if section.objective != "auc":
        false_positives(section.objective)
    budget = Budget.parse(section.max_accuracy_loss, section.max_size)
    space = Space(recipe, section)
    for backend in space.backends:
        source, split = prepare(space.baseline(backend).recipe, run)
        for candidate in space.candidates:
            if candidate.backend == backend:
                check_defenses(space.defaults(candidate).recipe, source.pool, split)
    rounds = rounds_of(recipe.audit.shadows, section.objective)
    return Plan(space, budget, rounds, evaluations(space, section.trials, rounds, section.keep), source.pool)


def default_out(recipe: Recipe, section: TuneSection) -> Path:
    """edgeprivacy-out/tune-ID under the working folder."""
    return DEFAULT_FOLDER / f"tune-{recipe.id[:8]}-{sha256_json(section.model_dump(mode='json'))[:6]}"


def tune(
    recipe: Recipe,
    section: TuneSection,
    run: Run | None = None,
    progress: Progress = lambda done, total, text: None,
) -> Tuned:
    """Search, make and measure the winner again, and write everything into `run.out`.

    The folder then holds tune.json, tune.html, recipes/ (one a file of the front), trials/ (every audit) and
    re-audit/ (the winner's files to ship, and their report). Interrupted work resumes.

    Args:
        recipe: The base: data, model, training, attacks, number of shadows, and what is not searched.
        run: Jobs, folders, devices and gates, of the re-audit; the search itself runs files on the host.
        progress: Called with settings done, settings in all, and what is at work.

    Raises:
        EdgePrivacyError: See `edgeprivacy.errors`.
    """
    run = run or Run()
    planned = plan(recipe, section, run)
    budget, rounds, total = planned.budget, planned.rounds, planned.total
    out = Path(run.out) if run.out else default_out(recipe, section)
    steps = _Steps(progress, total + 1)
    host = Run(jobs=run.jobs, cache=run.cache)

    def evaluate(setting: Setting, entry: Round) -> Sequence[Point]:
        made = entry.of(setting.recipe)
        folder = out / "trials" / _trial_name(made)
        audit = _finished(folder, made)
        if audit is None:
            what = f"{setting.candidate.name}, {setting.told}, round {entry.number + 1} of {len(rounds)}"
            audit = compress(made, host.model_copy(update={"out": str(folder)}), steps.within(what))
        steps.done()
        latencies = _timed(folder, audit, planned.rows) if entry is rounds[-1] else {}
        return points_of(audit, setting, entry.number, entry.objective, latencies)

    with output_folder(out, f"tune {recipe.id}"):
        tried = search(planned.space, budget, section.trials, section.keep, rounds, recipe.seed, evaluate)
        tuned = Tuned(recipe, section, budget, rounds, tuple(tried), total)
        winner = tuned.winner
        if winner is not None:
            audit = _again(winner, run, out / "re-audit", steps.within("the winner, with fresh seeds"))
            latencies = _timed(out / "re-audit", audit, planned.rows)
            tuned = replace(tuned, re_audit=_re_audit(audit, winner, rounds[-1], latencies))
        steps.done()
        _write(tuned, out)
    return tuned


def fresh(winner: Point) -> Recipe:
    """The winner's recipe with a seed that the search never used, beside no defense."""
    recipe = winner.setting.recipe
    content = recipe.model_dump(mode="json")
    compare = [] if winner.setting.candidate.defense == "none" else ["none"]
    seed = derive_seed(recipe.seed, "re-audit") % 2**31
    return Recipe.build(content | {"seed": seed, "formats": [winner.format], "compare": compare})


def _again(winner: Point, run: Run, folder: Path, progress: Progress) -> Audit:
    recipe = fresh(winner)
    # Gates belong to the command, not to what it found before: decided anew, the releases are in the cache.
    return compress(recipe, run.model_copy(update={"out": str(folder)}), progress)


def _timed(folder: Path, audit: Audit, rows: Dataset) -> dict[str, float]:
    """Milliseconds a row of the files that no device measured."""
    files = {a.name: a.file for a in audit.artifacts if a.role != "original" and a.performance is None}
    return host_latencies(folder, files, rows)


def _re_audit(audit: Audit, winner: Point, last: Round, latencies: dict[str, float]) -> ReAudit:
    setting = replace(winner.setting, recipe=fresh(winner))
    points = points_of(audit, setting, -1, last.objective, latencies)
    plain = replace(setting, candidate=replace(setting.candidate, defense="none"))
    baseline = points_of(audit, plain, -1, last.objective)
    if not points or not baseline:
        raise DataError("no attack could run on the winner with fresh seeds", got=f"{winner.told}")
    return ReAudit(max(points, key=lambda p: p.leakage.value), baseline[0].accuracy.value, audit)


def _trial_name(recipe: Recipe) -> str:
    versions = [backend_versions(backend) for backend in recipe.backends]
    return sha256_json([recipe.id, versions])[:16]


def _finished(folder: Path, recipe: Recipe) -> Audit | None:
    """The audit that an earlier run left of this very recipe."""
    with suppress(DataError):
        audit = Audit.load(folder / "audit.json")
        if audit.recipe_id == recipe.id:
            return audit
    return None


def _write(tuned: Tuned, out: Path) -> None:
    from edgeprivacy.tuning.page import render

    for name, point in numbered(tuned.front):
        recipe = point.setting.recipe.model_copy(update={"formats": (point.format,)})
        told = (
            f"# {point.told}\n# found by a search: {point.leakage.value:.4f} {tuned.section.objective} by "
            f"{point.attack}, {point.accuracy.value:.4f} accuracy, {point.size_bytes} bytes\n"
        )
        write_text(out / "recipes" / f"{name}.toml", told + recipe.to_toml())
    write_text(out / "tune.html", render(tuned))
    write_json(out / "tune.json", tuned.to_dict())


class _Steps:
    """Counts settings, and tells what is at work on one."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._count = progress, total, 0

    def done(self) -> None:
        """One more setting is measured."""
        self._count += 1
        self._progress(self._count, self._total, "")

    def within(self, what: str) -> Progress:
        """A progress function of one setting."""
        self._progress(self._count, self._total, what)
        return lambda done, total, text: self._progress(self._count, self._total, f"{what}: {done}/{total}")
