"""Exports on systems without flock, such as Windows: locks of another kind, or none."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("onnx", reason="exporting needs pulse-edge[export]")

from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.errors import ExportError
from pulse_export import folder_lock, transaction
from pulse_export.folder_lock import LOCK_FILE, FolderLock
from pulse_export.pipeline import export

from support.command import command, environment_with

TEMPORARY = 1 << 28  # a bit that no flag here has


class Ranges:
    """Windows' locks of ranges: a descriptor has a file, or somebody else has."""

    LK_NBLCK = 2

    def __init__(self) -> None:
        self.owners: dict[int, int] = {}  # inode -> descriptor

    def locking(self, handle: int, mode: int, size: int) -> None:
        assert (mode, size) == (self.LK_NBLCK, 1)
        owner = self.owners.setdefault(os.fstat(handle).st_ino, handle)
        if owner != handle and _is_open(owner, os.fstat(handle).st_ino):
            raise PermissionError(13, "Permission denied")
        self.owners[os.fstat(handle).st_ino] = handle


def _is_open(handle: int, inode: int) -> bool:
    try:
        return os.fstat(handle).st_ino == inode
    except OSError:
        return False


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.fixture
def ranges(monkeypatch: pytest.MonkeyPatch) -> Ranges:
    system = Ranges()
    monkeypatch.setattr(folder_lock, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", system)
    return system


@pytest.fixture
def lockless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_lock, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", None)


@pytest.mark.parametrize("kind", ["flock", "ranges"])
def test_a_lock_is_taken_once(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if kind == "ranges":
        request.getfixturevalue("ranges")
    first, second = FolderLock(tmp_path), FolderLock(tmp_path)
    assert first.take()
    assert not second.take()
    first.release()
    assert second.take()
    second.release()
    assert names(tmp_path) == []


def test_an_export_takes_its_turn_and_leaves_nothing(
    ranges: Ranges, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(checkpoint, tmp_path / "out", precision="int8")
    assert open_bundle(tmp_path / "out").manifest.precision.name == "int8"
    assert names(tmp_path) == ["out"]
    monkeypatch.setattr(transaction, "LOCK_SECONDS", 0.01)
    other = FolderLock(tmp_path)
    assert other.take()
    with pytest.raises(ExportError, match="another program keeps it locked"):
        export(checkpoint, tmp_path / "second", precision="int8")
    other.release()
    assert names(tmp_path) == ["out"]


def test_what_a_killed_export_left_is_removed_and_a_running_one_stays(
    ranges: Ranges, checkpoint: Path, tmp_path: Path
) -> None:
    stale, running = tmp_path / ".out.partial-stale", tmp_path / ".out.partial-running"
    for folder in (stale, running):
        (folder / "bundle").mkdir(parents=True)
    lock = FolderLock(running)
    assert lock.take()
    export(checkpoint, tmp_path / "out", precision="int8")
    assert names(tmp_path) == [running.name, "out"]
    lock.release()


def test_a_system_without_any_locks_will_do(
    lockless: None, checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / ".out.partial-old").mkdir()
    export(checkpoint, tmp_path / "out", precision="int8")
    with pytest.raises(ExportError, match="exists"):
        export(checkpoint, tmp_path / "out", precision="int8")
    assert names(tmp_path) == [".out.partial-old", "out"]
    assert names(tmp_path / ".out.partial-old") == []


def test_windows_removes_the_file_itself(
    ranges: Ranges, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is opened so that it goes with its last handle: deleting it would let two take a lock."""
    opened: list[int] = []

    def open_file(path: Path, flags: int, mode: int) -> int:
        opened.append(flags)
        return os.open(path, flags & ~TEMPORARY, mode)

    system = SimpleNamespace(
        O_RDWR=os.O_RDWR,
        O_CREAT=os.O_CREAT,
        O_TEMPORARY=TEMPORARY,
        open=open_file,
        close=os.close,
    )
    monkeypatch.setattr(folder_lock, "os", system)
    lock = FolderLock(tmp_path)
    lock.release()
    assert opened == [os.O_RDWR | os.O_CREAT | TEMPORARY]
    assert names(tmp_path) == [LOCK_FILE]  # which only Windows removes


def test_the_command_exports_without_fcntl(checkpoint: Path, tmp_path: Path) -> None:
    env = environment_with(tmp_path, "import sys\nsys.modules['fcntl'] = None")
    (tmp_path / "home").mkdir()
    done = command("export", checkpoint, tmp_path / "home" / "out", env=env)
    assert done.returncode == 0, done.stderr
    assert names(tmp_path / "home") == ["out"]
    assert command("verify", tmp_path / "home" / "out", env=env).returncode == 0
