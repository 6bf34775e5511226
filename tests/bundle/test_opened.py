"""Files that are opened once: what is read and hashed, under which conditions, and what refuses."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pulse_edge.bundle import opened as opened_module
from pulse_edge.bundle.opened import Folder, OpenedFile, sha256_content, take_lease
from pulse_edge.errors import BundleError

fcntl = pytest.importorskip("fcntl", reason="leases are Linux's")
if not hasattr(fcntl, "F_SETLEASE"):
    pytest.skip("leases are Linux's", allow_module_level=True)

BLOCK = 512 * 1024  # bytes hashed at a time


def opened(path: Path, content: bytes = b"0123456789") -> OpenedFile:
    path.write_bytes(content)
    return OpenedFile(Folder(path.parent), path.name)


@pytest.fixture(params=["leased", "copied", "mapped"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How a file's bytes are kept: under a lease, as a copy, or mapped for want of memory."""
    if request.param != "leased":
        monkeypatch.setattr(opened_module, "take_lease", lambda number: False)
    if request.param == "mapped":
        monkeypatch.setattr(opened_module, "available_memory", lambda: 0)
    return str(request.param)


def leased(number: int) -> bool:
    return bool(fcntl.fcntl(number, fcntl.F_GETLEASE) == fcntl.F_RDLCK)


