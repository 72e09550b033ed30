"""`edgeprivacy devices`: what is attached, and what each needs."""

from __future__ import annotations

import json

import click

from edgeprivacy.cli.device_options import adb_option


@click.command(name="devices")
@click.option("--device", metavar="adb:SERIAL", help="The device to clean.  [default: all that are ready]")
@click.option("--clean", is_flag=True, help="Remove the runners and libraries that are kept on the devices.")
@adb_option
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(device: str | None, clean: bool, as_json: bool) -> int:
    """List attached Android devices, whether files can be run on them, and the next step where not.

    Everything that this tool puts on a device lies in /data/local/tmp/edgeprivacy: the folder of a run, gone
    with it, and runners that are kept for the next. It never asks for root and never ends adb's server.

    Exit code 0 if a device is ready, 4 if none is or adb is missing.

    \b
    Examples:
      edgeprivacy devices
      edgeprivacy devices --json
      edgeprivacy devices --clean
      edgeprivacy devices --clean --device adb:SERIAL
    """
    from edgeprivacy.device_runner.adb.client import Adb
    from edgeprivacy.device_runner.adb.listing import list_devices
    from edgeprivacy.errors import EXIT_PASS, EXIT_RUNTIME

    adb = Adb()
    if clean:
        return _clean(adb, device, as_json)
    listed = list_devices(adb)
    ready = any(entry.runs for entry in listed)
    code = EXIT_PASS if ready else EXIT_RUNTIME
    if as_json:
        click.echo(json.dumps([entry.to_dict() for entry in listed], indent=2))
        return code
    if not listed:
        click.echo(
            "no device is attached: plug one in with USB debugging on, or: adb connect HOST:PORT", err=True
        )
        return code
    from edgeprivacy.cli.tables import print_table
    from edgeprivacy.report.words import clean as cleaned
    from edgeprivacy.report.words import size

    print_table(
        ("serial", "state", "model", "Android", "ABI", "free", "runs", "next step"),
        [
            (
                cleaned(entry.serial),
                entry.state,
                cleaned(entry.model) or "–",
                cleaned(entry.android) or "–",
                cleaned(entry.abi) or "–",
                "–" if entry.free_bytes is None else size(entry.free_bytes),
                " ".join(f".{name}" for name in entry.runs) or "–",
                cleaned(entry.next_step) or f"--device adb:{cleaned(entry.serial)}",
            )
            for entry in listed
        ],
    )
    return code


def _clean(adb: object, device: str | None, as_json: bool) -> int:
    from edgeprivacy.device_runner.adb.client import Adb
    from edgeprivacy.device_runner.adb.devices import choose
    from edgeprivacy.device_runner.adb.place import clean
    from edgeprivacy.errors import UsageError
    from edgeprivacy.report.words import size

    assert isinstance(adb, Adb)
    kind, _, serial = (device or "adb:all").partition(":")
    if kind != "adb":
        raise UsageError("only a device can be cleaned", got=device, allowed="adb, adb:SERIAL, adb:all")
    freed = {serial: clean(adb.of(serial)) for serial in choose(adb, [serial])}
    if as_json:
        click.echo(json.dumps({"freed_bytes": freed}, indent=2))
    else:
        for name, count in freed.items():
            click.echo(f"{name}: {size(count)} freed")
    return 0
