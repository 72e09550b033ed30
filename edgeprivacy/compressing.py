"""`compress`: the whole way from a recipe to an audited file."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from edgeprivacy.backends.table import BACKENDS, backend_versions
from edgeprivacy.cache import Cache, default_cache_folder
from edgeprivacy.data.canaries import CanarySpec, insert_canaries
from edgeprivacy.data.dataset import Dataset, Source
from edgeprivacy.data.factories import is_factory
from edgeprivacy.data.loading import DataSpec, load_source
from edgeprivacy.data.splits import Shares, Split, make_split
from edgeprivacy.defenses import Defense, TrainingRows, make_defense
from edgeprivacy.device_collecting import Column, collect_on
from edgeprivacy.device_runner import Runner, open_runner, open_runners
from edgeprivacy.errors import ModelError, RecipeError, UsageError, did_you_mean
from edgeprivacy.files import atomic_path, write_json, write_text
from edgeprivacy.folders import output_folder
from edgeprivacy.gate import parse_gate
from edgeprivacy.gate_grammar import BOUNDS, refuse_bounds
from edgeprivacy.measuring import chosen_attacks
from edgeprivacy.recipe import Recipe, Run
from edgeprivacy.records import check_records
from edgeprivacy.release import Release, every_artifact
from edgeprivacy.release_audit import audit_releases
from edgeprivacy.release_gathering import ask_files
from edgeprivacy.report import write
from edgeprivacy.results import Audit
from edgeprivacy.scratch import scratch_folder
from edgeprivacy.shadows import Progress, make_releases
from edgeprivacy.threads import side_by_side

DEFAULT_FOLDER = Path("edgeprivacy-out")


def prepare(recipe: Recipe, run: Run) -> tuple[Source, Split]:
    """Check everything that can be checked before the first expensive step; load the data and split it.

    Raises:
        UsageError: A name, expression or setting that does not exist or does not fit.
        DataError: The data cannot be read or split as asked.
        MissingDependency: The backend is not installed.
    """
    for backend in recipe.backends:
        backend_versions(backend)
    chosen_attacks(recipe.audit.attacks)
    for arm in recipe.arms:
        make_defense(arm.name, arm.settings)
    for expression in run.fail_if:
        if parse_gate(expression).rows == "canaries" and recipe.audit.canaries is None:
            raise UsageError(
                f"gate '{expression}' is about canaries, and there are none", hint="--canaries 500"
            )
    check_records(None if run.records is None else Path(run.records))
    runners = open_runners(run.device)
    _check_model(recipe)
    data = recipe.data
    source = load_source(
        DataSpec(
            source=data.source,
            label=data.label,
            header=data.header,
            train=data.train,
            holdout=data.holdout,
            split_column=data.split_column,
            drop_overlap=data.drop_overlap,
            label_sets=True,
        )
    )
    design: str = recipe.split.design
    if design == "auto":
        design = source.default_design
    if recipe.model.weights is not None and design != "given":
        raise UsageError(
            "a model that comes with its weights needs to say which rows it was trained on",
            hint="give --train and --holdout, or a split column, and no other --split than given",
        )
    if recipe.model.weights is not None and recipe.audit.canaries is not None:
        raise UsageError(
            "a model that comes with its weights cannot learn canaries",
            hint="leave out --weights: the original is then trained here, with canaries among its rows",
        )
    _check_bounds(recipe, run, design)
    _check_label_sets(recipe, source.pool)
    shares = recipe.split
    split = make_split(
        source,
        design,
        Shares(shares.pool, shares.test, shares.validation, shares.reference, shares.calibration),
        recipe.seed,
        recipe.audit.shadows,
    )
    if recipe.audit.canaries is not None:
        source, split = insert_canaries(source, split, CanarySpec.parse(recipe.audit.canaries))
    _check_defenses(recipe, source.pool, split)
    _try_devices(recipe, runners)
    return source, split


def _try_devices(recipe: Recipe, runners: Sequence[Runner]) -> None:
    """Whether every device runs files of the kinds that this recipe makes."""
    plans = every_artifact(recipe)
    endings = [BACKENDS[plan.backend].formats[plan.format].removeprefix(".") for plan in plans]
    for runner in runners:
        try:
            runner.ready(tuple(dict.fromkeys(endings)))
        finally:
            runner.close()


def _check_model(recipe: Recipe) -> None:
    """Whether what the model and training sections name is there; the framework opens it later."""
    name, weights = recipe.model.source, recipe.model.weights
    entries = [BACKENDS[backend] for backend in recipe.backends]
    if weights is not None:
        if len(entries) > 1:
            raise UsageError("trained weights are of one backend", got=f"--backend {recipe.backend}")
        endings = entries[0].weight_files
        if not Path(weights).is_file():
            raise ModelError(
                f"weights {weights} are no file", allowed=" or ".join(f"FILE{ending}" for ending in endings)
            )
    if recipe.training.function is not None:
        _check_factory(recipe.training.function, "training function")
    built_in = ["auto", *(model for model in entries[0].models if all(model in e.models for e in entries))]
    files = [ending for ending in entries[0].model_files if all(ending in e.model_files for e in entries)]
    if name in built_in:
        return
    if is_factory(name):
        _check_factory(name, "model factory")
        return
    if Path(name).exists() and files:
        return
    allowed = [*built_in, *(f"FILE{ending}" for ending in files), "FILE.py:FUNCTION or MODULE:FUNCTION"]
    elsewhere = [backend for backend, entry in BACKENDS.items() if name in entry.models]
    if elsewhere:
        raise ModelError(f"{name} is a model of {elsewhere[0]} alone", allowed=", ".join(allowed))
    if Path(name).exists():
        raise ModelError(
            f"{recipe.backend} does not take a model from a file",
            got=name,
            allowed=", ".join(allowed),
            hint="give a factory that builds it, and --weights for its trained weights",
        )
    raise ModelError(
        f"model {name} does not exist", allowed=", ".join(allowed), hint=did_you_mean(name, built_in)
    )


def _check_factory(reference: str, kind: str) -> None:
    place = reference.rpartition(":")[0]
    if not is_factory(reference):
        raise ModelError(
            f"this names no {kind}", got=reference, allowed="FILE.py:FUNCTION or MODULE:FUNCTION"
        )
    if place.endswith(".py") and not Path(place).is_file():
        raise ModelError(f"the {kind}'s file {place} does not exist")


def _check_bounds(recipe: Recipe, run: Run, design: str) -> None:
    """Whether gates on bounds can be decided."""
    gates = [gate for gate in map(parse_gate, run.fail_if) if gate.metric in BOUNDS]
    if not gates:
        return
    from edgeprivacy.bounds import ORDER  # imported late: it brings all of statistics

    if design == "given":
        refuse_bounds(gates)
    if not set(ORDER) & set(chosen_attacks(recipe.audit.attacks)):
        refuse_bounds(gates, "no attack that a bound can rest on", f"--attacks {ORDER[0]}, among others")


def _check_defenses(recipe: Recipe, data: Dataset, split: Split) -> None:
    """Whether every release has the rows that the defenses' settings ask for."""
    labels = data.take(split.roles["pool"]).y
    for arm in recipe.arms:
        defense = make_defense(arm.name, arm.settings)
        _check_original(recipe, defense)
        _check_rewinding(recipe, defense)
        for model in range(split.models):
            defense.check(TrainingRows.of(labels[split.members(model)], data.classes))


