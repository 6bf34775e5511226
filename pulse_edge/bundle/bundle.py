"""The bundle: what `export/` writes and the runtime reads. This file is their only contract.

A bundle is a directory holding `manifest.json` and the files it lists. The manifest is frozen dataclasses,
written as canonical JSON: a file that differs from its own canonical form by a single byte, a field that is
unknown or missing, or a listed file whose size or SHA-256 differs, is refused. Nothing is pickled, nothing fetched.
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
        return self.path / name

    @property
    def size(self) -> int:
        """Bytes of all listed files."""
        return sum(f.size for f in self.manifest.files)


def open_bundle(path: str | Path, check_hashes: bool = True, progress: Progress | None = None) -> Bundle:
    """Open a bundle and check it: manifest, presence, sizes and (unless told not to) SHA-256 of every file.

    progress: called from several threads with ("checking", bytes since the last call, bytes in all).
    Raises `BundleError` that names the file and says what to do.
    """
    with opening(path, check_hashes, progress) as bundle:
        return bundle


@contextmanager
def opening(path: str | Path, check_hashes: bool = True, progress: Progress | None = None) -> Iterator[Bundle]:
    """The same for something that takes as long as hashing the weights does: making an engine of them.

    What is parsed has been checked when the body starts. The weights are checked while it runs; leaving it raises
    `BundleError` if they were altered, even where the body has failed of it.
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
        hashed = [(f, pool.submit(_altered, root, f, MANIFEST, step)) for f in manifest.files if check_hashes]
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
        raise BundleError(f"no bundle at {root}: not a directory; make one with 'pulse-edge export CHECKPOINT {root}'")
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
    """What is wrong with a file that `index` lists, if anything is."""
    return _misfit(root, entry, index) or _altered(root, entry, index)


def _check_files(root: Path, manifest: Manifest) -> None:
    """That they are there, in their sizes, and all that is needed is among them."""
    for entry in manifest.files:
        if problem := _misfit(root, entry, MANIFEST):
            raise BundleError(f"{problem}; copy or export the bundle again")
    listed = {f.path for f in manifest.files}
    for name in (VISION_GRAPH, DECODER_GRAPH, EMBEDDINGS, TOKENIZER):
        if name not in listed:
            raise BundleError(f"{root / MANIFEST}: lists no {name}; export the bundle again")


def _misfit(root: Path, entry: FileEntry, index: str) -> str | None:
    path = root / entry.path
    if Path(entry.path).name != entry.path or not entry.path.isprintable() or entry.path in ("", ".."):
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


def _altered(root: Path, entry: FileEntry, index: str, step: Callable[[int], None] | None = None) -> str | None:
    path = root / entry.path
    try:
        if sha256_file(path, step) != entry.sha256:
            return f"{path}: altered (its SHA-256 is not the one in {index})"
    except InterruptedError:
        pass
    except OSError as error:
        return f"{path}: cannot be read ({error.strerror})"
    return None
