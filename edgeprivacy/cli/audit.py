"""`edgeprivacy audit`: attack a model file that somebody else built."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from edgeprivacy.cli.device_options import device_options
from edgeprivacy.cli.options import (
    gate_options,
    output_options,
    progress_bar,
    records_option,
    rows_options,
    split_list,
)
from edgeprivacy.errors import UsageError

if TYPE_CHECKING:
    from edgeprivacy.gate_grammar import GateOn


@click.command(name="audit")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
@click.option(
    "--members",
    metavar="DATA",
    help="Rows that trained the model: FILE.npz (x, y, optional ids), FILE.csv, an image folder, or "
    "FILE.py:FUNCTION.",
)
@click.option("--nonmembers", metavar="DATA", help="Rows of the same distribution that did not.")
@click.option(
    "--recipe",
    type=click.Path(path_type=Path),
    help="A recipe that comes close to how the file was made: it makes shadows on --train and --holdout.",
)
@click.option("--train", metavar="DATA", help="With --recipe, the rows that trained the file.")
@click.option("--holdout", metavar="DATA", help="With --recipe, the rows that did not.")
@click.option("--shadows", type=int, help="With --recipe, shadow models.")
@click.option("--jobs", type=int, help="With --recipe, worker processes.  [default: one a core]")
@click.option(
    "--null-members",
    metavar="DATA",
    help="Further rows that did not, prepared as the members were: they must not look like members.",
)
@click.option(
    "--original",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The model that the files were made from (.tflite, .pte, .ptl, .keras, .h5): attacks on several "
    "versions see it beside them; gates do not.",
)
@click.option(
    "--shadow-files",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A model trained and exported as the audited one, on a part of the same rows; or a folder of them. "
    "Repeatable. Needs --shadow-membership.",
)
@click.option(
    "--shadow-membership",
    type=click.Path(path_type=Path),
    help="What trained them: .npz of members [shadows, rows], and ids [rows] (without: members, then "
    "non-members); optional files [shadows] and population [rows].",
)
@click.option("--attacks", callback=split_list, help="Attacks or sets of them, with commas between.")
@gate_options
@device_options()
@click.option(
    "--out", type=click.Path(path_type=Path), help="Output folder.  [default: edgeprivacy-out/audit-NAME]"
)
@rows_options
@records_option
@click.option("--logits", is_flag=True, help="The files answer logits: apply the softmax.")
@click.option(
    "--drop-overlap", is_flag=True, help="Drop non-members that are also members, instead of refusing them."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Reaches every random choice.")
@output_options
def command(
    files: tuple[Path, ...],
    members: str | None,
    nonmembers: str | None,
    recipe: Path | None,
    train: str | None,
    holdout: str | None,
    shadows: int | None,
    jobs: int | None,
    null_members: str | None,
    original: Path | None,
    shadow_files: tuple[Path, ...],
    shadow_membership: Path | None,
    attacks: tuple[str, ...] | None,
    fail_if: tuple[str, ...],
    gate_on: str | None,
    device: tuple[str, ...],
    out: Path | None,
    records: Path | None,
    label: str | None,
    no_header: bool,
    logits: bool,
    drop_overlap: bool,
    seed: int,
    as_json: bool,
    quiet: bool,
) -> int:
    """Run model files on rows of known membership, attack their answers, and say what holds.

    No training code and no TensorFlow are needed (pip install 'edgeprivacy[litert]'). Without --shadow-files
    attacks do without shadows and thresholds are cross-fitted; part of the non-members is the population that
    attacks compare against, and is never scored. Several files get the same rows and stand in one report.

    Exit codes: 0 no gate or all passed, 1 a gate failed, 2 files or rows that do not fit, 3 inconclusive (too
    few rows for the gate, or a null test failed), 4 the interpreter failed.

    \b
    Examples:
      edgeprivacy audit model.tflite --members m.npz --nonmembers n.npz
      edgeprivacy audit model.tflite --members m.npz --nonmembers n.npz --null-members h.npz
      edgeprivacy audit model.tflite --members m.npz --nonmembers n.npz --device adb
      edgeprivacy audit model.tflite --recipe r.toml --train m.npz --holdout n.npz
      edgeprivacy audit float.tflite int8.tflite --members m.csv --nonmembers n.csv --label class
      edgeprivacy audit model.tflite --members m.npz --nonmembers n.npz --fail-if "tpr@1%fpr>0.05"
      edgeprivacy audit a.tflite b.pte --original model.keras --members m.npz --nonmembers n.npz
        --attacks compleak
      edgeprivacy audit model.tflite --members m.npz --nonmembers n.npz --shadow-files shadows/
        --shadow-membership trained.npz
    """
    from edgeprivacy.audit_preparing import Settings, prepare
    from edgeprivacy.audit_running import run_audit
    from edgeprivacy.cli.output import finish

    if recipe is not None:
        if members or nonmembers or null_members or shadow_files or shadow_membership or original:
            raise UsageError(
                "with --recipe, rows are given as --train and --holdout, and shadows are made",
                hint="leave out --members, --nonmembers, --null-members, --original and --shadow-files",
            )
        overrides = {
            "data.train": train,
            "data.holdout": holdout,
            "data.label": label,
            "data.header": False if no_header else None,
            "data.drop_overlap": True if drop_overlap else None,
            "audit.shadows": shadows,
            "audit.attacks": attacks,
            "seed": seed or None,
        }
        run = {
            "fail_if": fail_if,
            "gate_on": gate_on,
            "jobs": jobs,
            "out": out and str(out),
            "records": records and str(records),
            "device": device,
        }
        return _with_recipe(files, recipe, overrides, run, as_json, quiet)
    if train or holdout or shadows is not None or jobs is not None:
        raise UsageError("--train, --holdout, --shadows and --jobs belong to --recipe")
    if members is None or nonmembers is None:
        raise UsageError(
            "which rows trained the file is not said",
            hint="give --members and --nonmembers, or --recipe with --train and --holdout",
        )
    settings = Settings(
        attacks=attacks or (),
        fail_if=fail_if,
        gate_on=cast("GateOn", gate_on or "point"),
        device=device or ("host",),
        out=out,
        records=records,
        label=label,
        header=not no_header,
        logits=logits,
        drop_overlap=drop_overlap,
        seed=seed,
        original=original,
        shadow_files=shadow_files,
        shadow_membership=shadow_membership,
    )
    prepared = prepare(files, members, nonmembers, null_members, settings)
    if not quiet:
        click.echo(f"{prepared.data.split['text']}\noutput  {prepared.folder}\n", err=True)
    with progress_bar(quiet, "audit") as bar:
        audit = run_audit(prepared, bar)
    return finish(audit, prepared.folder, as_json, quiet)


def _with_recipe(
    files: tuple[Path, ...],
    path: Path,
    overrides: dict[str, Any],
    settings: dict[str, Any],
    as_json: bool,
    quiet: bool,
) -> int:
    """`--recipe`: shadows are made by it."""
    from edgeprivacy.cli.output import finish
    from edgeprivacy.recipe import Recipe, Run
    from edgeprivacy.recipe_adversary import audit_with_recipe
    from edgeprivacy.recipe_toml import merge, read_toml

    content = read_toml(path)
    said = {key: value for key, value in settings.items() if value not in (None, ())}
    content.pop("tune", None)
    run = Run.build(merge(content.pop("run", {}), said))
    recipe = Recipe.build(merge(content, {key: v for key, v in overrides.items() if v is not None}))
    with progress_bar(quiet, "releases") as bar:
        audit, folder = audit_with_recipe(files, recipe, run, bar)
    return finish(audit, folder, as_json, quiet)
