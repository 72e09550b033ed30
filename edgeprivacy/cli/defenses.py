"""`edgeprivacy defenses`: what there is."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import click


@click.command(name="defenses")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(as_json: bool) -> int:
    """List the defenses and controls: what each does and needs, its settings, version and paper.

    \b
    Examples:
      edgeprivacy defenses
      edgeprivacy defenses --json
    """
    from edgeprivacy.defenses import defenses, make_defense

    entries: list[dict[str, Any]] = []
    for name in defenses:
        defense = make_defense(name)
        entries.append(
            {
                "name": name,
                "title": defense.title,
                "role": "control" if name == "none" else defense.role,
                "paper": defense.paper,
                "needs": defense.needs,
                "settings": {field.name: getattr(defense, field.name) for field in fields(defense)},
                "version": defense.version,
            }
        )
    if as_json:
        click.echo(json.dumps(entries, indent=2, ensure_ascii=False))
        return 0
    from edgeprivacy.cli.tables import print_table

    print_table(
        ("name", "what it does", "needs", "settings", "version", "paper"),
        [
            (
                e["name"],
                e["title"],
                e["needs"],
                ", ".join(f"{key}={value}" for key, value in e["settings"].items()) or "-",
                e["version"],
                e["paper"],
            )
            for e in entries
        ],
    )
    return 0
