"""`edgeprivacy inspect`: what a model file really holds."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgeprivacy.converters import ArtifactFacts, DelegateFacts, TensorFacts, read_facts


@click.command("inspect")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the facts as a JSON list, one entry a file.")
def command(files: tuple[Path, ...], as_json: bool) -> None:
    """Show what model files really hold: types, scales, operators, sizes, sparsity and clusters by layer.

    Files may be .tflite, .pte (ExecuTorch) or .ptl (PyTorch Mobile). Everything is read back from the bytes
    of the file; nothing is run, and neither TensorFlow nor torch is needed.

    \b
    Examples:
      edgeprivacy inspect model.tflite
      edgeprivacy inspect model.pte model.ptl
      edgeprivacy inspect artifacts/*.tflite
      edgeprivacy inspect model.tflite --json | jq '.[0].weights[].sparsity'
    """
    facts = [(path, read_facts(path)) for path in files]
    if as_json:
        click.echo(json.dumps([{"file": str(path), **fact.to_dict()} for path, fact in facts], indent=2))
        return
    # A pipe or a log has no width of its own: do not fold hashes and shapes there.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    for path, fact in facts:
        console.print(_page(path, fact))


def _page(path: Path, facts: ArtifactFacts) -> RenderableType:
    ratio = facts.gzip_bytes / facts.size_bytes
    head = Table.grid(padding=(0, 2))
    head.add_column(style="bold")
    head.add_column(overflow="fold")
    rows = [
        ("container", facts.container),
        ("sha256", facts.sha256),
        ("size", f"{facts.size_bytes:,} bytes, gzipped {facts.gzip_bytes:,} ({ratio:.0%})"),
        *(("input", _tensor(tensor)) for tensor in facts.inputs),
        *(("output", _tensor(tensor)) for tensor in facts.outputs),
        ("output grid", _grid(facts)),
        *([("batch", f"at most {facts.batch_capacity:,} rows")] if facts.batch_capacity else []),
        ("operators", ", ".join(f"{name} ×{count}" for name, count in facts.operators.items()) or "none"),
        *(("delegate", _delegate(delegate)) for delegate in facts.delegates),
        *([("outside", ", ".join(facts.outside))] if facts.outside else []),
        *(("note", note) for note in facts.notes),
    ]
    for name, value in rows:
        head.add_row(name, Text(value))
    return Group(Text(str(path), style="bold underline"), head, _layers(facts), Text())


def _layers(facts: ArtifactFacts) -> RenderableType:
    if not facts.weights:
        return Text("no weighted layers")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("#", justify="right")
    table.add_column("layer", no_wrap=True)
    table.add_column("shape", no_wrap=True)
    table.add_column("dtype", no_wrap=True)
    for title in ("zeros", "distinct", "per channel", "scales"):
        table.add_column(title, justify="right", no_wrap=True)
    for number, weight in enumerate(facts.weights):
        table.add_row(
            str(number),
            weight.operator,
            "×".join(map(str, weight.shape)),
            weight.dtype,
            f"{weight.sparsity:.2%}",
            f"{weight.distinct:,}",
            f"≤ {weight.distinct_per_channel:,}",
            str(weight.scales) if weight.scales else "-",
        )
    return table


def _delegate(delegate: DelegateFacts) -> str:
    parts = sum(delegate.operators.values())
    inside = f"{parts} operators" if parts else "operators cannot be read"
    return f"{delegate.id}, payload {delegate.payload_bytes:,} bytes, {inside}"


def _tensor(tensor: TensorFacts) -> str:
    if tensor.dtype == "unknown" or not tensor.shape:
        return f"{tensor.dtype}, shape not in the file, {tensor.name[:60]}"
    shape = ", ".join("any" if size == -1 else str(size) for size in tensor.shape)
    quantized = "" if tensor.scale is None else f", scale {tensor.scale:.9g}, zero point {tensor.zero_point}"
    return f"{tensor.dtype} [{shape}]{quantized}, {tensor.name[:60]}"


def _grid(facts: ArtifactFacts) -> str:
    grid = facts.output_grid
    if grid is None:
        return "none (float)"
    return f"step {grid.scale:.9g} from zero point {grid.zero_point}, on the {grid.on}"
