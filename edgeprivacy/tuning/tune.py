"""Search, re-audit, write: the whole of `edgeprivacy tune`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from edgeprivacy import __version__
from edgeprivacy.attacks import attacks
from edgeprivacy.backends.table import backend_versions
from edgeprivacy.compressing import DEFAULT_FOLDER, compress, prepare
from edgeprivacy.data.dataset import Dataset
from edgeprivacy.defenses import make_defense
from edgeprivacy.errors import DataError, UsageError
from edgeprivacy.files import sha256_file, sha256_json, write_json, write_text
from edgeprivacy.folders import output_folder
from edgeprivacy.measuring import chosen_attacks
from edgeprivacy.metrics.intervals import support
from edgeprivacy.recipe import Recipe, Run
from edgeprivacy.recipe_checks import check_defenses
from edgeprivacy.release_keys import defense_identity, model_identity, training_identity
from edgeprivacy.release_stages import RELEASE_VERSION
from edgeprivacy.results import Audit
from edgeprivacy.seeding import derive_seed
from edgeprivacy.tuning.again import re_audit_folder, settle
from edgeprivacy.tuning.budget import Budget
from edgeprivacy.tuning.front_recipes import write_recipes
from edgeprivacy.tuning.latency import host_latencies
from edgeprivacy.tuning.networks import check_networks
from edgeprivacy.tuning.outcome import ReAudit, Tuned, promises
from edgeprivacy.tuning.points import Point, false_positives, points_of
from edgeprivacy.tuning.search import Round, check_optimizer, evaluations, rounds_of, search
from edgeprivacy.tuning.section import TuneSection
from edgeprivacy.tuning.space import Setting, Space

FEWEST_SHADOWS = 2
CHOSEN = (
    "A search asked about members to choose these settings: (ε, δ) is of the training alone and does not "
    "cover that choice."
)
"""What the audit of a winner with a guarantee says."""
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Plan:
    """What a search will do.

    Attributes:
        total: How many settings will be made and measured at most, all rounds together.
        rows: All; files are timed with some.
        split: Hash of what each row is for.
    """

    space: Space
    budget: Budget
    rounds: tuple[Round, ...]
    total: int
    rows: Dataset
    split: str


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
    limit = None if section.objective == "auc" else false_positives(section.objective)
    budget = Budget.parse(section.max_accuracy_loss, section.max_size)
    space = Space(recipe, section)
    for backend in space.backends:
        source, split = prepare(space.baseline(backend).recipe, run)
        for candidate in (space.control(backend), *space.candidates):
            if candidate.backend == backend:
                for setting in (space.defaults(candidate), *space.ends(candidate)):
                    check_defenses(setting.recipe, source.pool, split)
    others = int((split.audited(0) & ~split.members(0)).sum())
    if limit is not None and support(limit, others) == "none":
        raise UsageError(
            f"too few rows for {section.objective}: of so few non-members not one may be accused wrongly",
            got=f"{others} non-members",
            allowed=f"{math.ceil(1 / limit):,} or more; or --objective with a higher rate, or auc",
        )
    check_networks(space, source.pool, run.jobs)
    space = space.checked_by(lambda made: check_defenses(made, source.pool, split))
    rounds = rounds_of(recipe.audit.shadows, section.objective)
    total = evaluations(space, section.trials, rounds, section.keep)
    return Plan(space, budget, rounds, total, source.pool, split.sha256)


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
    re-audit/ (the winner's files to ship, and their report). Interrupted work resumes. Another search of the
    same recipe may use the folder: what it finds takes the place of what was found before, and a winner that
    is another stands in re-audit/, the one before it in re-audit-ID/.

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

    def measured(made: Recipe, what: str) -> tuple[Path, Audit]:
        folder = out / "trials" / _trial_name(made, planned)
        audit = _finished(folder, made)
        if audit is None:
            audit = compress(made, host.model_copy(update={"out": str(folder)}), steps.within(what))
        return folder, audit

    def evaluate(setting: Setting, entry: Round) -> Sequence[Point]:
        what = f"{setting.candidate.name}, {setting.told}, round {entry.number + 1} of {len(rounds)}"
        folder, audit = measured(entry.of(setting.recipe), what)
        steps.done()
        latencies = _timed(folder, audit, planned.rows) if entry is rounds[-1] else {}
        return points_of(audit, setting, entry.number, entry.objective, latencies)

    with output_folder(out, f"tune {recipe.id} {planned.rows.sha256[:16]}"):
        tried = search(planned.space, budget, section.trials, section.keep, rounds, recipe.seed, evaluate)
        tuned = Tuned(recipe, section, budget, rounds, tuple(tried), steps.count)
        winner, folder = tuned.winner, None
        if winner is not None:
            folder = re_audit_folder(out, fresh(winner))
            audit = _again(winner, run, folder, steps.within("the winner, with fresh seeds"))
            latencies = _timed(folder, audit, planned.rows)
            plain = audit
            if not winner.setting.of_base:
                base = fresh_baseline(planned.space, winner)
                _, plain = measured(base, "no defense in the base recipe, with fresh seeds")
            tuned = replace(tuned, re_audit=_re_audit(audit, plain, winner, rounds[-1], latencies))
        steps.done()
        settle(out, folder)
        _write(tuned, out)
    return tuned


def fresh(winner: Point) -> Recipe:
    """The winner's recipe with a seed that the search never used, beside no defense."""
    recipe = winner.setting.recipe
    content = recipe.model_dump(mode="json")
    compare = [] if winner.setting.candidate.defense == "none" else ["none"]
    seed = derive_seed(recipe.seed, "re-audit") % 2**31
    return Recipe.build(content | {"seed": seed, "formats": [winner.format], "compare": compare})


