"""Files that a device added to a bundle, in a folder of `plans/` with an index that seals them.

Each file is opened once. What was hashed is what is given out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from pulse_edge.bundle.bundle import Bundle, altered
from pulse_edge.bundle.manifest import FileEntry
from pulse_edge.bundle.opened import AddedIndex, Folder, OpenedFile
from pulse_edge.errors import BundleError, EngineError

PLANS = "plans"
LARGEST_INDEX = 1 << 24  # bytes; an index of 2,000 kernels takes 400 kB


class SealedFiles:
    """The files of one folder below `plans/`.

    Args:
        bundle: that the folder lies in.
        name: of the folder.
        again: what to do about a damaged file.
    """

    def __init__(self, bundle: Bundle, name: str, again: str) -> None:
        self._bundle = bundle
        self._again = again
        self._opened: dict[str, OpenedFile] = {}
        self._indexes: dict[str, AddedIndex] = {}
        self._folder: Folder | None = None
        try:
            plans = Folder(bundle.path / PLANS, bundle.files.folder)
            self._folder = Folder(plans.path / name, plans)
        except FileNotFoundError:
            pass
        except OSError as error:
            path = bundle.path / PLANS / name
            raise EngineError(f"{path}: cannot be read ({error.strerror}); {again}") from None

    def index(self, name: str) -> bytes | None:
        """The index's bytes; None if there is none.

        Raises:
            EngineError: it cannot be read.
            TrustError: this load runs only what a trusted key has signed, and none has signed it.
        """
        index = self.added(name)
        if index is None:
            return None
        for guard in self._bundle.files.guards:
            guard(self._bundle, index)
        return index.content

    def added(self, name: str) -> AddedIndex | None:
        """The index, the same at each call, whoever signed it; None if there is none.

        Raises:
            EngineError: it cannot be read.
        """
        if name in self._indexes:
            return self._indexes[name]
        if self._folder is None or name not in self._folder.names():
            return None
        try:
            file = OpenedFile(self._folder, name)
            if file.size > LARGEST_INDEX:
                raise BundleError(f"{file.path}: {file.size:,} bytes, over {LARGEST_INDEX:,}")
            self._indexes[name] = AddedIndex(self._folder, name, file.read())
        except BundleError as error:
            raise EngineError(f"{error}; {self._again}") from None
        return self._indexes[name]

    def check(self, entries: Iterable[FileEntry], index: str) -> None:
        """Open listed files and check their sizes and hashes. Raises `EngineError`."""
        for entry in entries:
            file = self._open(entry, index)
            with file.steady():
                digest = file.sha256()
            if digest != entry.sha256:
                raise EngineError(f"{altered(file.path, index)}; {self._again}")
            self._opened[entry.path] = file

    def read(self, entries: Iterable[FileEntry], index: str) -> dict[str, bytes]:
        """Listed files' bytes by name, checked. Raises `EngineError`."""
        contents = {}
        for entry in entries:
            file = self._open(entry, index)
            content = file.read()
            if hashlib.sha256(content).hexdigest() != entry.sha256:
                raise EngineError(f"{altered(file.path, index)}; {self._again}")
            contents[entry.path] = content
        return contents

    def file(self, name: str) -> OpenedFile:
        """A file that was checked."""
        return self._opened[name]

    def _open(self, entry: FileEntry, index: str) -> OpenedFile:
        plain = entry.path.isprintable() and "/" not in entry.path and entry.path not in ("", "..")
        if not plain or self._folder is None:
            problem = f"{index} lists {entry.path!r}, which is not a plain file name"
            raise EngineError(f"{problem}; {self._again}")
        try:
            file = OpenedFile(self._folder, entry.path)
        except BundleError as error:
            raise EngineError(f"{error}; {self._again}") from None
        if file.size != entry.size:
            problem = f"{file.path}: {file.size} bytes, {index} says {entry.size}"
            raise EngineError(f"{problem}; {self._again}")
        return file
