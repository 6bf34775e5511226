"""Files of a directory, each opened once, and read, hashed and mapped through that opening.

A name may lead to another file a moment later; an open file stays the same. What another process
writes into it is kept away by a lease (fcntl(2), F_SETLEASE) while the file is mapped, or does not
matter because the bytes were copied before they were hashed.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import os
import signal
import stat
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulse_edge.errors import BundleError
from pulse_edge.system import available_memory

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

Bytes = NDArray[np.uint8]
BLOCK = 1 << 19  # bytes read or hashed at a time: they fit a core's cache, 4 MB take 1/8 longer
ROOM = 2.5  # a private copy is made if this many times its size is free: engines pack weights anew
TRIM_BYTES = 128 << 20  # of files that may be in the process's memory before a map is dropped
TRIM_SECONDS = 0.05  # between two looks; ONNX Runtime packs up to 50 MB a core in it
STATM = Path("/proc/self/statm")

_HERE = getattr(os, "O_BINARY", 0)
_FILE = os.O_RDONLY | _HERE | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_FOLDER = os.O_RDONLY | _HERE | getattr(os, "O_DIRECTORY", 0)
_BY_FOLDER = os.open in os.supports_dir_fd and hasattr(os, "O_DIRECTORY")


class Folder:
    """A directory, opened: it stays the same when its name is given to another.

    Raises:
        OSError: there is no such directory, or it cannot be opened.
    """

    def __init__(self, path: Path, parent: Folder | None = None) -> None:
        """`parent`: the folder that it lies in, which is then not looked up again."""
        self.path = path
        self.number = -1
        if _BY_FOLDER:
            within = parent.number if parent else -1
            nofollow = getattr(os, "O_NOFOLLOW", 0)
            self.number = (
                os.open(path.name, _FOLDER | nofollow, dir_fd=within)
                if within >= 0
                else os.open(path, _FOLDER)
            )
            weakref.finalize(self, os.close, self.number)
        elif not path.is_dir():
            raise NotADirectoryError(f"{path}: not a directory")

    def names(self) -> list[str]:
        """Names of the entries, sorted."""
        return sorted(os.listdir(self.number if self.number >= 0 else self.path))

    def status(self, name: str) -> os.stat_result:
        """Of an entry, which may be a link. Raises `OSError`."""
        if self.number >= 0:
            return os.stat(name, dir_fd=self.number, follow_symlinks=False)
        return os.lstat(self.path / name)

    def descriptor(self, name: str) -> int:
        """Open an entry for reading. Raises `OSError`, also for a symbolic link."""
        if self.number >= 0:
            return os.open(name, _FILE, dir_fd=self.number)
        if (self.path / name).is_symlink():
            raise OSError("a symbolic link")
        return os.open(self.path / name, _FILE)

    def is_where_it_was(self) -> bool:
        """Whether its name still leads to it."""
        if self.number < 0:
            return True
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self.number))
        except OSError:
            return False

    @property
    def pinned(self) -> Path:
        """A path of this directory that libraries can open, wherever its name leads by now."""
        here = Path(f"/proc/self/fd/{self.number}")
        return here if self.number >= 0 and here.exists() else self.path


class Content:
    """All bytes of a file in memory, writable without effect on the file.

    Attributes:
        memory: the map itself.
        bytes: uint8 [size]; all of them only until `settle`.
        private: they are a copy, which nothing that happens to the file can change. Else they are
            the file's own, mapped.
    """

    def __init__(self, file: OpenedFile, private: bool) -> None:
        self.private = private
        self._lock = threading.RLock()  # the collector may give back inside `settle`
        self._unused: list[tuple[int, int]] | None = []  # spans to give back; None: at once
        self._arrays: Counter[tuple[int, int]] = Counter()  # how many there are of each span
        if private or file.size == 0:
            # Without ACCESS_COPY it would be shared memory, which the system keeps when it is
            # given back.
            self.memory = mmap.mmap(-1, max(1, file.size), access=mmap.ACCESS_COPY)
            if hasattr(mmap, "MADV_HUGEPAGE"):
                with suppress(OSError):  # kernels without huge pages refuse
                    self.memory.madvise(mmap.MADV_HUGEPAGE)
            file.read_into(memoryview(self.memory)[: file.size])
        else:
            self.memory = mmap.mmap(file.number, file.size, access=mmap.ACCESS_COPY)
        self.bytes: Bytes = np.frombuffer(self.memory, np.uint8, file.size)

    def array(self, offset: int, dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
        """A view of the bytes from `offset` on.

        The memory of a private copy is given back with the last view of the last array that has a
        byte of it, so nothing else may read the same bytes after `settle`.
        """
        size = math.prod(shape) * np.dtype(dtype).itemsize
        span = np.frombuffer(self.memory, np.uint8, size, offset)
        if self.private and hasattr(mmap, "MADV_DONTNEED"):
            with self._lock:
                self._arrays[offset, size] += 1
            # Every view of `span` keeps it alive, because numpy makes it their base.
            weakref.finalize(span, self._give_back, offset, size).atexit = False
        array: NDArray[Any] = span.view(dtype).reshape(shape)
        return array

    @contextmanager
    def trimmed(self) -> Iterator[None]:
        """Keep few of a mapped file's pages in the process while the body reads them.

        A map is dropped whenever files have taken `TRIM_BYTES` more of the memory, however fast the
        body reads. The pages stay in the file cache, from where they come back when they are read
        again. Without this, a process that packs its weights anew would count them twice at its
        peak.
        """
        if self.private or not hasattr(mmap, "MADV_DONTNEED"):
            yield
            return
        done = threading.Event()

        def trim() -> None:
            least = resident_file_bytes()
            while not done.wait(TRIM_SECONDS):
                now = resident_file_bytes()
                least = min(least, now)
                if now - least >= TRIM_BYTES or now == 0:
                    self.memory.madvise(mmap.MADV_DONTNEED)

        trimmer = threading.Thread(target=trim, daemon=True)
        trimmer.start()
        try:
            yield
        finally:
            done.set()
            trimmer.join()

    def settle(self) -> None:
        """From here on only arrays are read. The memory of those that are gone is given back."""
        with self._lock:
            unused = self._unused or []
            self._unused = None
            for offset, size in unused:
                self._drop(offset, size)

    def _give_back(self, offset: int, size: int) -> None:
        """An array is gone."""
        with self._lock:
            self._arrays[offset, size] -= 1
            if self._unused is None:
                self._drop(offset, size)
            else:
                self._unused.append((offset, size))

    def _drop(self, offset: int, size: int) -> None:
        """Drop the whole pages of a span, if no array has a byte of them. The lock is held."""
        begin = -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE
        end = (offset + size) // mmap.PAGESIZE * mmap.PAGESIZE
        needed = any(
            count and first < end and begin < first + length
            for (first, length), count in self._arrays.items()
        )
        if end > begin and not needed:
            self.memory.madvise(mmap.MADV_DONTNEED, begin, end - begin)


@dataclass(frozen=True)
class AddedIndex:
    """The index of a folder of `plans/`, as it lies there.

    Attributes:
        folder: opened; its name is the folder's.
        name: of the index.
        content: its bytes.
    """

    folder: Folder
    name: str
    content: bytes


class OpenedFile:
    """A regular file, opened once.

    Attributes:
        path: its name, for messages.
        number: its descriptor.
        size: in bytes, when it was opened.

    Raises:
        BundleError: it is missing, not a regular file, or cannot be opened.
    """

    def __init__(self, folder: Folder, name: str) -> None:
        self.path = folder.path / name
        self._folder = folder
        self._name = name
        try:
            self.number = folder.descriptor(name)
        except FileNotFoundError:
            raise BundleError(f"{self.path}: missing") from None
        except OSError as error:
            why = "a symbolic link" if os.path.islink(self.path) else error.strerror or error
            raise BundleError(f"{self.path}: cannot be read ({why})") from None
        weakref.finalize(self, os.close, self.number)
        self._status = os.fstat(self.number)
        if not stat.S_ISREG(self._status.st_mode):  # reading a pipe or a device might never end
            raise BundleError(f"{self.path}: not a regular file")
        self.size = self._status.st_size
        self._lock = threading.Lock()
        self._holders = 0
        self.leased = False
        self._content: Content | None = None

    def read_into(self, view: memoryview, offset: int = 0) -> None:
        """Fill `view` with the bytes from `offset` on.

        Raises:
            BundleError: there are fewer, or reading fails.
        """
        done = 0
        while done < len(view):
            try:
                count = os.preadv(self.number, [view[done : done + BLOCK]], offset + done)
            except OSError as error:
                message = f"{self.path}: cannot be read ({error.strerror})"
                raise BundleError(message) from None
            if count == 0:
                raise BundleError(f"{self.path}: became shorter while it was read")
            done += count

    def read(self) -> bytes:
        """All bytes. Raises `BundleError`."""
        content = bytearray(self.size)
        self.read_into(memoryview(content))
        return bytes(content)

    @contextmanager
    def steady(self) -> Iterator[None]:
        """Keep the file as it was when it was opened, while the body runs.

        With a lease, a process that opens the file for writing waits until the body has ended. The
        system grants it to the file's owner. Without one, a change is noticed afterwards.

        Raises:
            BundleError: the file was changed since it was opened.
        """
        with self._lock:
            self._holders += 1
            if self._holders == 1:
                self.leased = take_lease(self.number)
        try:
            yield
        finally:
            with self._lock:
                self._holders -= 1
                unchanged = self._unchanged()
                if self._holders == 0:
                    if self._content is not None:
                        self._content.settle()
                    self._content = None
                    _release_lease(self.number, self.leased)
                    self.leased = False
        if not unchanged:
            raise BundleError(f"{self.path}: was changed while it was loaded; load it again")

    def _unchanged(self) -> bool:
        """Whether the bytes are as they were. The lock is held."""
        now = os.fstat(self.number)
        before = self._status
        same = (now.st_size, now.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
        if self.leased and fcntl.fcntl(self.number, fcntl.F_GETLEASE) == fcntl.F_RDLCK:
            return same  # nobody has tried to write
        # The system breaks a lease after a time (45 s by default), so a writer that waits for it
        # may not have waited to the end.
        return same and now.st_ctime_ns == before.st_ctime_ns

    def content(self) -> Content:
        """All bytes in memory; the same for all who ask inside one `steady`.

        They are mapped under a lease. Without one they are copied if the memory allows it.

        Raises:
            BundleError: reading fails.
        """
        with self._lock:
            if self._holders == 0:
                raise RuntimeError("content() outside steady()")
            if self._content is None:
                private = not self.leased and self.size * ROOM < available_memory()
                self._content = Content(self, private)
            return self._content

    def array(self, offset: int, dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
        """A copy of an array in the file; use it inside `steady`.

        Raises:
            BundleError: reading fails.
        """
        # Reading takes less time than copying out of a map, whose pages come one by one.
        copy = np.empty(shape, dtype)
        self.read_into(copy.reshape(-1).view(np.uint8).data, offset)
        return copy

    def sha256(self, step: Callable[[int], None] | None = None) -> str:
        """SHA-256 of the bytes that `content` gives inside the same `steady`, in hex.

        Under a lease the file is read, because reading takes less time than mapping, and no memory.

        Args:
            step: is called with the bytes of each block.
        """
        content = self.content()
        if content.private:
            return sha256_content(content.bytes, step)
        digest = hashlib.sha256()
        block = memoryview(bytearray(BLOCK))
        for start in range(0, self.size, BLOCK):
            part = block[: min(BLOCK, self.size - start)]
            self.read_into(part, start)
            digest.update(part)
            if step:
                step(len(part))
        return digest.hexdigest()

    def drop_cached(self) -> None:
        """Let go of the file's bytes in memory, where the system can."""
        content = self._content
        if content is not None and not content.private and hasattr(mmap, "MADV_DONTNEED"):
            content.memory.madvise(mmap.MADV_DONTNEED)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self.number, 0, 0, os.POSIX_FADV_DONTNEED)

    def is_where_it_was(self) -> bool:
        """Whether its name has led to it ever since it was opened.

        Renaming and removing a file change its ctime.
        """
        try:
            named = self._folder.status(self._name)
        except OSError:
            return False
        before = self._status
        fields = ("st_dev", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")
        return all(getattr(named, field) == getattr(before, field) for field in fields)


def sha256_content(content: Bytes, step: Callable[[int], None] | None = None) -> str:
    """SHA-256 in hex. `step` is called with the bytes of each block."""
    digest = hashlib.sha256()
    for start in range(0, len(content), BLOCK):
        block = content[start : start + BLOCK]
        digest.update(block.data)
        if step:
            step(len(block))
    return digest.hexdigest()


def resident_file_bytes() -> int:
    """Bytes of mapped files that lie in this process's memory; 0 if the system does not tell."""
    try:
        pages = int(STATM.read_text().split()[2])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * mmap.PAGESIZE


def take_lease(number: int) -> bool:
    """Whether the system grants a lease on an open file: see `OpenedFile.steady`."""
    if fcntl is None or not hasattr(fcntl, "F_SETLEASE"):
        return False
    try:
        # The default signal of a broken lease, SIGIO, ends a process; SIGURG is ignored.
        fcntl.fcntl(number, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(number, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError:  # not the owner, open for writing elsewhere, or not on this file system
        return False
    return True


def _release_lease(number: int, leased: bool) -> None:
    if leased:
        with suppress(OSError):
            fcntl.fcntl(number, fcntl.F_SETLEASE, fcntl.F_UNLCK)
