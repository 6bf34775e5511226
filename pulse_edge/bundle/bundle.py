"""Opens a bundle, which `pulse_export` writes, and checks it.

A bundle is a directory that holds `manifest.json` and the files it lists. The manifest is frozen
dataclasses as canonical JSON. A manifest that differs from its own canonical form by a byte, a
field that is unknown or missing, and a listed file whose size or SHA-256 differs are refused.
Nothing is pickled, nothing fetched.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pulse_edge.bundle.manifest import (
    DECODER_GRAPH,
    EMBEDDINGS,
    MANIFEST,
    TOKENIZER,
    VISION_GRAPH,
    WEIGHTS,
    FileEntry,
    Manifest,
    loads,
)
from pulse_edge.errors import BundleError
from pulse_edge.progress import Progress


def sha256_file(path: Path, progress: Callable[[int], None] | None = None) -> str:
    """The file's SHA-256 in hex. `progress` is called with the bytes of each block."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(1 << 22):
            digest.update(block)
            if progress:
                progress(len(block))
    return digest.hexdigest()


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its directory and its manifest."""

    path: Path
    manifest: Manifest

    @property
    def digest(self) -> str:
        """The manifest's seal: names the whole bundle, down to the last byte."""
        return self.manifest.seal

    def file(self, name: str) -> Path:
        """Where a file of the bundle lies."""
        return self.path / name

    @property
    def size(self) -> int:
        """Bytes of all listed files."""
        return sum(f.size for f in self.manifest.files)


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
    root = Path(path)
    manifest = loads(_read_manifest(root), str(root / MANIFEST))
    _check_files(root, manifest)
    left = threading.Event()
    total = sum(f.size for f in manifest.files)

    def step(done: int) -> None:
        if left.is_set():
            raise InterruptedError
        if progress:
            progress("checking", done, total)

    with ThreadPoolExecutor(max_workers=4) as pool:  # hashlib releases the GIL
        hashed = [
            (f, pool.submit(hash_problem, root, f, MANIFEST, step))
            for f in manifest.files
            if check_hashes
        ]
        try:
            _raise_first(problem for entry, problem in hashed if not entry.path.endswith(WEIGHTS))
            yield Bundle(root, manifest)
        except Exception:
            _raise_first(problem for _, problem in hashed)
            raise
        except BaseException:  # Ctrl-C
            left.set()
            raise
        _raise_first(problem for _, problem in hashed)


def _raise_first(problems: Iterable[Future[str | None]]) -> None:
    problem = next(filter(None, (p.result() for p in problems)), None)
    if problem:
        raise BundleError(f"{problem}; copy or export the bundle again") from None


def _read_manifest(root: Path) -> bytes:
    path = root / MANIFEST
    if not root.is_dir():
        raise BundleError(
            f"no bundle at {root}: not a directory; "
            f"make one with 'pulse-edge export CHECKPOINT {root}'"
        )
    try:
        if path.exists() and not path.is_file():
            raise BundleError(f"{path}: cannot be read (not a regular file)")
        return path.read_bytes()
    except FileNotFoundError:
        hint = (
            "this looks like a checkpoint; run 'pulse-edge export' on it"
            if (root / "config.json").exists()
            else ("an export that was interrupted leaves this behind; export again with --force")
        )
        raise BundleError(f"{root}: no {MANIFEST}, so not a bundle ({hint})") from None
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror})") from None


def check_file(root: Path, entry: FileEntry, index: str) -> str | None:
    """What is wrong with a file that `index` lists; None for nothing."""
    return size_problem(root, entry, index) or hash_problem(root, entry, index)


def _check_files(root: Path, manifest: Manifest) -> None:
    """Raise `BundleError` unless all listed files are there in their sizes, and the
    parts that every bundle needs are among them."""
    for entry in manifest.files:
        if problem := size_problem(root, entry, MANIFEST):
            raise BundleError(f"{problem}; copy or export the bundle again")
    listed = {f.path for f in manifest.files}
    for name in (VISION_GRAPH, DECODER_GRAPH, EMBEDDINGS, TOKENIZER):
        if name not in listed:
            raise BundleError(f"{root / MANIFEST}: lists no {name}; export the bundle again")


def size_problem(root: Path, entry: FileEntry, index: str) -> str | None:
    """Why a listed file is not there in its size; None if it is."""
    path = root / entry.path
    if (
        Path(entry.path).name != entry.path
        or not entry.path.isprintable()
        or entry.path in ("", "..")
    ):
        return f"{index} lists {entry.path!r}, which is not a plain file name"
    try:
        size = path.stat().st_size
        if not path.is_file():  # reading a pipe or a device might never end
            return f"{path}: not a regular file"
        return None if size == entry.size else f"{path}: {size} bytes, {index} says {entry.size}"
    except FileNotFoundError:
        return f"{path}: missing"
    except OSError as error:
        return f"{path}: cannot be read ({error.strerror})"


def hash_problem(
    root: Path, entry: FileEntry, index: str, step: Callable[[int], None] | None = None
) -> str | None:
    """Whether a listed file's bytes were altered, in words; None if not.

    `step` is called with the bytes of each block, and stops the hashing with `InterruptedError`.
    """
    path = root / entry.path
    try:
        if sha256_file(path, step) != entry.sha256:
            return f"{path}: altered (its SHA-256 is not the one in {index})"
    except InterruptedError:
        pass
    except OSError as error:
        return f"{path}: cannot be read ({error.strerror})"
    return None
