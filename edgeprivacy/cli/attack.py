"""`edgeprivacy attack`: attack outputs that were collected already."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from edgeprivacy.cli.options import gate_options, output_options, rows_options, split_list
from edgeprivacy.errors import UsageError

if TYPE_CHECKING:
    from edgeprivacy.confidences import Confidences
    from edgeprivacy.gate_grammar import GateOn


@click.command(name="attack")
@click.option(
    "--members",
    type=click.Path(path_type=Path),
    help="Outputs on rows that trained the model: .npz of `edgeprivacy collect`, or probabilities and labels "
    "as .npz or CSV.",
)
@click.option("--nonmembers", type=click.Path(path_type=Path), help="Outputs on rows that did not.")
@click.option(
    "--population",
    type=click.Path(path_type=Path),
    help="Outputs on further rows that did not; attack-p compares against them, they are never scored.",
)
@click.option("--table", type=click.Path(path_type=Path), help="Members and non-members in one CSV or .npz.")
@click.option(
    "--member-column",
    default="member",
    show_default=True,
    help="Column of --table that says which: 1 or 0, member or nonmember, train or holdout.",
)
@click.option("--attacks", callback=split_list, help="Attacks by name, separated by commas.")
@gate_options
@click.option(
    "--out", type=click.Path(path_type=Path), help="Output folder.  [default: edgeprivacy-out/attack-NAME]"
)
@rows_options
@click.option("--logits", is_flag=True, help="The tables hold logits: apply the softmax.")
@click.option(
    "--drop-overlap", is_flag=True, help="Drop non-members that are also members, instead of refusing them."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Reaches every random choice.")
@output_options
def command(
    members: Path | None,
    nonmembers: Path | None,
    population: Path | None,
    table: Path | None,
    member_column: str,
    attacks: tuple[str, ...] | None,
    fail_if: tuple[str, ...],
    gate_on: str | None,
    out: Path | None,
    label: str | None,
    no_header: bool,
    logits: bool,
    drop_overlap: bool,
    seed: int,
    as_json: bool,
    quiet: bool,
) -> int:
    """Attack saved confidences, or a CSV or npz of probabilities.

    A CSV has a column a class (p0, p1, ..., or named after the classes) and a label column; an .npz has
    `probabilities` [rows, classes] and `labels` [rows]. Null tests that need the inputs or the file are
    listed as not run: `edgeprivacy audit` runs them.

    \b
    Examples:
      edgeprivacy attack --members m-conf.npz --nonmembers n-conf.npz
      edgeprivacy attack --members m.csv --nonmembers n.csv --population p.csv --label class
      edgeprivacy attack --table outputs.csv --member-column member --label y --fail-if "auc>0.6"
    """
    from edgeprivacy.attacking import Sides, audit_confidences
    from edgeprivacy.cli.output import finish
    from edgeprivacy.probabilities import read_probabilities, read_probability_table

    def read(path: Path) -> Confidences:
        return read_probabilities(path, label=label, header=not no_header, logits=logits)

    if table is not None:
        if members is not None or nonmembers is not None:
            raise UsageError("--table stands instead of --members and --nonmembers")
        inside, outside = read_probability_table(
            table, member_column, label=label, header=not no_header, logits=logits
        )
        sources = {"members": table.name, "nonmembers": table.name}
        name = table.stem
    elif members is not None and nonmembers is not None:
        inside, outside = read(members), read(nonmembers)
        sources = {"members": members.name, "nonmembers": nonmembers.name}
        name = Path((inside.facts.get("artifact") or {}).get("file", members.name)).stem
    else:
        raise UsageError("there is nothing to attack", hint="give --members and --nonmembers, or --table")
    others = None
    if population is not None:
        others = read(population)
        sources["population"] = population.name
    audit, folder = audit_confidences(
        Sides(inside, outside, others),
        name,
        sources=sources,
        attacks=attacks or (),
        fail_if=fail_if,
        gate_on=cast("GateOn", gate_on or "point"),
        out=out,
        drop_overlap=drop_overlap,
        seed=seed,
    )
    return finish(audit, folder, as_json, quiet)
