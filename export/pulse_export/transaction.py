"""Writes a bundle beside its place and renames it into place.

A killed export therefore leaves nothing that loads.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pulse_edge.bundle.manifest import (
    DECODER_GRAPH,
    EMBEDDINGS,
    MANIFEST,
    TOKENIZER,
    VISION_GRAPH,
    Manifest,
)
from pulse_edge.bundle.plans import PLANS
from pulse_edge.bundle.sealed_json import dumps
from pulse_edge.errors import ExportError

PENDING = f"{MANIFEST}.pending"  # the manifest's name until everything else is in place
PARTS = {
    VISION_GRAPH,
    f"{VISION_GRAPH}.data",
    DECODER_GRAPH,
    f"{DECODER_GRAPH}.data",
    EMBEDDINGS,
    TOKENIZER,
}


def check_output(out: Path, force: bool) -> None:
    if not out.parent.is_dir():
        raise ExportError(f"{out.parent}: no such directory to put the bundle in")
    if not os.path.lexists(out):
        return
    if not force:
        raise ExportError(f"{out} exists; choose another name, or --force to replace it")
    names = {p.name for p in out.iterdir()} if out.is_dir() else {out.name}
    foreign = sorted(names - PARTS - {MANIFEST, PENDING, PLANS})
    if foreign or (names and not names & {MANIFEST, PENDING, DECODER_GRAPH}):
        what = (
            f"holds {foreign[0]}, which is no part of one"
            if foreign and out.is_dir()
            else "is not one"
        )
        raise ExportError(
            f"{out}: --force replaces bundles only, and this {what}; choose another name"
        )


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
        for stale in parent.glob(f".{glob.escape(out.name)}.partial-*"):
            with suppress(FileNotFoundError), _locked(stale) as free:
                if free:
                    shutil.rmtree(stale, ignore_errors=True)
        hidden = Path(tempfile.mkdtemp(prefix=f".{out.name}.partial-", dir=parent))
    except OSError as error:
        raise ExportError(f"{parent}: cannot be written to ({error.strerror})") from None
    try:
        with _locked(hidden):
            (hidden / "bundle").mkdir()
            yield hidden / "bundle"
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ExportError(f"{parent}: the disk is full; nothing was left behind") from None
        raise ExportError(f"{error.filename or parent}: {error.strerror}") from None
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


@contextmanager
def _locked(directory: Path) -> Iterator[bool]:
    """Take the directory's lock for the block. Yields whether it was free."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        free = True
    except OSError:
        # Another export has it, or the file system has no locks: then nothing counts as stale.
        free = False
    try:
        yield free
    finally:
        os.close(handle)


def publish_bundle(staging: Path, manifest: Manifest, out: Path, force: bool) -> None:
    """Make the staged files durable, then a bundle.

    Renaming the manifest is the moment it becomes one.
    """
    pending = staging / PENDING
    pending.write_bytes(dumps(manifest))
    for file in (*staging.iterdir(), staging):
        handle = os.open(file, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
    check_output(out, force)  # again: it may have come into being meanwhile
    if out.is_symlink():  # --force: the link goes, what it leads to stays
        out.unlink()
    elif out.exists():
        # --force: without its manifest the old bundle is none, so nobody loads half of it.
        (out / MANIFEST).unlink(missing_ok=True)
        out.rename(staging.with_name("old"))
    staging.rename(out)
    (out / PENDING).rename(out / MANIFEST)
