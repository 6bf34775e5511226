"""Opens a bundle, which `pulse_export` writes, and checks it.

A bundle is a directory that holds `manifest.json` and the files it lists. The manifest is frozen
dataclasses as canonical JSON. A manifest that differs from its own canonical form by a byte, a
field that is unknown or missing, a listed file whose size or SHA-256 differs, and an entry that is
not listed are refused. Nothing is pickled, nothing fetched.

Each file is opened once. What was hashed is what runs, whatever happens to the directory meanwhile.
"""

from __future__ import annotations

import hashlib
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from pulse_edge.bundle.external_data import GraphTensor, graph_tensors
from pulse_edge.bundle.limits import LARGEST_MANIFEST, WEIGHTS
from pulse_edge.bundle.manifest import (
    EMBEDDINGS,
    MANIFEST,
    FileEntry,
    Manifest,
    loads,
)
from pulse_edge.bundle.opened import AddedIndex, Folder, OpenedFile
from pulse_edge.errors import BundleError
from pulse_edge.progress import Progress

# Folders of a bundle that the manifest does not list, because a device or a signer adds to them.
# What lies there has seals or signatures of its own.
ADDED = ("plans", "signatures")
AGAIN = "copy or export the bundle again"


def sha256_file(path: Path, progress: Callable[[int], None] | None = None) -> str:
    """The file's SHA-256 in hex. `progress` is called with the bytes of each block."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(1 << 22):
            digest.update(block)
            if progress:
                progress(len(block))
    return digest.hexdigest()


class BundleFiles:
    """The files of a bundle's directory, each opened when it is first asked for.

    Raises:
        BundleError: there is no such directory.
    """

    def __init__(self, path: Path) -> None:
        try:
            self.folder = Folder(path)
        except OSError:
            raise BundleError(
                f"no bundle at {path}: not a directory; "
                f"make one with 'pulse-edge export CHECKPOINT {path}'"
            ) from None
        self._lock = threading.Lock()
        self._files: dict[str, OpenedFile] = {}
        self._read: dict[str, bytes] = {}
        # Asked about the index of what a device has added, before anything of it runs: each
        # returns the id of the key that signed it, or raises `TrustError`. Filled by `check_trust`.
        self.guards: list[Callable[[Bundle, AddedIndex], str]] = []

    def opened(self, name: str) -> OpenedFile:
        """A file. Raises `BundleError` if it cannot be opened."""
        with self._lock:
            if name not in self._files:
                self._files[name] = OpenedFile(self.folder, name)
            return self._files[name]

    def read(self, name: str) -> bytes:
        """A file's bytes, the same at each call. Raises `BundleError`."""
        file = self.opened(name)
        with self._lock:
            if name not in self._read:
                self._read[name] = file.read()
            return self._read[name]

    @contextmanager
    def steady(self, names: Iterable[str]) -> Iterator[None]:
        """See `OpenedFile.steady`; for several files."""
        with ExitStack() as stack:
            for name in names:
                stack.enter_context(self.opened(name).steady())
            yield


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its directory, its manifest, and its files."""

    path: Path
    manifest: Manifest
    files: BundleFiles = field(default=None, repr=False, compare=False)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.files is None:
            object.__setattr__(self, "files", BundleFiles(self.path))

    @property
    def digest(self) -> str:
        """The manifest's seal: names the whole bundle, down to the last byte."""
        return self.manifest.seal

    def file(self, name: str) -> Path:
        """Where a file of the bundle lies, for messages and for tools that take a path."""
        return self.path / name

    def read(self, name: str) -> bytes:
        """The bytes of a file that were hashed. Raises `BundleError`."""
        return self.files.read(name)

    def tensors(self, graph: str) -> tuple[GraphTensor, ...]:
        """A graph's tensors that lie in other files.

        Raises:
            BundleError: one lies outside the files that the manifest lists.
        """
        where = str(self.file(graph))
        tensors = graph_tensors(self.read(graph), where)
        sizes = {f.path: f.size for f in self.manifest.files if f.path.endswith(WEIGHTS)}
        for tensor in tensors:
            if tensor.location not in sizes:
                problem = f"its tensor {tensor.name!r:.60} lies in {tensor.location!r:.60}"
                raise BundleError(f"{where}: {problem}, which {MANIFEST} does not list; {AGAIN}")
            if tensor.offset + tensor.size > sizes[tensor.location]:
                problem = f"its tensor {tensor.name!r:.60} exceeds {tensor.location}"
                raise BundleError(f"{where}: {problem}; {AGAIN}")
        return tensors

    @property
    def weights(self) -> tuple[str, ...]:
        """Names of the files that hold only numbers."""
        return tuple(f.path for f in self.manifest.files if f.path.endswith(WEIGHTS))

    @property
    def size(self) -> int:
        """Bytes of all listed files."""
        return sum(f.size for f in self.manifest.files)


def unsealed_bundle(path: Path, manifest: Manifest) -> Bundle:
    """A bundle that is being written: what is there is listed without being hashed."""
    files = tuple(FileEntry(p.name, p.stat().st_size, "") for p in sorted(path.iterdir()))
    return Bundle(path, replace(manifest, files=files))


def open_bundle(
    path: str | Path, check_hashes: bool = True, progress: Progress | None = None
) -> Bundle:
    """Open a bundle and check it: the manifest, and presence, size and SHA-256 of every file.

    Args:
        check_hashes: False leaves out the SHA-256, which reads every byte.
        progress: called from several threads with ("checking", bytes since the last call, bytes in
            all).

    Raises:
        BundleError: the bundle is incomplete or damaged. It names the file and says what to do.
    """
    with open_while_hashing(path, check_hashes, progress) as bundle:
        return bundle


