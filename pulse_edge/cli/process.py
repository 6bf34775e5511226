"""A command as a process: how it ended becomes one line and an exit code."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from pulse_edge.cli.failure import show_failure, wants_json
from pulse_edge.cli.shortage import EXIT_CODE, lacks_memory, prepare_for_limit, shortage
from pulse_edge.cli.signals import Terminated, signals
from pulse_edge.cli.terminal import close_output, open_streams, show_error, show_text
from pulse_edge.errors import OutputError, PulseEdgeError, ReaderLeftError, StuckEngineError


def run_process(args: Sequence[str] | None) -> NoReturn:
    """Run a command, print its error in one line, exit with the error's code.

    Args:
        args: see `main`.
    """
    open_streams()
    as_json = wants_json(sys.argv[1:] if args is None else args)
    try:
        try:
            code = _run(args)
        finally:
            signals.finish()
    except BaseException as error:
        code = _report_end(error, as_json)
        if args is None and (lacks_memory(error) or isinstance(error, StuckEngineError)):
            close_output()
            # Libraries that were loaded by half crash when they are taken down, and a call that
            # hangs would be waited for.
            os._exit(code)
    if not close_output() and code == 0:
        code = OutputError.exit_code
        message = "standard output could not take everything"
        show_failure(message, code, OutputError.__name__, as_json)
    sys.exit(code)


def _run(args: Sequence[str] | None) -> int:
    prepare_for_limit()
    from pulse_edge.cli.registry import run_command

    signals.begin()
    return run_command(args)


def _report_end(error: BaseException, as_json: bool) -> int:
    """Say how the command ended. Returns the exit code."""
    try:
        return _exit_code(error, as_json)
    except MemoryError:
        os.write(2, b"error: not enough memory\n")
        return EXIT_CODE


def _exit_code(error: BaseException, as_json: bool) -> int:
    if isinstance(error, KeyboardInterrupt | Terminated):
        if sys.stderr.isatty():
            show_text("", err=True)  # the terminal has shown ^C
        show_error(signals.word)
        return signals.code
    if isinstance(error, ReaderLeftError) or _broken_pipe(error):
        return ReaderLeftError.exit_code
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(bool(error.code))
    lack = shortage(error)
    if isinstance(error, PulseEdgeError):
        code, message = error.exit_code, lack or str(error)
    elif lack:
        code, message = EXIT_CODE, lack
    elif isinstance(error, OSError):
        code, message = PulseEdgeError.exit_code, _of_system(error)
    else:
        _show_traceback(error)
        code, message = PulseEdgeError.exit_code, f"a mistake of pulse-edge: {error!r}"
        if not as_json:
            return code
    show_failure(message, code, type(error).__name__, as_json)
    return code


def _broken_pipe(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno == errno.EPIPE


def _of_system(error: OSError) -> str:
    why = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {why}" if error.filename is not None else why


def _show_traceback(error: BaseException) -> None:
    """Show a mistake of ours in full: nobody can report it otherwise."""
    import traceback

    show_text("".join(traceback.format_exception(error)), end="", err=True)
