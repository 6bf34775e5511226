"""What becomes of the memory that a file's bytes were read into, or mapped to."""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pulse_edge.bundle import opened as opened_module
from pulse_edge.bundle.opened import Content, Folder, OpenedFile, resident_file_bytes

if not hasattr(mmap, "MADV_DONTNEED"):
    pytest.skip("memory cannot be given back here", allow_module_level=True)

PAGE = mmap.PAGESIZE


def opened(path: Path, size: int) -> OpenedFile:
    """A file whose bytes are 1 to 255, again and again."""
    path.write_bytes((np.arange(size) % 255 + 1).astype(np.uint8).tobytes())
    return OpenedFile(Folder(path.parent), path.name)


def kept(content: Content) -> list[tuple[int, int]]:
    """Spans of the memory that are not zero."""
    full = np.frombuffer(content.memory, np.uint8) != 0
    edges = np.flatnonzero(np.diff(full, prepend=False, append=False))
    return [(int(begin), int(end)) for begin, end in edges.reshape(-1, 2)]


@pytest.mark.parametrize(
    ("offset", "size", "left"),
    [
        (0, 4 * PAGE, []),
        (0, 3 * PAGE, [(3 * PAGE, 4 * PAGE)]),
        (PAGE, PAGE, [(0, PAGE), (2 * PAGE, 4 * PAGE)]),
        (PAGE - 1, PAGE + 2, [(0, PAGE), (2 * PAGE, 4 * PAGE)]),
        (1, 2 * PAGE, [(0, PAGE), (2 * PAGE, 4 * PAGE)]),
        (100, 3 * PAGE, [(0, PAGE), (3 * PAGE, 4 * PAGE)]),
        (PAGE + 100, 200, [(0, 4 * PAGE)]),
        (PAGE + 1, PAGE - 1, [(0, 4 * PAGE)]),
        (3 * PAGE + 1, PAGE - 1, [(0, 4 * PAGE)]),
        (2 * PAGE, PAGE - 1, [(0, 4 * PAGE)]),
        (2 * PAGE - 7, 2 * PAGE + 7, [(0, 2 * PAGE)]),
    ],
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_whole_pages_of_an_array_that_is_gone_are_given_back(
    tmp_path: Path, offset: int, size: int, left: list[tuple[int, int]], when: str
) -> None:
    """Not before `settle`, and never a page that another array may have a byte of."""
    content = Content(opened(tmp_path / "file", 4 * PAGE), private=True)
    assert kept(content) == [(0, 4 * PAGE)]
    array = content.array(offset, np.uint8, (size,))
    assert array.tobytes() == content.bytes[offset : offset + size].tobytes()
    if when == "before":
        del array
        assert kept(content) == [(0, 4 * PAGE)]
        content.settle()
    else:
        content.settle()
        assert kept(content) == [(0, 4 * PAGE)]
        del array
    assert kept(content) == left
    content.settle()
    assert kept(content) == left


def test_a_view_of_an_array_keeps_its_memory(tmp_path: Path) -> None:
    content = Content(opened(tmp_path / "file", 2 * PAGE), private=True)
    view = content.array(0, "<u2", (2, PAGE // 2))[1:, ::2].T
    content.settle()
    assert kept(content) == [(0, 2 * PAGE)]
    assert view[0, 0] == int.from_bytes(content.bytes[PAGE : PAGE + 2].tobytes(), "little")
    del view
    assert kept(content) == []


@pytest.mark.parametrize(
    ("offset", "size", "left"),
    [
        (0, 4 * PAGE, [(0, 4 * PAGE)]),
        (2 * PAGE - 1, 1, [(0, 4 * PAGE)]),
        (PAGE, 1, [(0, 4 * PAGE)]),
        (PAGE - 1, 1, [(0, PAGE), (2 * PAGE, 4 * PAGE)]),
        (2 * PAGE, 1, [(0, PAGE), (2 * PAGE, 4 * PAGE)]),
    ],
)
def test_a_page_that_another_array_reads_is_kept(
    tmp_path: Path, offset: int, size: int, left: list[tuple[int, int]]
) -> None:
    """A session that failed may have had the same tensor as the one that was made in its place."""
    content = Content(opened(tmp_path / "file", 4 * PAGE), private=True)
    first, again = (content.array(PAGE, np.uint8, (PAGE,)) for _ in range(2))
    other = content.array(offset, np.uint8, (size,))
    before = other.tobytes()
    del first
    content.settle()
    assert kept(content) == [(0, 4 * PAGE)]
    del again
    assert kept(content) == left
    assert other.tobytes() == before


def test_arrays_are_views_of_a_type_and_a_shape(tmp_path: Path) -> None:
    content = Content(opened(tmp_path / "file", 100), private=True)
    array = content.array(4, np.float32, (2, 3))
    assert (array.dtype, array.shape) == (np.dtype(np.float32), (2, 3))
    assert array.tobytes() == content.bytes[4:28].tobytes()
    assert content.array(0, np.float16, (0, 3)).shape == (0, 3)
    assert content.array(8, np.float64, ()).shape == ()


def test_steady_settles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened_module, "take_lease", lambda number: False)
    file = opened(tmp_path / "file", 2 * PAGE)
    with file.steady():
        content = file.content()
        assert content.private
        content.array(0, np.uint8, (PAGE,))  # gone at once
        array = content.array(PAGE, np.uint8, (PAGE,))
        assert kept(content) == [(0, 2 * PAGE)]
    assert kept(content) == [(PAGE, 2 * PAGE)]
    del array
    assert kept(content) == []


def test_arrays_of_a_mapped_file_give_nothing_back(tmp_path: Path) -> None:
    """The pages are the file's, and what was written to them is this process's alone."""
    file = opened(tmp_path / "file", 2 * PAGE)
    content = Content(file, private=False)
    array = content.array(0, np.uint8, (2 * PAGE,))
    content.bytes[7] = 0
    content.settle()
    del array
    assert content.bytes[7] == 0
    assert file.read()[7] == 8


@pytest.mark.parametrize("size", [1, 2, 3 * PAGE])
@pytest.mark.parametrize("private", [True, False])
def test_a_copy_is_none_of_the_file(tmp_path: Path, size: int, private: bool) -> None:
    file = opened(tmp_path / "file", size)
    content = Content(file, private)
    assert (content.private, len(content.memory)) == (private, size)
    with file.path.open("r+b") as written:
        written.write(b"\xff")
    assert content.bytes[0] == (1 if private else 255)


@pytest.mark.parametrize("private", [True, False])
def test_an_empty_file(tmp_path: Path, private: bool) -> None:
    content = Content(opened(tmp_path / "file", 0), private)
    assert content.bytes.shape == (0,)
    assert len(content.memory) == 1  # no map is empty


# -- while an engine reads a mapped file


def forgets(content: Content, seconds: float) -> bool:
    """Whether a byte that was written to the map's own copy is the file's again."""
    content.bytes[0] = 0
    end = time.monotonic() + seconds
    while content.bytes[0] == 0 and time.monotonic() < end:
        time.sleep(0.001)
    return bool(content.bytes[0] != 0)


def test_a_mapped_file_is_trimmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here from the first byte on."""
    monkeypatch.setattr(opened_module, "TRIM_SECONDS", 0.001)
    monkeypatch.setattr(opened_module, "TRIM_BYTES", 0)
    content = Content(opened(tmp_path / "file", PAGE), private=False)
    with content.trimmed():
        assert forgets(content, 30)
        assert forgets(content, 30)
    assert not forgets(content, 0.05)


class Looks:
    """What a trimmer sees of the process's memory, look by look; the last goes on."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes = sizes
        self.seen = 0

    def __call__(self) -> int:
        self.seen += 1
        return self.sizes[min(self.seen, len(self.sizes)) - 1]


LARGE = 1 << 40  # what other maps of the process take


@pytest.mark.parametrize(
    ("sizes", "trimmed"),
    [
        ([LARGE], False),
        ([LARGE, LARGE + 99], False),
        ([LARGE, LARGE + 100], True),
        ([LARGE, LARGE + 1000], True),
        ([LARGE, LARGE + 99, LARGE + 100], True),
        ([LARGE, LARGE - 200, LARGE - 101], False),  # another trimmer gave some back
        ([LARGE, LARGE - 200, LARGE - 100], True),
        ([LARGE, LARGE - 200, LARGE - 250, LARGE - 151], False),
        ([0], True),  # a system that does not tell
    ],
)
def test_a_map_is_dropped_when_files_have_taken_so_much_since_the_least(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: list[int], trimmed: bool
) -> None:
    looks = Looks(sizes)
    monkeypatch.setattr(opened_module, "TRIM_SECONDS", 0.001)
    monkeypatch.setattr(opened_module, "TRIM_BYTES", 100)
    monkeypatch.setattr(opened_module, "resident_file_bytes", looks)
    content: Any = Content(opened(tmp_path / "file", PAGE), private=False)
    memory = SlowMemory(0)
    content.memory = memory
    end = time.monotonic() + 30
    with content.trimmed():
        while looks.seen < len(sizes) + 5 and time.monotonic() < end:
            time.sleep(0.001)
    assert looks.seen >= len(sizes) + 5
    assert bool(memory.calls) == trimmed


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not tell")
def test_memory_that_a_mapped_file_takes(tmp_path: Path) -> None:
    size = 64 << 20
    path = tmp_path / "file"
    path.touch()
    os.truncate(path, size)
    content = Content(OpenedFile(Folder(tmp_path), "file"), private=False)
    before = resident_file_bytes()
    assert before > 0
    assert not content.bytes[::PAGE].any()
    full = resident_file_bytes()
    assert full - before > size / 2
    content.memory.madvise(mmap.MADV_DONTNEED)
    assert full - resident_file_bytes() > size / 2


@pytest.mark.parametrize("content", [None, "", "1 2", "a b c"])
def test_a_system_that_does_not_tell_what_files_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    path = tmp_path / "statm"
    if content is not None:
        path.write_text(content)
    monkeypatch.setattr(opened_module, "STATM", path)
    assert resident_file_bytes() == 0


def test_a_system_that_tells_what_files_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third number is pages of files (proc_pid_statm(5))."""
    path = tmp_path / "statm"
    path.write_text("9000 700 12 5 0 300 0\n")
    monkeypatch.setattr(opened_module, "STATM", path)
    assert resident_file_bytes() == 12 * PAGE


def test_a_copy_is_not_trimmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is dropped of a copy is lost."""
    monkeypatch.setattr(opened_module, "TRIM_SECONDS", 0.001)
    monkeypatch.setattr(opened_module, "TRIM_BYTES", 0)
    content = Content(opened(tmp_path / "file", PAGE), private=True)
    with content.trimmed():
        assert not forgets(content, 0.05)
        content.bytes[0] = 1
        assert kept(content) == [(0, PAGE)]


@pytest.mark.parametrize("private", [True, False])
def test_a_system_that_drops_no_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, private: bool
) -> None:
    monkeypatch.delattr(mmap, "MADV_DONTNEED")
    monkeypatch.setattr(opened_module, "TRIM_SECONDS", 0.001)
    monkeypatch.setattr(opened_module, "TRIM_BYTES", 0)
    file = opened(tmp_path / "file", PAGE)
    content = Content(file, private)
    with content.trimmed():
        assert not forgets(content, 0.05)
    array = content.array(0, np.uint8, (PAGE,))
    content.settle()
    del array
    file.drop_cached()
    content.bytes[0] = 1
    assert kept(content) == [(0, PAGE)]


class SlowMemory:
    """A map that takes its time to drop pages."""

    def __init__(self, seconds: float = 0.1) -> None:
        self.seconds = seconds
        self.calls = 0
        self.busy = False

    def madvise(self, advice: int) -> None:
        self.calls += 1
        self.busy = True
        time.sleep(self.seconds)
        self.busy = False


def test_no_trimming_is_under_way_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened_module, "TRIM_SECONDS", 0.001)
    monkeypatch.setattr(opened_module, "TRIM_BYTES", 0)
    content: Any = Content(opened(tmp_path / "file", PAGE), private=False)
    memory = SlowMemory()
    content.memory = memory
    with content.trimmed():
        while not memory.busy:
            time.sleep(0.001)
    assert not memory.busy
    calls = memory.calls
    time.sleep(0.02)
    assert memory.calls == calls
