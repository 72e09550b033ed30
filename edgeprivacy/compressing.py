"""`compress`: the whole way from a recipe to an audited file."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from edgeprivacy.backends.table import BACKENDS, backend_versions
from edgeprivacy.cache import Cache, default_cache_folder
from edgeprivacy.data.dataset import Dataset, Source
from edgeprivacy.data.factories import is_factory
from edgeprivacy.data.loading import DataSpec, load_source
from edgeprivacy.data.splits import Shares, Split, make_split
from edgeprivacy.defenses import TrainingRows, make_defense
from edgeprivacy.device_runner import open_runner
from edgeprivacy.errors import ModelError, UsageError, did_you_mean
from edgeprivacy.files import atomic_path, write_json, write_text
from edgeprivacy.folders import output_folder
from edgeprivacy.gate import parse_gate
from edgeprivacy.measuring import chosen_attacks
from edgeprivacy.recipe import Recipe, Run
from edgeprivacy.release import Release
from edgeprivacy.release_audit import audit_releases
from edgeprivacy.report import write
from edgeprivacy.results import Audit
from edgeprivacy.scratch import scratch_folder
from edgeprivacy.shadows import Progress, make_releases

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
        parse_gate(expression)
    open_runner(run.device)
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
    shares = recipe.split
    split = make_split(
        source,
        design,
        Shares(shares.pool, shares.test, shares.validation, shares.reference, shares.calibration),
        recipe.seed,
        recipe.audit.shadows,
    )
    _check_defenses(recipe, source.pool, split)
    return source, split


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


def _check_defenses(recipe: Recipe, data: Dataset, split: Split) -> None:
    """Whether every release has the rows that the defenses' settings ask for."""
    labels = data.take(split.roles["pool"]).y
    for arm in recipe.arms:
        defense = make_defense(arm.name, arm.settings)
        for model in range(split.models):
            defense.check(TrainingRows(labels[split.members(model)], data.classes))


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
        releases = make_releases(recipe, source.pool, split, cache_folder, run.device, run.jobs, progress)
        _publish(out, releases[0])
        audit = audit_releases(recipe, run, source, split, releases, out, started)
        audit.save(out / "audit.json")
        write(audit, "html", out / "report.html")
    return audit


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


def _publish(out: Path, target: Release) -> None:
    """Copy the target's files out of the cache, each with its manifest."""
    for made in target.artifacts:
        name = f"{made.plan.name}{made.file.suffix}"
        with atomic_path(out / "artifacts" / name) as temporary:
            shutil.copyfile(made.file, temporary)
        write_json(out / "artifacts" / f"{made.plan.name}.json", {"name": made.plan.name, **made.meta})
        with atomic_path(out / "confidences" / f"{made.plan.name}.npz") as temporary:
            shutil.copyfile(made.confidences, temporary)
