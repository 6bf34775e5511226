"""Bytes of a recording's file."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pulse_edge.errors import RecordingError

# 90 minutes of 12 leads at 500 Hz. Reading takes up to four times as much memory.
MAX_BYTES = 64 << 20
# Opening a FIFO waits for its writer without `O_NONBLOCK`. Windows has neither, but `O_BINARY`.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def read_head(path: Path, size: int) -> bytes:
    """The first bytes of a regular file.

    Args:
        path: of the file.
        size: how many bytes, at most.

    Raises:
        RecordingError: it is no regular file, or cannot be read.
    """
    try:
        descriptor = os.open(path, _FLAGS)
        # The open file is checked, not its name: nobody can swap the two.
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise RecordingError(f"{path}: no such file; it is a folder, a pipe or a device")
        with os.fdopen(descriptor, "rb") as file:
            return file.read(size)
    except FileNotFoundError:
        raise RecordingError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise RecordingError(f"{path}: cannot be read ({reason})") from None


def read_all(path: Path) -> bytes:
    """All bytes of a regular file.

    Args:
        path: of the file.

    Raises:
        RecordingError: it is no regular file, cannot be read, or is over `MAX_BYTES`.
    """
    data = read_head(path, MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise RecordingError(
            f"{path}: over the {MAX_BYTES >> 20} MiB accepted; a page shows 10 s: store a part"
        )
    return data
