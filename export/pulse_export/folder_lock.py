"""A lock on a folder, which ends with its process.

Elsewhere it is flock(2) on the folder itself. Windows opens no folders, so there a file in the
folder is locked, and disappears with the lock.
"""

from __future__ import annotations

import errno
import os
from importlib import import_module
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = ".pulse-edge.lock"


class FolderLock:
    """The lock of a folder; not taken yet.

    Args:
        folder: that exists.

    Raises:
        OSError: the folder cannot be opened, or without flock written to.
    """

    def __init__(self, folder: Path) -> None:
        self._file: Path | None = None
        if fcntl is not None:
            self._handle = os.open(folder, os.O_RDONLY)
            return
        self._file = folder / LOCK_FILE
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_TEMPORARY", 0)  # gone with its last handle
        self._handle = os.open(self._file, flags, 0o600)

    def take(self) -> bool:
        """Take the lock without waiting. Returns whether this worked.

        Raises:
            OSError: there are no locks in this file system, or this system.
        """
        if self._file is None:
            try:
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True
        try:
            msvcrt = import_module("msvcrt")
        except ImportError:
            raise OSError(errno.ENOTSUP, "this system has no locks") from None
        try:
            msvcrt.locking(self._handle, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True

    def release(self) -> None:
        """Let the lock go, if it was taken. Called once."""
        if self._file is not None and not hasattr(os, "O_TEMPORARY"):
            self._file.unlink(missing_ok=True)
        os.close(self._handle)
