"""`edgeprivacy tune`: from a budget to the file that leaks least within it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprivacy.cli.device_options import device_options
from edgeprivacy.cli.options import gate_options, progress_bar, split_list
from edgeprivacy.cli.recipe_options import overrides_of, recipe_options

if TYPE_CHECKING:
    from edgeprivacy.tuning.outcome import Tuned
    from edgeprivacy.tuning.section import TuneSection
    from edgeprivacy.tuning.tune import Plan

_TUNE_KEYS = ("defenses", "backends", "trials", "max_accuracy_loss", "max_size", "objective")


@click.command(name="tune")
@click.argument("recipe", required=False, type=click.Path(path_type=Path))
@click.option("--defenses", callback=split_list, help="Defenses to try, with commas; compositions too.")
@click.option("--backends", callback=split_list, help="Backends to try.  [default: the recipe's]")
@click.option("--trials", type=int, help="Settings tried of each defense on each backend.  [default: 6]")
@click.option(
    "--max-accuracy-loss",
    type=float,
    metavar="POINTS",
    help="Points of accuracy that may be lost against no defense in the recipe as it is.  [default: 2]",
)
@click.option("--max-size", metavar="SIZE", help="Largest file, e.g. 60KiB.")
@click.option(
    "--objective", help="What the strongest attack is judged by: tpr@1%fpr, auc.  [default: tpr@1%fpr]"
)
@recipe_options(
    *("--data", "--label", "--no-header", "--train", "--holdout", "--model"),
    *("--formats", "--shadows", "--attacks", "--seed"),
    formats="float32,float16,dynamic,int8,qat-int8: all are measured.",
    shadows="Shadow models of the last round and of the re-audit.",
)
@click.option("--jobs", type=int, help="Worker processes, one thread each.  [default: one a core]")
@device_options()
@gate_options
@click.option("--out", help="Output folder.  [default: edgeprivacy-out/tune-ID]")
@click.option("--json", "as_json", is_flag=True, help="Print tune.json on stdout.")
@click.option("--quiet", "-q", is_flag=True, help="No progress, no table.")
@click.option("--dry-run", is_flag=True, help="Check everything, print the plan, make nothing.")
def command(
    recipe: Path | None,
    jobs: int | None,
    device: tuple[str, ...],
    fail_if: tuple[str, ...],
    gate_on: str | None,
    out: str | None,
    as_json: bool,
    quiet: bool,
    dry_run: bool,
    **flags: Any,
) -> int:
    """Search for the defense and the compression that leak least within a budget.

    Every defense is tried with its defaults, then with settings that a sampler suggests, and with more or
    fewer weights pruned; the worse ones are dropped round by round, and what is left is made with all epochs
    and shadows. Files without a defense stand beside them, pruned alike. The least leaking file within the
    budget is then made and attacked again with fresh seeds: gates (--fail-if) are decided on that.

    RECIPE is a TOML file; its [tune] table says what is searched. Flags win over it. A run that was cut goes
    on where it was: give the same command again. Another search of the same recipe may use its folder.

    \b
    Examples:
      edgeprivacy tune --max-accuracy-loss 2 --max-size 60KiB
      edgeprivacy tune recipe.toml --defenses selena,hamp,wemem:swmr+relaxloss --fail-if "tpr@1%fpr>0.05"
      edgeprivacy tune recipe.toml --backends tflite,executorch --formats int8 --trials 10
      edgeprivacy tune --dry-run

    \b
    In a recipe:
      [tune]
      defenses = ["selena", "relaxloss"]
      max_size = "100KiB"
      [tune.space]
      "prune.sparsity" = [0.6, 0.8]  # default: 0.6, 0.8, 0.9 and the recipe's own
      "relaxloss.alpha" = { low = 0.2, high = 1.5 }
    """
    from edgeprivacy.recipe import Recipe, Run
    from edgeprivacy.recipe_toml import merge, read_toml
    from edgeprivacy.tuning.section import TuneSection
    from edgeprivacy.tuning.tune import default_out, plan, tune

    content = read_toml(recipe) if recipe is not None else {}
    chosen = {key: flags[key] for key in _TUNE_KEYS if flags[key] is not None}
    section = TuneSection.build(merge(content.pop("tune", {}), chosen))
    of_run = {"jobs": jobs, "device": list(device) or None, "out": out, "fail_if": fail_if or None}
    of_run["gate_on"] = gate_on
    run = Run.build(
        merge(content.pop("run", {}), {key: value for key, value in of_run.items() if value is not None})
    )
    base = Recipe.build(merge(content, overrides_of(flags)))
    folder = Path(run.out) if run.out else default_out(base, section)
    run = run.model_copy(update={"out": str(folder)})
    if dry_run:
        click.echo(_told(plan(base, section, run), section, folder))
        return 0
    with progress_bar(quiet, "settings") as bar:
        tuned = tune(base, section, run, bar)
    if as_json:
        click.echo(json.dumps(tuned.to_dict(), indent=2, ensure_ascii=False))
    elif not quiet:
        _show(tuned)
        click.echo(f"\n{folder / 'tune.json'}\n{folder / 'tune.html'}")
        if tuned.re_audit is not None:
            click.echo(folder / "re-audit" / "report.html")
    return tuned.exit_code


def _told(plan: Plan, section: TuneSection, folder: Path) -> str:
    from edgeprivacy.tuning.search import settings_of

    space = plan.space
    candidates = (*map(space.control, space.backends), *space.candidates)
    counts = {candidate: settings_of(space, candidate, section.trials) for candidate in candidates}
    searched = {
        candidate.name: f"{count} of {', '.join(space.searched(candidate))}"
        if count > 1
        else "its defaults alone"
        for candidate, count in counts.items()
    }
    width = max(map(len, searched))
    steps = "; ".join(
        f"{100 * entry.epochs:g} % of the epochs, {entry.shadows} shadows" for entry in plan.rounds
    )
    return "\n".join(
        [
            f"recipe    {space.base.id}",
            f"budget    {plan.budget.told()}",
            f"goal      least {section.objective} of the strongest attack",
            f"rounds    {steps}",
            f"settings  at most {plan.total} made and measured in all rounds, then the winner again",
            *(f"          {name.ljust(width)}  {keys}" for name, keys in searched.items()),
            f"output    {folder}",
        ]
    )


def _show(tuned: Tuned) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from edgeprivacy.report.words import clean
    from edgeprivacy.tuning.words import explanation, headline, lines, objective_title

    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim", expand=False)
    for title in (
        "file",
        "settings",
        objective_title(tuned.section.objective),
        "attack",
        "accuracy",
        "points",
    ):
        table.add_column(title, overflow="fold")
    table.add_column("size", justify="right")
    table.add_column("a row", justify="right")
    table.add_column("")
    for row in lines(tuned):
        texts = (
            row.file,
            row.settings,
            row.leakage,
            row.point.attack,
            row.accuracy,
            row.lost,
            row.size,
            row.latency,
            row.mark,
        )
        table.add_row(*(Text(clean(text), "bold" if "winner" in row.mark else "") for text in texts))
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)  # piped output has no width of its own
    console.print(table)
    console.print(Text.assemble((headline(tuned), "bold"), f" {explanation(tuned)}"))
    for note in tuned.notes():
        console.print(Text(f"Note: {clean(note)}", "dim"))
