"""`edgeprivacy attacks`: what there is, what each costs, and how one works."""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edgeprivacy.attacks import Attack


@click.command(name="attacks")
@click.option("--explain", metavar="NAME", help="How one attack works, or what a set holds.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(explain: str | None, as_json: bool) -> int:
    """List the attacks: what each needs and costs, its version and its paper; and the sets of them.

    Attacks and sets are chosen with --attacks NAME,NAME in `compress`, `audit` and `attack`.

    \b
    Examples:
      edgeprivacy attacks
      edgeprivacy attacks --explain lira.online
      edgeprivacy attacks --explain wemem10
      edgeprivacy attacks --json
    """
    from edgeprivacy.attacks import attacks
    from edgeprivacy.attacks.sets import describe_set, expand, members, set_names

    if explain is not None:
        chosen = expand([explain])
        described = [_about(attacks[name]) for name in chosen]
        if as_json:
            click.echo(json.dumps(described, indent=2, ensure_ascii=False))
        elif explain in set_names():
            click.echo(f"{explain}: {describe_set(explain)}\n")
            _table(described)
        else:
            click.echo(_explanation(described[0]))
        return 0
    entries = [_about(attacks[name]) for name in attacks]
    if as_json:
        click.echo(json.dumps(entries, indent=2, ensure_ascii=False))
        return 0
    _table(entries)
    click.echo("\nSets:")
    for name in set_names():
        click.echo(f"  {name:<9} {len(members(name)):>2} attacks: {describe_set(name)}")
    return 0


def _about(attack: Attack) -> dict[str, Any]:
    from edgeprivacy.attacks import DEFAULT_ATTACKS
    from edgeprivacy.attacks.sets import members, set_names

    return {
        "name": attack.name,
        "paper": attack.paper,
        "threat_model": attack.threat_model,
        "needs": attack.needs.describe(),
        "cost": {
            "queries": attack.queries,
            "shadows": attack.needs.shadows or (1 if attack.needs.calibration else 0),
            "versions": attack.needs.versions,
        },
        "version": attack.version,
        "default": attack.name in DEFAULT_ATTACKS,
        "sets": [name for name in set_names() if attack.name in members(name)],
        "formula": inspect.cleandoc(type(attack).__doc__ or ""),
    }


def _cost(entry: dict[str, Any]) -> str:
    """ "1 query a row, 4+ shadows"."""
    cost = entry["cost"]
    parts = [f"{cost['queries']} quer{'y' if cost['queries'] == 1 else 'ies'} a row"]
    if cost["versions"] > 1:
        parts.append(f"of {cost['versions']}+ files")
    if cost["shadows"]:
        parts.append(f"{cost['shadows']}+ shadow{'s' if cost['shadows'] > 1 else ''}")
    return ", ".join(parts)


def _table(entries: list[dict[str, Any]]) -> None:
    from edgeprivacy.cli.tables import print_table

    print_table(
        ("name", "needs", "queries", "shadows", "files", "version", "paper"),
        [
            (
                f"{entry['name']}{' *' if entry['default'] else ''}",
                entry["needs"],
                str(entry["cost"]["queries"]),
                str(entry["cost"]["shadows"] or "–"),
                str(entry["cost"]["versions"]),
                entry["version"],
                entry["paper"],
            )
            for entry in entries
        ],
    )
    click.echo("* run where no attack is named")


def _explanation(entry: dict[str, Any]) -> str:
    lines = [
        f"{entry['name']}, version {entry['version']}",
        "",
        entry["formula"],
        "",
        f"paper         {entry['paper']}",
        f"attacker has  {entry['threat_model']}",
        f"needs         {entry['needs']}",
        f"cost          {_cost(entry)}",
        f"in sets       {', '.join(entry['sets']) or 'none'}{', and by default' if entry['default'] else ''}",
    ]
    return "\n".join(lines)
