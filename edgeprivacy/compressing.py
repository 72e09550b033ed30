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
from edgeprivacy.data.dataset import Source
from edgeprivacy.data.loading import DataSpec, load_source
from edgeprivacy.data.splits import Shares, Split, make_split
from edgeprivacy.defenses import make_defense
from edgeprivacy.device_collecting import Column, collect_on
from edgeprivacy.device_runner import Runner, open_runner, open_runners
from edgeprivacy.errors import UsageError
from edgeprivacy.files import atomic_path, write_json, write_text
from edgeprivacy.folders import output_folder
from edgeprivacy.gate import parse_gate
from edgeprivacy.measuring import chosen_attacks
from edgeprivacy.recipe import Recipe, Run
from edgeprivacy.recipe_checks import check_bounds, check_defenses, check_label_sets, check_model
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
    check_model(recipe)
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
    check_bounds(recipe, run, design)
    check_label_sets(recipe, source.pool)
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
    check_defenses(recipe, source.pool, split)
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


def default_out(recipe: Recipe) -> Path:
    """edgeprivacy-out/NAME-ID under the working folder."""
    return (
        DEFAULT_FOLDER / f"{recipe.compression_name}.{recipe.defense.name.replace(':', '-')}-{recipe.id[:8]}"
    )


def compress(
    recipe: Recipe,
    run: Run | None = None,
    progress: Progress = lambda done, total, text: None,
    notes: Sequence[str] = (),
) -> Audit:
    """Train, compress under the recipe's defense, export, run the file, attack it, and write the audit.

    The output folder (`run.out`) then holds recipe.toml, split.json, artifacts/, confidences/, audit.json and
    report.html. Interrupted work resumes from the cache.

    Args:
        recipe: What to make and measure.
        run: Jobs, folders, gates; defaults if None.
        progress: Called with steps done, steps in all, and the last finished step.
        notes: What else a reader of the audit must know: how the recipe came to be.

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
                recipe,
                run,
                source,
                split,
                releases,
                out,
                started,
                columns,
                asked,
                notes=notes,
                progress=progress,
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
