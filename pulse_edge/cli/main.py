"""The group of all commands.

It is the one place where errors become messages and exit codes.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from pulse_edge.errors import PulseEdgeError

# The registry, in the order of a first use. A new command NAME is a module here that defines
# `NAME_command`, and a row. A command imports what is slow to import when it runs.
COMMANDS = ("ask", "chat", "draw", "info", "export", "build", "verify", "eval", "bench", "fit")

INTERRUPTED = 130  # 128 + SIGINT, as shells have it


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="pulse-edge", prog_name="pulse-edge")
def cli() -> None:
    """Answer questions about ECG images, on a device.

    Research use only: not a medical device.
    """


for _name in COMMANDS:
    cli.add_command(getattr(import_module(f"pulse_edge.cli.{_name}"), f"{_name}_command"), _name)


def main(args: Sequence[str] | None = None) -> None:
    """Entry point: runs a command, prints its error in one line, exits with the error's code.

    Args:
        args: the command's arguments; None takes those of the process.
    """
    for stream in (sys.stdout, sys.stderr):
        # Print an escape for a character that the terminal's encoding lacks, instead of failing.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = cli.main(args, prog_name="pulse-edge", standalone_mode=False) or 0
    except PulseEdgeError as error:
        click.echo(f"error: {' '.join(str(error).splitlines())}", err=True)
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        code = INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has left. Point stdout elsewhere, or Python's flush at exit
        # would raise again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)