def _check_label_sets(recipe: Recipe, data: Dataset) -> None:
    """Whether all that the recipe asks for holds where rows have several independent labels."""
    if not data.label_sets:
        return
    if recipe.audit.canaries is not None:
        raise UsageError(
            "there are no canaries of rows with several labels",
            hint="leave canaries out; `records` tells which rows are at risk",
        )
    for arm in recipe.arms:
        if make_defense(arm.name, arm.settings).needs_classes:
            raise UsageError(
                f"defense '{arm.name}' is about one true class among several, and the rows of {data.source} "
                f"have {data.classes} independent labels each",
                allowed="none, wemem, wemem:rmr, wemem:swmr, less-data, early-stopping",
            )


def _check_original(recipe: Recipe, defense: Defense) -> None:
    """Whether a defense that trains the original can have it."""
    if defense.for_original() is None:
        return
    given = {"model.weights": recipe.model.weights, "training.function": recipe.training.function}
    for key, value in given.items():
        if value is not None:
            raise RecipeError(
                f"defense '{defense.name}' trains the original too, and {key} says where it comes from",
                got=value,
                hint=f"leave {key} out, or, where the defense has that setting, set original = false",
            )


def _check_rewinding(recipe: Recipe, defense: Defense) -> None:
    """Whether a defense that rewinds weights, or prunes them by itself, can do so with this recipe."""
    if defense.admm() is not None and (recipe.prune.schedule == "structured" or not recipe.prunes):
        raise RecipeError(
            f"defense '{defense.name}' prunes weights by itself, one by one",
            got=f"prune.schedule {recipe.prune.schedule}, sparsity {recipe.prune.sparsity:g}",
            allowed="iterative, one-shot or polynomial (which it replaces), with a sparsity above 0",
        )
    if defense.rewinding() is None:
        return
    if recipe.model.weights is not None:
        raise RecipeError(
            f"defense '{defense.name}' sets weights back to their initial values, which are not known",
            got=f"model.weights {recipe.model.weights}",
            hint="leave model.weights out: the original is then trained here, from known initial weights",
        )
    if recipe.prune.schedule == "structured":
        raise RecipeError(
            f"defense '{defense.name}' rewinds weights of the whole network, and this schedule removes some",
            got="prune.schedule structured",
            allowed="iterative, one-shot, polynomial, none",
        )


def default_out(recipe: Recipe) -> Path:
    """edgeprivacy-out/NAME-ID under the working folder."""
    return (
        DEFAULT_FOLDER / f"{recipe.compression_name}.{recipe.defense.name.replace(':', '-')}-{recipe.id[:8]}"
    )