def fresh_baseline(space: Space, winner: Point) -> Recipe:
    """The base recipe without a defense, with the seed and the format of `fresh`: accuracy is lost against
    it."""
    content = space.baseline(winner.setting.candidate.backend).recipe.model_dump(mode="json")
    again = fresh(winner)
    return Recipe.build(content | {"seed": again.seed, "formats": list(again.formats)})


def _again(winner: Point, run: Run, folder: Path, progress: Progress) -> Audit:
    recipe = fresh(winner)
    # Gates belong to the command, not to what it found before: decided anew, the releases are in the cache.
    notes = (CHOSEN,) if promises(winner) else ()
    return compress(recipe, run.model_copy(update={"out": str(folder)}), progress, notes)


def _timed(folder: Path, audit: Audit, rows: Dataset) -> dict[str, float]:
    """Milliseconds a row of the files that no device measured."""
    files = {a.name: a.file for a in audit.artifacts if a.role != "original" and a.performance is None}
    return host_latencies(folder, files, rows)


def _re_audit(
    audit: Audit, plain_audit: Audit, winner: Point, last: Round, latencies: dict[str, float]
) -> ReAudit:
    """`plain_audit` holds no defense in the base recipe."""
    setting = replace(winner.setting, recipe=fresh(winner))
    points = points_of(audit, setting, -1, last.objective, latencies)
    plain = replace(setting, candidate=replace(setting.candidate, defense="none"))
    baseline = points_of(plain_audit, plain, -1, last.objective)
    if not points or not baseline:
        raise DataError("no attack could run on the winner with fresh seeds", got=f"{winner.told}")
    return ReAudit(max(points, key=lambda p: p.leakage.value), baseline[0].accuracy.value, audit)


def _trial_name(recipe: Recipe, planned: Plan) -> str:
    """Changes with everything that its audit depends on: the recipe, and what the recipe only names."""
    weights = recipe.model.weights
    content = {
        "recipe": recipe.id,
        "rows": [planned.rows.sha256, planned.split],
        "edgeprivacy": __version__,
        "backends": {name: [RELEASE_VERSION[name], backend_versions(name)] for name in recipe.backends},
        "model": model_identity(recipe),
        "weights": None if weights is None else sha256_file(Path(weights)),
        "training": training_identity(recipe),
        "defenses": [defense_identity(make_defense(arm.name, arm.settings)) for arm in recipe.arms],
        "attacks": {name: attacks[name].version for name in chosen_attacks(recipe.audit.attacks)},
    }
    return sha256_json(content)[:16]


def _finished(folder: Path, recipe: Recipe) -> Audit | None:
    """The audit that an earlier run left in the folder of this very recipe."""
    with suppress(DataError):
        audit = Audit.load(folder / "audit.json")
        if audit.recipe_id == recipe.id:
            return audit
    return None


def _write(tuned: Tuned, out: Path) -> None:
    from edgeprivacy.tuning.page import render

    write_recipes(tuned, out / "recipes")
    write_text(out / "tune.html", render(tuned))
    write_json(out / "tune.json", tuned.to_dict())


class _Steps:
    """Counts settings, and tells what is at work on one."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self.count = progress, total, 0

    def done(self) -> None:
        """One more setting is measured."""
        self.count += 1
        self._progress(self.count, self._total, "")

    def within(self, what: str) -> Progress:
        """A progress function of one setting."""
        self._progress(self.count, self._total, what)
        return lambda done, total, text: self._progress(self.count, self._total, f"{what}: {done}/{total}")
