"""A command as a process: how it ended becomes one line and an exit code."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from pulse_edge.cli.shortage import EXIT_CODE, lacks_memory, prepare_for_limit, shortage
from pulse_edge.cli.signals import Terminated, signals
from pulse_edge.cli.terminal import close_output, open_streams, show_error, show_text
from pulse_edge.errors import OutputError, PulseEdgeError, ReaderLeftError


def run_process(args: Sequence[str] | None) -> NoReturn:
    """Run a command, print its error in one line, exit with the error's code.

    Args:
        args: see `main`.
    """
    open_streams()
    try:
        try:
            code = _run(args)
        finally:
            signals.finish()
    except BaseException as error:
        code = _report_end(error)
        if args is None and lacks_memory(error):
            close_output()
            os._exit(code)  # libraries that were loaded by half crash when they are taken down
    if not close_output() and code == 0:
        show_error("error: standard output could not take everything")
        code = OutputError.exit_code
    sys.exit(code)


def _run(args: Sequence[str] | None) -> int:
    prepare_for_limit()
    from pulse_edge.cli.registry import run_command

    signals.begin()
    return run_command(args)


def _report_end(error: BaseException) -> int:
    """Say how the command ended. Returns the exit code."""
    try:
        return _exit_code(error)
    except MemoryError:
        os.write(2, b"error: not enough memory\n")
        return EXIT_CODE


def _exit_code(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt | Terminated):
        if sys.stderr.isatty():
            show_text("", err=True)  # the terminal has shown ^C
        show_error(signals.word)
        return signals.code
    if isinstance(error, ReaderLeftError) or _broken_pipe(error):
        return ReaderLeftError.exit_code
    lack = shortage(error)
    if isinstance(error, PulseEdgeError):
        show_error(f"error: {lack or error}")
        return error.exit_code
    if lack:
        show_error(f"error: {lack}")
        return EXIT_CODE
    if isinstance(error, OSError):
        show_error(f"error: {_of_system(error)}")
        return PulseEdgeError.exit_code
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(bool(error.code))
    _show_traceback(error)
    return PulseEdgeError.exit_code


def _broken_pipe(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno == errno.EPIPE


def _of_system(error: OSError) -> str:
    why = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {why}" if error.filename is not None else why


def _show_traceback(error: BaseException) -> None:
    """Show a mistake of ours in full: nobody can report it otherwise."""
    import traceback

    show_text("".join(traceback.format_exception(error)), end="", err=True)
