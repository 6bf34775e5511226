"""Writes a bundle beside its place and renames it into place.

A killed export therefore leaves nothing that loads. Exports into one directory take turns where
they could disturb each other, by a lock on that directory which ends with its process.
"""

from __future__ import annotations

import errno
import glob
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pulse_edge.bundle.limits import LARGEST_MANIFEST
from pulse_edge.bundle.manifest import (
    EMBEDDINGS,
    GRAPHS,
    MANIFEST,
    PREFILL_GRAPH,
    TOKENIZERS,
    Manifest,
)
from pulse_edge.bundle.sealed_folder import PLANS
from pulse_edge.bundle.sealed_json import dumps
from pulse_edge.bundle.signatures import SIGNATURES
from pulse_edge.bundle.tensors import TENSORS
from pulse_edge.errors import ExportError
from pulse_export.folder_lock import FolderLock

PENDING = f"{MANIFEST}.pending"  # the manifest's name until everything else is in place
FILES = {
    *(*GRAPHS, PREFILL_GRAPH),
    *(f"{graph}.data" for graph in (*GRAPHS, PREFILL_GRAPH)),
    *(EMBEDDINGS, *TOKENIZERS, TENSORS, MANIFEST, PENDING),
}
FOLDERS = {PLANS, SIGNATURES}
LOCK_SECONDS = 60.0  # to wait for another export's turn, which takes milliseconds


def check_output(out: Path, force: bool) -> None:
    """Refuse a place where no bundle can be put, before any work and again after it.

    Args:
        out: the bundle to make, an absolute path.
        force: whether a bundle that is there may be replaced.

    Raises:
        ExportError: it exists and must stay, or there is no directory to put it in.
    """
    if not os.path.isdir(out.parent):
        raise ExportError(f"{out.parent}: no such directory to put the bundle in")
    if not os.path.lexists(out):
        return
    if not force:
        raise ExportError(f"{out} exists; choose another name, or --force to replace it")
    problem = _why_to_stay(out)
    if problem is not None:
        raise ExportError(
            f"{out}: --force replaces bundles only, and this {problem}; choose another name"
        )


def _why_to_stay(out: Path) -> str | None:
    """Why something must not be replaced; None for a bundle, a half one, or an empty directory."""
    if not out.is_dir():
        return "is not one"
    if os.path.ismount(out):
        return "is a mount point, which cannot be replaced"
    try:
        entries = {entry.name: entry.is_dir() for entry in os.scandir(out)}
    except FileNotFoundError:  # another export has just replaced it
        return None
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    legal = dict.fromkeys(FILES, False) | dict.fromkeys(FOLDERS, True)
    foreign = sorted(name for name, folder in entries.items() if legal.get(name) is not folder)
    if foreign:
        return f"holds {foreign[0]}, which is no part of one"
    ours = entries.keys() >= set(GRAPHS) or any(_is_manifest(out / n) for n in (MANIFEST, PENDING))
    return None if ours or not entries else "is not one"


def _is_manifest(path: Path) -> bool:
    """Whether a file is a bundle's manifest, and not that of something else."""
    try:
        with path.open("rb") as file:
            record = json.loads(file.read(LARGEST_MANIFEST))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(record, dict) and {"schema_version", "seal"} <= record.keys()


