"""Files from outside: regular ones only, of bounded size; and such as only their owner may change.

A name may lead to another file a moment later, so the open file is checked, never its name.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

# Opening a FIFO waits for its writer without `O_NONBLOCK`. Windows has neither, but `O_BINARY`.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class NotRegularError(OSError):
    """A directory, a pipe, a device or a socket, where a file is expected."""


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file.

    Args:
        path: of the file; symbolic links are followed.

    Raises:
        OSError: it cannot be opened. `NotRegularError` if it is no regular file.
        ValueError: the path holds a NUL.
    """
    descriptor = os.open(path, _FLAGS)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NotRegularError(errno.EINVAL, "it is not a regular file")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_upto(file: BinaryIO, most: int) -> bytes:
    """Bytes of a file object, to its end or up to a number of them.

    Args:
        file: a pipe or a socket may give fewer bytes at a time than it is asked for.
        most: bytes that are read at most.

    Raises:
        TypeError: the object gives text.
        OSError, ValueError: it cannot be read.
    """
    parts: list[bytes] = []
    left = most
    while left > 0:
        part: object = file.read(left)
        if not isinstance(part, bytes | bytearray):
            raise TypeError("the file object returns no bytes")
        if not part:
            break
        parts.append(bytes(part))
        left -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def read_guarded(path: Path, largest: int, kind: type[Exception]) -> bytes:
    """All bytes of a small file that decides what is trusted.

    Args:
        path: of the file. Links are followed.
        largest: bytes.
        kind: of error.

    Raises:
        FileNotFoundError: there is no such file.
        kind: it cannot be read, is no such file, or others than its owner may write to it.
    """
    try:
        file = open_regular(path)
    except FileNotFoundError:
        raise
    except NotRegularError:
        raise kind(f"{path}: not a regular file") from None
    except (OSError, ValueError) as error:
        raise kind(f"{path}: cannot be read ({reason(error)})") from None
    with file:
        check_guarded(path, os.fstat(file.fileno()), kind)
        try:
            raw = read_upto(file, largest + 1)
        except OSError as error:
            raise kind(f"{path}: cannot be read ({reason(error)})") from None
    if len(raw) > largest:
        raise kind(f"{path}: over {largest:,} bytes")
    return raw


def check_guarded(path: Path, status: os.stat_result, kind: type[Exception]) -> None:
    """Raise an error of a kind if others than its owner may write to a file or folder.

    Access lists (acl(5)) show in the group's bits, too.
    """
    if os.name != "posix" or not (others := status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
        return
    who, remedy = {
        stat.S_IWGRP: ("its group", "g-w"),
        stat.S_IWOTH: ("every user", "o-w"),
    }.get(others, ("every user", "go-w"))
    raise kind(f"{path}: {who} may write to it; run 'chmod {remedy} {path}'")


def reason(error: Exception) -> str:
    """What went wrong, without the path and the number."""
    return getattr(error, "strerror", None) or str(error)
