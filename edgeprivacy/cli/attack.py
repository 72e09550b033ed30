"""`edgeprivacy attack`: attack outputs that were collected already."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from edgeprivacy.cli.options import gate_options, output_options, records_option, rows_options, split_list

if TYPE_CHECKING:
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
@click.option(
    "--shadows",
    type=click.Path(path_type=Path),
    help="Outputs of models trained as the target was, on other halves of the same rows: .npz with "
    "probabilities [shadows, rows, classes] and members [shadows, rows], rows as in --table, or members then "
    "non-members; with row_ids in any order.",
)
@click.option("--attacks", callback=split_list, help="Attacks or sets of them, with commas between.")
@gate_options
@click.option(
    "--out", type=click.Path(path_type=Path), help="Output folder.  [default: edgeprivacy-out/attack-NAME]"
)
@rows_options
@records_option
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
    shadows: Path | None,
    attacks: tuple[str, ...] | None,
    fail_if: tuple[str, ...],
    gate_on: str | None,
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
    """Attack saved confidences, or a CSV or npz of probabilities.

    A CSV has a column a class (p0, p1, ..., or named after the classes) and a label column; an .npz has
    `probabilities` [rows, classes] and `labels` [rows]. With --shadows, attacks that need them run; an .npz
    given as --table, with `probabilities` [models, rows, classes] and `members` [models, rows], holds the
    target and its shadows in one. Answers to a population stand in either as `population` [models, rows,
    classes]. Null tests that need the inputs or the file are listed as not run: `edgeprivacy audit` runs
    them.

    \b
    Examples:
      edgeprivacy attack --members m-conf.npz --nonmembers n-conf.npz
      edgeprivacy attack --members m.csv --nonmembers n.csv --population p.csv --label class
      edgeprivacy attack --table outputs.csv --member-column member --label y --fail-if "auc>0.6"
      edgeprivacy attack --members m-conf.npz --nonmembers n-conf.npz --shadows s.npz --attacks lira.online
    """
    from edgeprivacy.attack_inputs import read_sides
    from edgeprivacy.attacking import audit_confidences
    from edgeprivacy.cli.output import finish

    sides, name, sources = read_sides(
        members,
        nonmembers,
        table,
        population=population,
        shadows=shadows,
        member_column=member_column,
        label=label,
        header=not no_header,
        logits=logits,
    )
    audit, folder = audit_confidences(
        sides,
        name,
        sources=sources,
        attacks=attacks or (),
        fail_if=fail_if,
        gate_on=cast("GateOn", gate_on or "point"),
        out=out,
        records=records,
        drop_overlap=drop_overlap,
        seed=seed,
    )
    return finish(audit, folder, as_json, quiet)