def compress(
    recipe: Recipe, run: Run | None = None, progress: Progress = lambda done, total, text: None
) -> Audit:
    """Train, compress under the recipe's defense, export, run the file, attack it, and write the audit.

    The output folder (`run.out`) then holds recipe.toml, split.json, artifacts/, confidences/, audit.json and
    report.html. Interrupted work resumes from the cache.

    Args:
        recipe: What to make and measure.
        run: Jobs, folders, gates; defaults if None.
        progress: Called with steps done, steps in all, and the last finished step.

    Raises:
        EdgePrivacyError: See `edgeprivacy.errors`; its `exit_code` is the command line's.
    """
    run = run or Run()
    started = time.monotonic()
    source, split = prepare(recipe, run)
    out = Path(run.out) if run.out else default_out(recipe)
    begun = (out / ".edgeprivacy").exists()
    with ExitStack() as stack:
        stack.enter_context(output_folder(out, f"compress {recipe.id} {source.pool.sha256[:16]}"))
        if not begun:
            stack.enter_context(_withdrawn_on_a_mistake(out))
        write_text(out / "recipe.toml", recipe.to_toml())
        split.save(out / "split.json")
        cache_folder = default_cache_folder()
        if not run.cache:
            cache_folder = stack.enter_context(scratch_folder("cache"))
        else:
            Cache(cache_folder).sweep()
        releases = make_releases(recipe, source.pool, split, cache_folder, run.jobs, progress)
        _publish(out, releases[0], recipe.audit.canaries)
        with _on_devices(recipe, run, source, split, releases, Cache(cache_folder), progress) as columns:
            for column in columns:
                _publish_answers(out, column)
            asked = ask_files(
                columns or [Column(open_runner("host"), tuple(releases))],
                source.pool,
                split,
                chosen_attacks(recipe.audit.attacks),
                Cache(cache_folder),
                recipe.seed,
                run.jobs,
                progress,
            )
            audit = audit_releases(
                recipe, run, source, split, releases, out, started, columns, asked, progress=progress
            )
        audit.save(out / "audit.json")
        write(audit, "html", out / "report.html")
    return audit


@contextmanager
def _on_devices(
    recipe: Recipe,
    run: Run,
    source: Source,
    split: Split,
    releases: Sequence[Release],
    cache: Cache,
    progress: Progress,
) -> Iterator[list[Column]]:
    """What the files answered in every place that was asked for, several places at once; [] for the host
    alone. The places stay open for the block's null tests."""
    if tuple(run.device) == ("host",):
        yield []
        return
    runners = open_runners(run.device)
    steps = _Steps(progress, 3 * len(runners))

    def one(runner: Runner) -> Column:
        native = open_runner("native") if runner.name == "adb" else None
        if runner.name == "host":
            steps.skip(3)
            return Column(runner, tuple(releases))
        return collect_on(runner, releases, source.pool, split, cache, run.shadow_device, native, step=steps)

    def close() -> None:
        for runner in runners:
            runner.close()

    try:
        yield side_by_side(one, runners, close)
    finally:
        close()


class _Steps:
    """Counts finished steps of several threads for a progress function."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0
        self._lock = threading.Lock()
        progress(0, total, "")

    def __call__(self, text: str) -> None:
        self.skip(1, text)

    def skip(self, steps: int, text: str = "") -> None:
        """Count steps that need no work."""
        with self._lock:
            self._done += steps
            self._progress(self._done, self._total, text)


@contextmanager
def _withdrawn_on_a_mistake(out: Path) -> Iterator[None]:
    """Leave no new folder behind when the recipe proves unusable: the corrected one is another recipe, to
    which the folder would not belong."""
    try:
        yield
    except UsageError:
        for name in ("recipe.toml", "split.json", ".edgeprivacy", ".lock"):
            (out / name).unlink(missing_ok=True)
        with suppress(OSError):
            out.rmdir()
            if out.parent == DEFAULT_FOLDER:
                out.parent.rmdir()  # unless it holds other runs
        raise


def _publish_answers(out: Path, column: Column) -> None:
    """Copy what the target's files answered on a device beside the host's answers."""
    if column.label == "host":
        return
    for made in column.releases[0].artifacts:
        name = f"{made.plan.name}@{column.label.replace(':', '-')}.npz"
        with atomic_path(out / "confidences" / name) as temporary:
            shutil.copyfile(made.confidences, temporary)


def _publish(out: Path, target: Release, canaries: str | None) -> None:
    """Copy the target's files out of the cache, each with its manifest."""
    told = {} if canaries is None else {"canaries": canaries, "ship": False}
    for made in target.artifacts:
        name = made.published_name(canaries)
        with atomic_path(out / "artifacts" / name) as temporary:
            shutil.copyfile(made.file, temporary)
        write_json(
            out / "artifacts" / f"{made.plan.name}.json", {"name": made.plan.name, **told, **made.meta}
        )
        with atomic_path(out / "confidences" / f"{made.plan.name}.npz") as temporary:
            shutil.copyfile(made.confidences, temporary)
