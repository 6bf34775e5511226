"""Small files that decide what is trusted: regular, of bounded size, not writable by everyone."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def read_guarded(path: Path, largest: int, kind: type[Exception], guard: bool = True) -> bytes:
    """All bytes of a small file.

    Args:
        path: of the file. Links are followed.
        largest: bytes.
        kind: of error.
        guard: refuse a file that every user of the machine may write to.

    Raises:
        FileNotFoundError: there is no such file.
        kind: it cannot be read, or is not such a file.
    """
    try:
        # O_NONBLOCK: a named pipe in its place must not be waited for.
        number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise kind(f"{path}: cannot be read ({reason(error)})") from None
    try:
        status = os.fstat(number)
        if not stat.S_ISREG(status.st_mode):
            raise kind(f"{path}: not a regular file")
        if guard:
            check_guarded(path, status, kind)
        with open(number, "rb", closefd=False) as file:
            raw = file.read(largest + 1)
    except OSError as error:
        raise kind(f"{path}: cannot be read ({reason(error)})") from None
    finally:
        os.close(number)
    if len(raw) > largest:
        raise kind(f"{path}: over {largest:,} bytes")
    return raw


def check_guarded(path: Path, status: os.stat_result, kind: type[Exception]) -> None:
    """Raise an error of a kind if every user of the machine may write to a file or folder."""
    if os.name == "posix" and status.st_mode & stat.S_IWOTH:
        raise kind(f"{path}: every user may write to it; run 'chmod o-w {path}'")


def reason(error: Exception) -> str:
    """What went wrong, without the path and the number."""
    return getattr(error, "strerror", None) or str(error)
