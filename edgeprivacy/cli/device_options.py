"""--device and what belongs to it, for the commands that run model files."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def adb_option(command: F) -> F:
    """--adb: the binary, for this process and those that it starts."""

    def remember(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
        if value is not None:
            os.environ["ADB"] = value

    return click.option(
        "--adb",
        metavar="FILE",
        expose_value=False,
        callback=remember,
        help="The adb binary.  [default: $ADB, PATH, $ANDROID_HOME, or that of adbutils]",
    )(command)


def device_options(several: bool = True) -> Callable[[F], F]:
    """--device (repeatable where several devices may be asked for) and --adb.

    The value is a tuple, empty where nothing is asked for; without `several` a name or None.
    """

    def decorate(command: F) -> F:
        names = "host, host:logits, native, adb, adb:SERIAL" + (" or adb:all. Repeatable" if several else "")
        about = f"Where the files are run: {names}.  [default: host]"
        option = click.option("--device", multiple=several, metavar="DEVICE", help=about)
        return option(adb_option(command))

    return decorate