@contextmanager
def staging_directory(out: Path) -> Iterator[Path]:
    """A directory inside a hidden one beside `out`, which is removed afterwards.

    Hidden directories of exports that were killed are removed first. A running export holds a lock
    on its own, which ends with its process. A process id would not do: inside a container every
    export may have the same one.

    Raises:
        ExportError: the place cannot be written to, or the body raised `OSError` (disk full).
    """
    parent = out.parent
    try:
        hidden, lock = _new_hidden(out)
    except OSError as error:
        raise ExportError(f"{parent}: cannot be written to ({error.strerror})") from None
    try:
        (hidden / "bundle").mkdir()
        yield hidden / "bundle"
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ExportError(f"{parent}: the disk is full; nothing was left behind") from None
        raise ExportError(f"{error.filename or parent}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
        lock.release()
        shutil.rmtree(hidden, ignore_errors=True)  # Windows keeps what is open


def _new_hidden(out: Path) -> tuple[Path, FolderLock]:
    """Make the hidden directory, and take its lock."""
    parent = out.parent
    with _turn_in(parent):
        for stale in parent.glob(f".{glob.escape(out.name)}.partial-*"):
            _remove_stale(stale)
        hidden = Path(tempfile.mkdtemp(prefix=f".{out.name}.partial-", dir=parent))
        lock = FolderLock(hidden)
        with suppress(OSError):  # no locks in this file system: then no export finds this one stale
            lock.take()
        return hidden, lock


def _remove_stale(directory: Path) -> None:
    """Remove another export's hidden directory, unless its process runs or nobody can tell."""
    try:
        lock = FolderLock(directory)
    except OSError:
        return
    stale = False
    try:
        stale = lock.take()
        if stale:
            shutil.rmtree(directory, ignore_errors=True)
    except OSError:
        return
    finally:
        lock.release()
    if stale:
        shutil.rmtree(directory, ignore_errors=True)  # Windows keeps what is open


@contextmanager
def _turn_in(directory: Path) -> Iterator[None]:
    """Hold the directory's lock for the block. Raises `ExportError` if it is not to be had."""
    lock = FolderLock(directory)
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while not _taken(lock):
            if time.monotonic() > deadline:
                raise ExportError(f"{directory}: another program keeps it locked; try again later")
            time.sleep(0.005)
        yield
    finally:
        lock.release()


def _taken(lock: FolderLock) -> bool:
    try:
        return lock.take()
    except OSError:
        return True  # no locks in this file system: renames alone keep bundles whole there


def publish_bundle(staging: Path, manifest: Manifest, out: Path, force: bool) -> None:
    """Make the staged files durable, then a bundle, and that durable too.

    Renaming the manifest is the moment it becomes one.

    Args:
        staging: as `staging_directory` yields it, with all files but the manifest.
        manifest: sealed.
        out: the bundle's place, see `check_output`.
        force: whether a bundle that is there may be replaced.

    Raises:
        ExportError: `check_output` refuses the place by now.
        OSError: a file cannot be written or renamed. What was at `out` is there again.
    """
    (staging / PENDING).write_bytes(dumps(manifest))
    for file in (*staging.iterdir(), staging):
        _make_durable(file)
    with _turn_in(out.parent):
        check_output(out, force)  # again: it may have come into being meanwhile
        if out.is_symlink():  # --force: the link goes, what it leads to stays
            out.unlink()
        if out.exists():
            _exchange(staging, out)
        else:
            _move(staging, out)
        _make_durable(out.parent)
        (out / PENDING).rename(out / MANIFEST)
        _make_durable(out)


def _exchange(staging: Path, out: Path) -> None:
    """Put the staged bundle in an old one's place.

    The old one's manifest is put aside first: without it nobody loads half of a bundle.
    """
    old = staging.with_name("old")
    whole = (out / MANIFEST).exists()
    if whole:
        (out / MANIFEST).rename(out / PENDING)
    try:
        out.rename(old)
        staging.rename(out)
    except BaseException:
        if old.exists():
            old.rename(out)
        if whole:
            (out / PENDING).rename(out / MANIFEST)
        raise


def _move(staging: Path, out: Path) -> None:
    try:
        staging.rename(out)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise
        # Somebody who takes no turns, or whose file system has no locks, was faster.
        raise ExportError(f"{out} exists; choose another name, or --force to replace it") from None


def _make_durable(path: Path) -> None:
    """Write a file's content, or a directory's names, through to the disk."""
    if os.name == "nt" and path.is_dir():  # which Windows opens none of
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some file systems have no such call for directories, and write names at once.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(handle)
