"""`edgeprivacy defenses`: what there is, what each governs and needs, and how one works."""

from __future__ import annotations

import inspect
import json
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edgeprivacy.defenses import Defense


@click.command(name="defenses")
@click.option("--explain", metavar="NAME", help="How one defense works; a composition's parts in turn.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(explain: str | None, as_json: bool) -> int:
    """List the defenses and controls: what each does and needs, its settings, version and paper.

    One is chosen with --defense NAME in `compress`, others stand beside it with --compare NAME; its settings
    stand in a recipe's [defense]. A plus composes defenses that govern different sides of the training.

    \b
    Examples:
      edgeprivacy defenses
      edgeprivacy defenses --explain selena
      edgeprivacy defenses --explain wemem:swmr+relaxloss
      edgeprivacy defenses --json
    """
    from edgeprivacy.defenses import defenses, make_defense

    if explain is not None:
        make_defense(explain)  # parts that do not go together are refused
        described = [_about(make_defense(name)) for name in explain.split("+")]
        if as_json:
            click.echo(json.dumps(described, indent=2, ensure_ascii=False))
        else:
            click.echo("\n\n".join(_explanation(entry) for entry in described))
        return 0
    entries = [_about(make_defense(name)) for name in defenses]
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


def _about(defense: Defense) -> dict[str, Any]:
    from edgeprivacy.defenses.composed import governed

    return {
        "name": defense.name,
        "title": defense.title,
        "role": "control" if defense.name == "none" else defense.role,
        "paper": defense.paper,
        "needs": defense.needs,
        "governs": governed(defense),
        "trains_the_original": defense.for_original() is not None,
        "settings": {field.name: getattr(defense, field.name) for field in fields(defense)},
        "version": defense.version,
        "method": inspect.cleandoc(type(defense).__doc__ or "").replace("Attributes:", "Settings:"),
    }


def _explanation(entry: dict[str, Any]) -> str:
    settings = ", ".join(f"{key}={value}" for key, value in entry["settings"].items())
    trains = "the original and every phase of compression" if entry["trains_the_original"] else "compression"
    lines = [
        f"{entry['name']}, version {entry['version']}: {entry['title']}",
        "",
        entry["method"],
        "",
        f"paper     {entry['paper']}",
        f"governs   {'; '.join(entry['governs']) or 'nothing'}",
        f"trains    {trains}",
        f"needs     {entry['needs']}",
        f"settings  {settings or 'none'}",
    ]
    return "\n".join(lines)
