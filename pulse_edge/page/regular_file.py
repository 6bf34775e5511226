"""Bytes of a regular file, or of a file object, up to a limit."""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

from pulse_edge.errors import ImageError
from pulse_edge.page.limits import MAX_FILE_BYTES

# Opening a FIFO waits for its writer without `O_NONBLOCK`. Windows has neither, but `O_BINARY`.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def open_regular_file(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file, unless it is a directory, a pipe, a device or a socket.

    The open file is checked, not its name: nobody can swap the two.

    Args:
        path: of the file; symbolic links are followed.

    Raises:
        OSError: it cannot be opened.
        ImageError: it is no regular file, or it is empty, as the files of `/proc` are.
        ValueError: the path holds a NUL.
    """
    descriptor = os.open(path, _FLAGS)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("cannot be read (it is not a regular file)")
        if status.st_size == 0:
            raise ImageError("the image is empty (0 bytes)")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_limited(file: BinaryIO) -> bytes:
    """All bytes of a file object, if they are not more than `MAX_FILE_BYTES`.

    Raises:
        ImageError: they are more, or the object returns text.
        OSError, ValueError: it cannot be read.
    """
    parts: list[bytes] = []
    left = MAX_FILE_BYTES + 1
    while left > 0:
        part: object = file.read(left)  # a pipe or a socket gives fewer bytes than it is asked for
        if not isinstance(part, bytes | bytearray):
            raise ImageError("the image's file object returns text; open it in binary mode ('rb')")
        if not part:
            break
        parts.append(bytes(part))
        left -= len(part)
    data = parts[0] if len(parts) == 1 else b"".join(parts)
    check_file_size(len(data))
    return data


def check_file_size(size: int) -> None:
    """Refuse a file that is empty or over `MAX_FILE_BYTES`.

    Args:
        size: in bytes; of a file that was not read to its end, more than the limit.

    Raises:
        ImageError: the size is not accepted.
    """
    if size == 0:
        raise ImageError("the image is empty (0 bytes)")
    if size > MAX_FILE_BYTES:
        raise ImageError(
            f"more than the {MAX_FILE_BYTES:,} bytes accepted; save it compressed, or scale it down"
        )
