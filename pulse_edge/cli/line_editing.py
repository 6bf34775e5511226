"""Line editing at the prompt of `pulse-edge chat`, by Python's own `readline`.

Questions are clinical text, so the history stays in memory unless the user names a file for it.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType

from pulse_edge.errors import PulseEdgeError

LONGEST_HISTORY = 1000  # lines that a file keeps


@contextmanager
def line_editing(commands: Iterable[str], history: str | None) -> Iterator[None]:
    """Edit the lines that `input` reads in the block, with arrow keys, history and Tab.

    A Python without `readline`, as on Windows, reads plain lines.

    Args:
        commands: what Tab completes a leading "/" to. After one, it completes names of files.
        history: file of earlier lines, which gets the new ones; None for none.

    Raises:
        PulseEdgeError: the file cannot be read or written, or there is no `readline` to use it.
    """
    readline = _readline()
    if readline is None:
        if history is not None:
            raise PulseEdgeError("this Python has no readline; leave out --history")
        yield
        return
    readline.set_completer(_Completer(readline, tuple(commands)))
    readline.set_completer_delims(" \t\n")
    libedit = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")
    readline.clear_history()
    if history is not None:
        _read_history(readline, history)
    try:
        yield
    finally:
        if history is not None:
            _write_history(readline, history)


def _readline() -> ModuleType | None:
    try:
        import readline
    except ImportError:
        return None
    return readline


class _Completer:
    """What `readline` calls for the n-th completion of a word, until it gets None."""

    def __init__(self, readline: ModuleType, commands: tuple[str, ...]) -> None:
        self._readline = readline
        self._commands = commands

    def __call__(self, word: str, number: int) -> str | None:
        found = self._matches(word)
        return found[number] if number < len(found) else None

    def _matches(self, word: str) -> list[str]:
        line: str = self._readline.get_line_buffer()
        if " " not in line.lstrip():
            return [f"{name} " for name in self._commands if word and name.startswith(word)]
        if not line.lstrip().startswith("/"):
            return []
        names = glob.glob(f"{glob.escape(os.path.expanduser(word))}*")
        return sorted(f"{name}/" if os.path.isdir(name) else name for name in names)


def _read_history(readline: ModuleType, path: str) -> None:
    try:
        # For its owner alone. Opening it for writing shows now whether the end can write it.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        readline.read_history_file(path)
    except OSError as error:
        why = error.strerror or error
        raise PulseEdgeError(f"{path}: cannot keep a history ({why}); name another file") from None


def _write_history(readline: ModuleType, path: str) -> None:
    readline.set_history_length(LONGEST_HISTORY)
    try:
        readline.write_history_file(path)
    except OSError as error:
        why = error.strerror or error
        raise PulseEdgeError(f"{path}: the history cannot be written ({why})") from None
