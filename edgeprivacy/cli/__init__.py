"""The command line: one file a command, imported only when it is called."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from edgeprivacy import __version__
from edgeprivacy.errors import EXIT_INTERRUPTED, EXIT_RUNTIME, EdgePrivacyError, did_you_mean

COMMANDS = {
    "compress": "Train, compress under a defense, export, attack the file, report.",
    "audit": "Attack a model file somebody else built.",
    "tune": "Search for the defense and the compression that leak least within a budget.",
    "collect": "Run a model file and save its confidences.",
    "attack": "Attack saved confidences, or a CSV or npz of probabilities.",
    "report": "Render an audit.json again.",
    "inspect": "Show what a model file really holds.",
    "devices": "List Android devices, and what each needs.",
    "init": "Write a commented recipe.",
    "attacks": "List the attacks: paper, needs, version.",
    "defenses": "List the defenses: paper, needs, version.",
    "doctor": "Check this machine.",
}


class LazyGroup(click.Group):
    """A group that imports `edgeprivacy.cli.NAME` when the command NAME is used; help costs no import."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = import_module(f"edgeprivacy.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            hint = did_you_mean(args[0], COMMANDS) or f"commands: {', '.join(COMMANDS)}"
            ctx.fail(f"no command '{args[0]}'; {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done or gate passed, 1 gate failed, 2 usage or data, 3 inconclusive, "
    "4 device or runtime failure, 130 interrupted.",
)
@click.version_option(__version__, prog_name="edgeprivacy")
def cli() -> None:
    """Compress models for phones without betraying their training data, and attack the file that ships.

    \b
    Examples:
      edgeprivacy compress --backend tflite --defense wemem
      edgeprivacy audit model.tflite --members m.npz --nonmembers n.npz
      edgeprivacy inspect model.tflite
    """


def _one_line(error: click.ClickException) -> str:
    """What click has to say, with the command whose help says more."""
    text = " ".join(error.format_message().split())
    context = error.ctx if isinstance(error, click.UsageError) else None
    return text if context is None else f"{text.rstrip('.')}; see: {context.command_path} --help"


def main(argv: list[str] | None = None) -> None:
    """Run the command line; every known error ends in one line on stderr and its documented exit code."""
    try:
        code = cli.main(args=argv, prog_name="edgeprivacy", standalone_mode=False)
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except click.Abort:
        print("interrupted; finished work is kept and the same command resumes", file=sys.stderr)
        code = EXIT_INTERRUPTED
    except click.ClickException as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # click 8.2 and later: no mistake, help was asked for
            error.show()
        else:
            print(f"error: {_one_line(error)}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        print("interrupted; finished work is kept and the same command resumes", file=sys.stderr)
        code = EXIT_INTERRUPTED
    except EdgePrivacyError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    except BrokenPipeError:
        sys.stderr.close()
        code = EXIT_RUNTIME
    except OSError as error:
        print(f"error: {error.strerror or error}: {error.filename or 'the system'}", file=sys.stderr)
        code = EXIT_RUNTIME
    sys.exit(code if isinstance(code, int) else 0)
