"""The entry point.

It takes over the signals before anything else is imported, so that Ctrl-C is one line at any time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pulse_edge.cli.signals import signals

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run a command, print its error in one line, exit with the error's code.

    Args:
        args: the command's arguments. None takes those of the process, whose signals are then
            taken over, too.
    """
    if args is None:
        signals.install()
    from pulse_edge.cli.process import run_process

    run_process(args)
