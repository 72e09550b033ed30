"""`edgeprivacy compress`: recipe, flags or nothing at all, to an audited file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from edgeprivacy.cli.device_options import device_options
from edgeprivacy.cli.options import gate_options, output_options, progress_bar, records_option
from edgeprivacy.cli.output import finish
from edgeprivacy.cli.recipe_options import overrides_of, recipe_options


@click.command(name="compress")
@click.argument("recipe", required=False, type=click.Path(path_type=Path))
@recipe_options(
    *("--backend", "--defense", "--compare", "--data", "--label", "--no-header", "--train", "--holdout"),
    *("--split-column", "--drop-overlap", "--model", "--weights"),
    *("--prune", "--prune-schedule", "--prune-iterations", "--cluster"),
)
@click.option(
    "--also",
    multiple=True,
    help="Another version of the model that somebody may hold, by what differs: prune.sparsity=0.9; several "
    "settings with a semicolon. Attacked alone and together with the others. Repeatable.",
)
@click.option(
    "--ablation",
    is_flag=True,
    help="Two more versions: fine-tuned but not pruned, pruned but not fine-tuned. They tell which of the "
    "two leaks.",
)
@recipe_options(
    *(
        "--epochs",
        "--finetune-epochs",
        "--formats",
        "--shadows",
        "--split",
        "--attacks",
        "--canaries",
        "--seed",
    )
)
@click.option("--jobs", type=int, help="Worker processes, one thread each.  [default: one a core]")
@device_options()
@click.option(
    "--shadow-device",
    type=click.Choice(["auto", "host", "same"]),
    help="Where the shadows' files are run.  [default: auto: the same device if its answers differ]",
)
@click.option("--out", help="Output folder.  [default: edgeprivacy-out/NAME]")
@click.option("--no-cache", is_flag=True, help="Neither use nor keep finished releases.")
@records_option
@gate_options
@output_options
@click.option("--dry-run", is_flag=True, help="Check everything, print the plan, make nothing.")
def command(
    recipe: Path | None,
    no_cache: bool,
    also: tuple[str, ...],
    ablation: bool,
    fail_if: tuple[str, ...],
    gate_on: str | None,
    as_json: bool,
    quiet: bool,
    dry_run: bool,
    jobs: int | None,
    device: tuple[str, ...],
    shadow_device: str | None,
    out: str | None,
    records: Path | None,
    **flags: Any,
) -> int:
    """Train, compress under a defense, export, attack the very file, report.

    RECIPE is a TOML file (`edgeprivacy init` writes one); flags win over it. With neither, an embedded data
    set and network are used.

    \b
    Examples:
      edgeprivacy compress --backend tflite --defense wemem
      edgeprivacy compress --defense selena --compare none,wemem
      edgeprivacy compress recipe.toml --compare none --fail-if "tpr@1%fpr>0.05"
      edgeprivacy compress --data rows.csv --label class --defense wemem
      edgeprivacy compress --backend tflite --defense wemem --device adb:SERIAL
      edgeprivacy compress --also prune.sparsity=0.9 --attacks release
      edgeprivacy compress --train t.npz --holdout h.npz --model net.py:build --weights net.h5
    """
    from edgeprivacy.compressing import compress, default_out, prepare
    from edgeprivacy.recipe import ABLATION, Recipe, Run
    from edgeprivacy.recipe_toml import merge, parse_version, read_toml

    overrides = overrides_of(flags)
    content = read_toml(recipe) if recipe is not None else {}
    content.pop("tune", None)  # what `tune` searches is nothing of a single recipe's
    chosen_run = {
        "jobs": jobs,
        "device": list(device) or None,
        "shadow_device": shadow_device,
        "out": out,
        "records": None if records is None else str(records),
        "cache": False if no_cache else None,
        "fail_if": fail_if or None,
        "gate_on": gate_on,
    }
    run = Run.build(
        merge(content.pop("run", {}), {key: value for key, value in chosen_run.items() if value is not None})
    )
    if "defense.name" in overrides:
        # Another defense than the recipe's does not inherit its settings.
        content.pop("defense", None)
    if also or ablation:
        more = [*map(parse_version, also), *(ABLATION if ablation else ())]
        overrides["versions"] = [*content.get("versions", ()), *more]
    resolved = Recipe.build(merge(content, overrides))
    folder = Path(run.out) if run.out else default_out(resolved)
    run = run.model_copy(update={"out": str(folder)})
    if dry_run:
        source, split = prepare(resolved, run)
        if as_json:
            click.echo(
                json.dumps(
                    {
                        "recipe_id": resolved.id,
                        "recipe": resolved.model_dump(mode="json"),
                        "rows": len(source.pool),
                        "split": split.describe(),
                        "out": str(folder),
                    },
                    indent=2,
                )
            )
        else:
            click.echo(_plan(resolved, folder, len(source.pool), split.describe()["text"]))
        return 0
    with progress_bar(quiet, "releases") as bar:
        announced = quiet

        def progress(done: int, total: int, text: str) -> None:
            # The plan is printed once everything that can be checked has been checked.
            nonlocal announced
            if not announced:
                announced = True
                click.echo(_plan(resolved, folder) + "\n", err=True)
            bar(done, total, text)

        audit = compress(resolved, run, progress)
    return finish(audit, folder, as_json, quiet)


def _plan(recipe: Any, folder: Path, rows: int | None = None, split: str | None = None) -> str:
    """What will be done, in a few lines."""
    arms = ", ".join(arm.name for arm in recipe.arms)
    data = recipe.data.source if recipe.data.train is None else f"{recipe.data.train} + {recipe.data.holdout}"
    prune = (
        f"{recipe.prune.schedule} pruning to {100 * recipe.prune.sparsity:g} %"
        if recipe.prunes
        else "no pruning"
    )
    cluster = f", {recipe.cluster.clusters} clusters a layer" if recipe.cluster.clusters else ""
    quantize = recipe.quantize
    bits = f", weights of {quantize.weight_bits}/{quantize.outer_bits} bits" if quantize.low_bits else ""
    lines = [
        f"recipe    {recipe.id}",
        f"data      {data}" + (f", {rows} rows" if rows is not None else ""),
        f"compress  {prune}{cluster}{bits}, as {', '.join(recipe.formats)} ({recipe.backend})",
        *(
            f"also      {version.compression_name}, as {', '.join(version.formats)}"
            for version in recipe.all_versions[1:]
        ),
        f"defense   {arms}",
        f"attack    with {recipe.audit.shadows} shadows that go the same way",
        *([f"canaries  {recipe.audit.canaries}: the files are not to ship"] if recipe.audit.canaries else []),
        f"output    {folder}",
    ]
    if split:
        lines.append(f"split     {split}")
    return "\n".join(lines)