@contextmanager
def open_while_hashing(
    path: str | Path, check_hashes: bool = True, progress: Progress | None = None
) -> Iterator[Bundle]:
    """Open a bundle as `open_bundle` does, but hash the weights while the body runs.

    The body makes an engine of the weights, which takes as long as hashing them. Files that are
    parsed have been checked when the body starts. Leaving it raises `BundleError` if the weights
    were altered, also if the body failed because of that.
    """
    bundle = _open(Path(path))
    files = bundle.files
    left = threading.Event()

    def step(done: int) -> None:
        if left.is_set():
            raise InterruptedError
        if progress:
            progress("checking", done, bundle.size)

    # hashlib releases the GIL
    with files.steady(bundle.weights), ThreadPoolExecutor(max_workers=4) as pool:
        hashed = [
            (f, pool.submit(_altered, bundle, f, step))
            for f in bundle.manifest.files
            if check_hashes
        ]
        try:
            _raise_first(problem for entry, problem in hashed if not entry.path.endswith(WEIGHTS))
            for graph in bundle.manifest.graphs:
                bundle.tensors(graph)
            yield bundle
        except Exception:
            _raise_first(problem for _, problem in hashed)
            raise
        except BaseException:  # Ctrl-C
            left.set()
            raise
        _raise_first(problem for _, problem in hashed)


def _altered(bundle: Bundle, entry: FileEntry, step: Callable[[int], None]) -> str | None:
    """Whether a listed file's bytes were altered, in words; None if not.

    `step` is called with the bytes of each block, and stops the hashing with `InterruptedError`.
    """
    file = bundle.files.opened(entry.path)
    try:
        if entry.path.endswith(WEIGHTS):
            digest = file.sha256(step)
        else:
            digest = hashlib.sha256(bundle.read(entry.path)).hexdigest()
            step(entry.size)
    except InterruptedError:
        return None
    except BundleError as error:
        return str(error)
    return None if digest == entry.sha256 else altered(file.path, MANIFEST)


def altered(path: Path, index: str) -> str:
    """That a file is not the one whose SHA-256 `index` has."""
    return f"{path}: altered (its SHA-256 is not the one in {index})"


def _raise_first(problems: Iterable[Future[str | None]]) -> None:
    problem = next(filter(None, (p.result() for p in problems)), None)
    if problem:
        raise BundleError(f"{problem}; {AGAIN}") from None


def _open(path: Path) -> Bundle:
    """A bundle whose manifest and directory were checked, and whose hashes were not."""
    files = BundleFiles(path)
    manifest = loads(_read_manifest(path, files), str(path / MANIFEST))
    bundle = Bundle(path, manifest, files)
    _check_files(bundle)
    return bundle


def _read_manifest(path: Path, files: BundleFiles) -> bytes:
    try:
        status = files.folder.status(MANIFEST)
    except FileNotFoundError:
        hint = (
            "this looks like a checkpoint; run 'pulse-edge export' on it"
            if (path / "config.json").exists()
            else ("an export that was interrupted leaves this behind; export again with --force")
        )
        raise BundleError(f"{path}: no {MANIFEST}, so not a bundle ({hint})") from None
    except OSError as error:
        raise BundleError(f"{path / MANIFEST}: cannot be read ({error.strerror})") from None
    if not stat.S_ISREG(status.st_mode):
        raise BundleError(f"{path / MANIFEST}: cannot be read (not a regular file)")
    if status.st_size > LARGEST_MANIFEST:
        raise BundleError(
            f"{path / MANIFEST}: {status.st_size:,} bytes, over {LARGEST_MANIFEST:,}; {AGAIN}"
        )
    return files.read(MANIFEST)


def _check_files(bundle: Bundle) -> None:
    """Raise `BundleError` unless all listed files are there in their sizes, the parts that every
    bundle needs are among them, and nothing else is there."""
    path = bundle.path
    listed = bundle.manifest.files
    for entry in listed:
        check_size(bundle.files, entry, MANIFEST)
    names = {f.path for f in listed}
    for name in (*bundle.manifest.graphs, EMBEDDINGS, bundle.manifest.tokenizer):
        if name not in names:
            raise BundleError(f"{path / MANIFEST}: lists no {name}; export the bundle again")
    for name in bundle.files.folder.names():
        if name in names or name == MANIFEST:
            continue
        if name not in ADDED:
            raise BundleError(f"{path / name}: {MANIFEST} does not list it; remove it, or {AGAIN}")
        if not stat.S_ISDIR(bundle.files.folder.status(name).st_mode):
            raise BundleError(f"{path / name}: not a directory; remove it")


def check_size(files: BundleFiles, entry: FileEntry, index: str) -> None:
    """Raise `BundleError` unless a listed file is there in its size."""
    plain = Path(entry.path).name == entry.path and entry.path not in ("", "..")
    if not plain or not entry.path.isprintable():
        raise BundleError(f"{index} lists {entry.path!r}, which is not a plain file name; {AGAIN}")
    try:
        file = files.opened(entry.path)
    except BundleError as error:
        raise BundleError(f"{error}; {AGAIN}") from None
    if file.size != entry.size:
        problem = f"{file.path}: {file.size} bytes, {index} says {entry.size}"
        raise BundleError(f"{problem}; {AGAIN}")