def leases(path: Path) -> bool:
    """Whether this system grants a lease on a file."""
    number = os.open(path, os.O_RDONLY)
    try:
        fcntl.fcntl(number, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        return True
    except OSError:
        return False
    finally:
        os.close(number)


def is_open(number: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(number), os.stat(path))
    except OSError:
        return False


# -- reading and hashing


@pytest.mark.parametrize("size", [0, 1, 2, 10, BLOCK, BLOCK + 5, 2 * BLOCK])
def test_bytes_and_hashes(tmp_path: Path, way: str, size: int) -> None:
    content = (os.urandom(1024) * (size // 1024 + 1))[:size]
    file = opened(tmp_path / "file", content)
    blocks = [min(BLOCK, size - start) for start in range(0, size, BLOCK)]
    assert file.size == size
    assert file.read() == content
    steps: list[int] = []
    with file.steady():
        held = file.content()
        assert held.private is (not file.leased and way != "mapped")
        assert held.bytes.tobytes() == content
        assert file.sha256(steps.append) == hashlib.sha256(content).hexdigest()
        assert file.sha256() == hashlib.sha256(content).hexdigest()
        assert steps == blocks
        steps.clear()
        assert sha256_content(held.bytes, steps.append) == hashlib.sha256(content).hexdigest()
        assert sha256_content(held.bytes) == hashlib.sha256(content).hexdigest()
        assert steps == blocks


def test_a_part_is_read(tmp_path: Path) -> None:
    file = opened(tmp_path / "file")
    part = bytearray(3)
    file.read_into(memoryview(part))
    assert part == b"012"
    file.read_into(memoryview(part), 7)
    assert part == b"789"
    with pytest.raises(BundleError, match="file: became shorter while it was read"):
        file.read_into(memoryview(part), 8)


def test_a_system_that_reads_little_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = os.preadv
    monkeypatch.setattr(
        os, "preadv", lambda number, views, offset: read(number, [views[0][:1]], offset)
    )
    part = bytearray(5)
    opened(tmp_path / "file").read_into(memoryview(part), 4)
    assert part == b"45678"


def test_a_disk_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> int:
        raise OSError(errno.EIO, "Input/output error")

    file = opened(tmp_path / "file")
    monkeypatch.setattr(os, "preadv", broken)
    with pytest.raises(BundleError, match=r"file: cannot be read \(Input/output error\)"):
        file.read()


def test_what_is_hashed_is_the_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the file, which somebody may exchange for the time of the hashing."""
    monkeypatch.setattr(opened_module, "take_lease", lambda number: False)
    file = opened(tmp_path / "file", b"as it was")
    expected = hashlib.sha256(b"as it was").hexdigest()

    def body() -> None:
        with file.steady():
            file.content()
            file.path.write_bytes(b"not as it was")
            assert file.sha256() == expected

    with pytest.raises(BundleError, match="was changed while it was loaded"):
        body()


@pytest.mark.parametrize(("free", "private"), [(25, False), (26, True), (24, False), (0, False)])
def test_a_copy_needs_two_and_a_half_times_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, private: bool
) -> None:
    monkeypatch.setattr(opened_module, "take_lease", lambda number: False)
    monkeypatch.setattr(opened_module, "available_memory", lambda: free)
    file = opened(tmp_path / "file", b"0123456789")
    with file.steady():
        assert file.content().private is private


def test_content_outside_steady(tmp_path: Path) -> None:
    file = opened(tmp_path / "file")
    with pytest.raises(RuntimeError, match="outside steady"):
        file.content()
    with file.steady():
        first = file.content()
        with file.steady():
            assert file.content() is first
        assert file.content() is first
    with pytest.raises(RuntimeError, match="outside steady"):
        file.content()
    with file.steady():
        assert file.content() is not first


# -- leases


def test_a_lease_is_held_as_long_as_the_body_runs(tmp_path: Path) -> None:
    file = opened(tmp_path / "file")
    assert file.leased is False
    if not leases(file.path):
        pytest.skip("this file system or user gets no leases")
    with file.steady():
        assert file.leased is True
        assert leased(file.number)
        with file.steady():
            assert leased(file.number)
        assert file.leased is True
        assert leased(file.number)
        assert not file.content().private
    assert file.leased is False
    assert not leased(file.number)
    with file.path.open("ab"):
        assert take_lease(file.number) is False


def test_a_broken_lease_ends_no_process(tmp_path: Path) -> None:
    """The system tells the holder of a lease by a signal that somebody wants to write."""
    file = opened(tmp_path / "file")
    with file.steady():
        if not file.leased:
            pytest.skip("this file system or user gets no leases")
        with pytest.raises(BlockingIOError):
            os.open(file.path, os.O_WRONLY | os.O_NONBLOCK)
        assert not leased(file.number)
    os.close(os.open(file.path, os.O_WRONLY | os.O_NONBLOCK))


def test_a_file_that_is_open_for_writing_elsewhere_gets_no_lease(tmp_path: Path) -> None:
    file = opened(tmp_path / "file")
    with file.path.open("r+b"), file.steady():
        assert file.leased is False
        assert file.content().private


@pytest.mark.parametrize("system", [None, SimpleNamespace(F_GETLEASE=1)], ids=["Windows", "macOS"])
def test_systems_without_leases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: object
) -> None:
    file = opened(tmp_path / "file")
    monkeypatch.setattr(opened_module, "fcntl", system)
    assert take_lease(file.number) is False
    with file.steady():
        assert file.leased is False
        assert file.content().private


@pytest.mark.parametrize("field", ["st_size", "st_mtime_ns", "st_ctime_ns"])
@pytest.mark.parametrize("lease", ["held", "broken", "none"])
def test_a_change_is_seen_by_size_and_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str, lease: str
) -> None:
    """Each of them alone. Under a lease ctime may change: a rename does that, and no byte."""
    file = opened(tmp_path / "file")
    before = os.fstat(file.number)
    fields = {name: getattr(before, name) for name in ("st_size", "st_mtime_ns", "st_ctime_ns")}
    held = {"held": 0, "broken": 2}.get(lease)
    kinds = {"F_SETLEASE": 1024, "F_GETLEASE": 1025, "F_RDLCK": 0, "F_UNLCK": 2}
    monkeypatch.setattr(opened_module, "take_lease", lambda number: held is not None)
    fake = SimpleNamespace(fcntl=lambda *_: held, **kinds)
    monkeypatch.setattr(opened_module, "fcntl", fake)

    def body(now: dict[str, int]) -> None:
        with monkeypatch.context() as patch, file.steady():
            patch.setattr(os, "fstat", lambda number: SimpleNamespace(**now))

    body(fields)
    after = fields | {field: fields[field] + 1}
    if lease == "held" and field == "st_ctime_ns":
        body(after)
        return
    with pytest.raises(BundleError, match="file: was changed while it was loaded; load it again"):
        body(after)


def test_a_body_that_fails_lets_go(tmp_path: Path) -> None:
    file = opened(tmp_path / "file")
    with pytest.raises(KeyError), file.steady():
        raise KeyError
    with pytest.raises(RuntimeError, match="outside steady"):
        file.content()


# -- what is no file, and where a name leads


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: None, "missing"),
        (lambda path: path.mkdir(), "not a regular file"),
        (lambda path: os.mkfifo(path), "not a regular file"),
        (lambda path: path.symlink_to("other"), r"cannot be read \(a symbolic link\)"),
        (lambda path: path.symlink_to("absent"), r"cannot be read \(a symbolic link\)"),
    ],
    ids=["missing", "folder", "pipe", "link", "broken link"],
)
def test_what_is_no_file(tmp_path: Path, make: Callable[[Path], object], why: str) -> None:
    (tmp_path / "other").write_bytes(b"1")
    make(tmp_path / "file")
    with pytest.raises(BundleError, match=f"file: {why}$"):
        OpenedFile(Folder(tmp_path), "file")


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"cannot be read \(File name too long\)$"):
        OpenedFile(Folder(tmp_path), "x" * 300)


def swap(path: Path) -> None:
    path.with_name("new").write_bytes(path.read_bytes())
    os.replace(path.with_name("new"), path)


@pytest.mark.parametrize(
    "change",
    [swap, Path.unlink, lambda path: path.write_bytes(b"x"), lambda path: os.utime(path, (1, 1))],
    ids=["swapped", "removed", "written", "touched"],
)
def test_where_a_files_name_leads(tmp_path: Path, change: Callable[[Path], object]) -> None:
    file = opened(tmp_path / "file")
    assert file.is_where_it_was() is True
    change(file.path)
    assert file.is_where_it_was() is False


def test_a_file_that_was_away(tmp_path: Path) -> None:
    """Its ctime tells."""
    file = opened(tmp_path / "file")
    before = os.stat(file.path).st_ctime_ns
    while os.stat(file.path).st_ctime_ns == before:  # times have a granularity
        file.path.rename(tmp_path / "away")
        (tmp_path / "away").rename(file.path)
    assert file.is_where_it_was() is False


def test_what_is_dropped_is_the_files_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    calls: list[tuple[int, ...]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda *call: calls.append(call))
    file = opened(tmp_path / "file")
    file.drop_cached()
    with file.steady():
        held = file.content()
        held.bytes[0] = ord("x")  # of this process alone
        file.drop_cached()
        assert held.bytes.tobytes() == (b"x123456789" if held.private else b"0123456789")
    assert calls == [(file.number, 0, 0, os.POSIX_FADV_DONTNEED)] * 2
    assert file.read() == b"0123456789"


def test_files_and_folders_are_closed_when_nobody_has_them(tmp_path: Path) -> None:
    file = opened(tmp_path / "file")
    folder = Folder(tmp_path)
    places = [(file.number, file.path), (folder.number, tmp_path)]
    assert all(is_open(*place) for place in places)
    assert not os.get_inheritable(file.number)
    del file, folder
    assert not any(is_open(*place) for place in places)


def test_files_are_only_read(tmp_path: Path) -> None:
    file = opened(tmp_path / "file")
    assert stat.S_ISREG(os.fstat(file.number).st_mode)
    assert fcntl.fcntl(file.number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
