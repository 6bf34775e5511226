"""All that the command prints, escaped so that it cannot steer a terminal.

Names of files and tensors, fields of manifests and answers come from elsewhere. An escape sequence
in them could rewrite the screen, and a character that reverses text could forge a line.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from pulse_edge.errors import OutputError, ReaderLeftError

LAYOUT = "\n\t"  # control characters that are legitimate in texts of several lines
SPACES = "\u00a0\u202f\u3000"  # of French and Chinese; Python calls them not printable
LINE_BREAKS = re.compile(r"\s*[\r\n]+\s*")


class Output(io.TextIOWrapper):
    """Standard output. What it raises is a `PulseEdgeError`, whoever prints."""

    def write(self, text: str) -> int:
        """As in the base class. Raises `OutputError`."""
        with _as_output_error():
            return super().write(text)

    def flush(self) -> None:
        """As in the base class. Raises `OutputError`."""
        with _as_output_error():
            super().flush()


@contextmanager
def _as_output_error() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise ReaderLeftError("the reader of standard output has left") from None
    except OSError as error:
        why = error.strerror or str(error)
        raise OutputError(
            f"standard output cannot be written to ({why}); write to another place"
        ) from None


def printable(text: str, keep: str = "") -> str:
    r"""`text` with an escape such as `\x1b` for each character that is not to be shown.

    These are control, format (of direction, and without width), private and unassigned characters,
    lone surrogates, and separators of lines. One character is one escape, so that a sequence cannot
    be split over two calls.

    Args:
        text: from anywhere.
        keep: characters to leave as they are.
    """
    if text.isprintable():
        return text
    kept = keep + SPACES
    return "".join(c if c.isprintable() or c in kept else _escape(c) for c in text)


def _escape(character: str) -> str:
    if character == "\n":
        return r"\n"
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def one_line(message: str) -> str:
    """A message in one line: line breaks, which libraries put into theirs, become spaces."""
    return printable(LINE_BREAKS.sub(" ", message.strip()))


def show(line: str = "", dim: bool = False, err: bool = False) -> None:
    """Print one line, whatever it contains.

    Args:
        line: a line break in it is escaped.
        dim: print it dimmed, on a terminal.
        err: print it to stderr.

    Raises:
        OutputError: stdout cannot be written to.
    """
    if err:
        _complain(f"{printable(line)}\n")
    else:
        _print(f"{_dimmed(printable(line)) if dim else printable(line)}\n")


def show_text(text: str, end: str = "\n", err: bool = False) -> None:
    """Print a text of any number of lines, or a piece of one.

    Args:
        text: its line breaks and tabs are kept.
        end: is printed after it.
        err: print it to stderr.

    Raises:
        OutputError: stdout cannot be written to.
    """
    (_complain if err else _print)(printable(text, LAYOUT) + end)


def show_json(record: Any, indent: int | None = None) -> None:
    """Print a record as JSON, in ASCII.

    Raises:
        OutputError: stdout cannot be written to.
    """
    import json

    # DEL is ASCII, so `dumps` leaves it. JSON holds it inside of strings only.
    _print(json.dumps(record, indent=indent).replace("\x7f", r"\u007f") + "\n")


def show_error(message: str) -> None:
    """Print what went wrong, in one line on stderr."""
    _complain(f"{one_line(message)}\n")


def rewrite_line(text: str) -> None:
    """Replace the current line of the terminal that stderr is."""
    _complain(f"\r\033[K{printable(text)}")


def open_streams() -> None:
    """Make stdin, stdout and stderr usable, also where they are closed.

    A closed one is opened on the null device: its number must not go to the next file that is
    opened, into which a library could then print. Writing to a closed stdout fails, as it should;
    a closed stdin is at its end; a closed stderr takes everything.
    """
    _occupy(0, os.O_RDONLY)
    _occupy(1, os.O_RDONLY)
    _occupy(2, os.O_WRONLY)
    sys.stdin = sys.stdin or os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)
    if sys.stdout is None:
        sys.stdout = Output(os.fdopen(1, "wb", closefd=False), encoding="utf-8")
    elif sys.stdout is sys.__stdout__ and isinstance(sys.stdout, io.TextIOWrapper):
        # An escape for a character that the terminal's encoding lacks, instead of a failure.
        encoding = sys.stdout.encoding
        sys.stdout = Output(sys.stdout.buffer, encoding=encoding, errors="backslashreplace")
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def _occupy(handle: int, flags: int) -> None:
    try:
        os.fstat(handle)
    except OSError:
        opened = os.open(os.devnull, flags)
        if opened != handle:
            os.dup2(opened, handle)
            os.close(opened)


def close_output() -> bool:
    """Flush stdout and stderr, so that nothing is left to fail when the interpreter exits.

    Returns:
        Whether stdout took everything.
    """
    complete = _flushed(sys.stdout, 1)
    _flushed(sys.stderr, 2)
    return complete


def _flushed(stream: TextIO, handle: int) -> bool:
    try:
        stream.flush()
        return True
    except (OSError, ValueError, OutputError):
        # What is left in the buffer goes nowhere: a failure at exit would print a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), handle)
        return False


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _complain(text: str) -> None:
    """Print to stderr. Where that fails there is no place to say so, and the work goes on."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        return


def _dimmed(text: str) -> str:
    colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ and sys.platform != "win32"
    return f"\033[2m{text}\033[0m" if colours else text
