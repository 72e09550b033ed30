"""`edgeprivacy doctor`: what this machine can do, and what is missing."""

from __future__ import annotations

import json

import click

from edgeprivacy.errors import EXIT_PASS, EXIT_RUNTIME


@click.command(name="doctor")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(as_json: bool) -> int:
    """Check Python, the packages of each extra, the interpreters, the cache folder and the machine.

    Exit code 0 if a model file of any kind can be run here, 4 if not.

    \b
    Examples:
      edgeprivacy doctor
      edgeprivacy doctor --json
    """
    from edgeprivacy.doctor import examine

    health = examine()
    code = EXIT_PASS if health.works else EXIT_RUNTIME
    if as_json:
        click.echo(json.dumps(health.to_dict(), indent=2))
        return code
    from edgeprivacy.cli.tables import print_table

    print_table(
        ("check", "state", "detail"),
        [
            (check.name, check.state, "; ".join(part for part in (check.detail, check.hint) if part))
            for check in health.checks
        ],
    )
    print_table(
        ("extra", "state", "for", "packages"),
        [
            (
                extra.name,
                extra.state,
                extra.about,
                "\n".join(
                    [
                        *(f"{entry.name} {entry.detail}" for entry in extra.packages),
                        *([extra.hint] if extra.hint else []),
                    ]
                ),
            )
            for extra in health.extras
        ],
    )
    if not health.works:
        click.echo(
            "no model file can be run here: pip install 'edgeprivacy[litert]' for .tflite, "
            "'edgeprivacy[executorch]' for .pte and .ptl",
            err=True,
        )
    return code
