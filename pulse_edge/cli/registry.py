"""The table of commands, and the group that they form."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module

import click

from pulse_edge.cli.completion import VARIABLE, complete_names
from pulse_edge.cli.terminal import show
from pulse_edge.errors import EXIT_CODES, CommandLineError

# In the order of a first use. A new command NAME is a module here that defines `NAME_command`, and
# a row. A command imports what is slow to import when it runs.
COMMANDS = (
    *(
        "sample",
        "ask",
        "chat",
        "panel",
        "draw",
        "info",
        "export",
        "build",
        "verify",
        "sign",
        "eval",
        "ecgbench",
        "bench",
        "fit",
    ),
    *("audit", "serve"),
)
NAME = "pulse-edge"
LEVELS = ("debug", "info", "warning")
CODES = "\b\nExit codes:\n" + "\n".join(
    f"  {code:>3}  {meaning}" for code, meaning in EXIT_CODES.items()
)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=CODES,
)
@click.version_option(package_name=NAME, prog_name=NAME)
@click.option(
    "--log",
    "level",
    type=click.Choice(LEVELS),
    help="Show on stderr what the runtime logs, from this level on; it has no clinical text.",
)
def cli(level: str | None) -> None:
    """Answer questions about ECG images, on a device.

    Research use only: not a medical device.
    """
    if level is not None:
        _show_log(level)


class StderrLog(logging.Handler):
    """Shows log records on stderr, a line each."""

    def emit(self, record: logging.LogRecord) -> None:
        """Show one, unless it is the server's, which shows its own."""
        if not record.name.startswith("pulse_edge.serve"):
            show(f"{record.levelname.lower()}: {record.getMessage()}", err=True)


def _show_log(level: str) -> None:
    from pulse_edge.log import LOGGER

    LOGGER.handlers = [StderrLog()]
    LOGGER.setLevel(level.upper())


for _name in COMMANDS:
    cli.add_command(getattr(import_module(f"pulse_edge.cli.{_name}"), f"{_name}_command"), _name)


def run_command(args: Sequence[str] | None) -> int:
    """Run a command.

    Args:
        args: see `main`.

    Returns:
        The exit code of a command that did what it was to do.

    Raises:
        CommandLineError: the arguments make no sense.
        KeyboardInterrupt: Ctrl-C, also at a prompt.
    """
    _silence_libraries()
    try:
        if VARIABLE in os.environ:
            complete_names(cli)
            cli.main(prog_name=NAME)
        with cli.make_context(NAME, list(sys.argv[1:] if args is None else args)) as context:
            cli.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.Abort:
        raise KeyboardInterrupt from None
    except click.ClickException as error:
        raise CommandLineError(_with_help(error)) from None
    return 0


def _with_help(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    command = context.command_path if context else NAME
    return f"{error.format_message().rstrip('.')}; see {command} --help"


def _silence_libraries() -> None:
    """Keep warnings and logs of libraries off the terminal: what matters is an error, or a note.

    They quote what is in files, unescaped.
    """
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    logging.getLogger().addHandler(logging.NullHandler())
