"""`edgeprivacy attacks`: what there is."""

from __future__ import annotations

import json
from typing import Any

import click


@click.command(name="attacks")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(as_json: bool) -> int:
    """List the attacks: what each needs, its version and its paper.

    \b
    Examples:
      edgeprivacy attacks
      edgeprivacy attacks --json
    """
    from edgeprivacy.attacks import DEFAULT_ATTACKS, attacks

    entries: list[dict[str, Any]] = [
        {
            "name": name,
            "paper": attacks[name].paper,
            "threat_model": attacks[name].threat_model,
            "needs": attacks[name].needs.describe(),
            "version": attacks[name].version,
            "default": name in DEFAULT_ATTACKS,
        }
        for name in attacks
    ]
    if as_json:
        click.echo(json.dumps(entries, indent=2, ensure_ascii=False))
        return 0
    from edgeprivacy.cli.tables import print_table

    print_table(
        ("name", "needs", "version", "paper"),
        [
            (
                f"{e['name']}{'' if e['default'] else ' (not by default)'}",
                e["needs"],
                e["version"],
                e["paper"],
            )
            for e in entries
        ],
    )
    return 0
