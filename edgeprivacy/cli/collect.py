"""`edgeprivacy collect`: run a model file and keep what it answers."""

from __future__ import annotations

import json
from pathlib import Path

import click

from edgeprivacy.cli.device_options import device_options
from edgeprivacy.cli.options import rows_options


@click.command(name="collect")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option(
    "--data",
    required=True,
    metavar="DATA",
    help="Rows: FILE.npz (x, y, optional ids), FILE.csv, an image folder, or FILE.py:FUNCTION.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The .npz file to write.")
@click.option("--part", default="rows", show_default=True, help="`part` that a factory is called with.")
@rows_options
@click.option("--logits", is_flag=True, help="The file answers logits: apply the softmax.")
@device_options(several=False)
@click.option("--json", "as_json", is_flag=True, help="Print the facts of the run as JSON.")
@click.option("--quiet", "-q", is_flag=True, help="Print nothing.")
def command(
    file: Path,
    data: str,
    out: Path,
    part: str,
    label: str | None,
    no_header: bool,
    logits: bool,
    device: str | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Run a model file and save its confidences, with the facts of the run.

    `edgeprivacy attack` reads the saved file. No TensorFlow is needed (pip install 'edgeprivacy[litert]').

    \b
    Examples:
      edgeprivacy collect model.tflite --data members.npz --out m-conf.npz
      edgeprivacy collect model.tflite --data rows.csv --label class --out conf.npz
      edgeprivacy collect model.pte --data members.npz --out m-conf.npz --device adb:SERIAL
      edgeprivacy collect model.tflite --data data.py:load --part members --out m-conf.npz --json
    """
    from edgeprivacy.collecting import collect

    confidences = collect(
        file, data, part=part, label=label, header=not no_header, logits=logits, device=device or "host"
    )
    confidences.save(out)
    facts = {"file": str(out), "rows": len(confidences.labels), **confidences.facts}
    if as_json:
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
    elif not quiet:
        from edgeprivacy.cli.tables import print_table
        from edgeprivacy.report.words import flatten

        print_table(("fact", "value"), list(flatten(facts)))
    return 0
