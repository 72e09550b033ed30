"""`edgeprivacy defenses`: what there is, what each governs, needs and costs, and how one works."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edgeprivacy.defenses import Defense

_WIDTH = 118


@click.command(name="defenses")
@click.option("--explain", metavar="NAME", help="How one defense works; a composition's parts in turn.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(explain: str | None, as_json: bool) -> int:
    """List the defenses and controls: what each does, needs and costs, its settings, version and paper.

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
        ("name", "what it does", "needs", "cost", "settings", "version", "paper"),
        [
            (
                e["name"],
                e["title"],
                e["needs"],
                e["cost"],
                _with_values(e["settings"]) or "-",
                e["version"],
                e["paper"],
            )
            for e in entries
        ],
    )
    return 0


def _about(defense: Defense) -> dict[str, Any]:
    from edgeprivacy.defenses.composed import governed

    method, meanings = _described(type(defense))
    return {
        "name": defense.name,
        "title": defense.title,
        "role": "control" if defense.name == "none" else defense.role,
        "paper": defense.paper,
        "needs": defense.needs,
        "cost": defense.cost,
        "governs": governed(defense),
        "trains_the_original": defense.for_original() is not None,
        "settings": {field.name: getattr(defense, field.name) for field in fields(defense)},
        "meanings": meanings,
        "version": defense.version,
        "method": method,
    }


def _described(of: type[Defense]) -> tuple[str, dict[str, str]]:
    """The paragraphs of a class, a line each; and what its settings mean, those of its bases among them: by
    "one" or "one, another"."""
    method, told, meanings = "", set[str](), dict[str, str]()
    for base in of.__mro__[:-1]:
        text, _, attributes = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")
        if base is of:
            method = "\n".join(map(_in_one_line, text.strip().split("\n\n")))
        names = {field.name for field in fields(base)}
        for entry in re.split(r"\n    (?=\S)", inspect.cleandoc(attributes).replace("\n", "\n    ")):
            of_names, _, meaning = " ".join(entry.split()).partition(": ")
            key = [name for name in of_names.split(", ") if name in names - told]
            if key:
                meanings[", ".join(key)] = meaning
                told |= set(key)
    return method, meanings


def _in_one_line(paragraph: str) -> str:
    """A paragraph without its line breaks; of a list each of its entries."""
    if not paragraph.startswith("- "):
        return " ".join(paragraph.split())
    return "\n".join("- " + " ".join(entry.split()) for entry in paragraph[2:].split("\n- "))


def _with_values(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={_short(value)}" for key, value in settings.items())


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _explanation(entry: dict[str, Any]) -> str:
    settings = entry["settings"]
    original = " (original=True)" if "original" in settings else ""
    trains = f"the original{original} and compression" if entry["trains_the_original"] else "compression"
    facts = {
        "paper": entry["paper"],
        "trains": f"{trains}; governs {'; '.join(entry['governs']) or 'nothing'}",
        "needs": entry["needs"],
        "cost": entry["cost"],
    }
    # In the order in which a recipe may give them, not in that of the classes that they come from.
    order = list(settings)
    meanings = sorted(entry["meanings"].items(), key=lambda item: order.index(item[0].split(", ")[0]))
    meanings = [(key, meaning) for key, meaning in meanings if key != "original"]
    values = {key: _with_values({name: settings[name] for name in key.split(", ")}) for key, _ in meanings}
    width = max(map(len, values.values()), default=0)
    lines = [f"{entry['name']}, version {entry['version']}: {entry['title']}"]
    for paragraph in entry["method"].splitlines():
        lines += textwrap.wrap(paragraph, _WIDTH, subsequent_indent="  " if paragraph[:2] == "- " else "")
    for name, told in facts.items():
        lines += textwrap.wrap(f"{name:<9} {told}", _WIDTH, subsequent_indent=10 * " ")
    for key, meaning in meanings:
        lines.append(f"{values[key]:<{width}}  {meaning}")
    return "\n".join(lines)
