"""Files that are none, and files that are too large: refused at once, without waiting."""

from __future__ import annotations

import io
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from pulse_edge.errors import ImageError
from pulse_edge.page.limits import MAX_FILE_BYTES
from pulse_edge.page.source import read_input, read_page

from goldens import cases
from support.image_files import encoded

PNG = encoded(cases.page(40, 30), "PNG")


@pytest.mark.parametrize("name", ["pipe", "pipe.png", "pipe.dcm", "pipe.tif"])
def test_a_named_pipe_is_refused_at_once(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    os.mkfifo(path)
    link = tmp_path / f"link-{name}"
    link.symlink_to(path)
    start = time.perf_counter()
    for source in (path, str(path), link):
        with pytest.raises(ImageError, match=f"{name}: cannot be read .it is not a regular file"):
            read_input(source)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize(
    "path", ["/dev/zero", "/dev/null", "/dev/urandom", "/dev/tty", "/dev", "/"]
)
def test_devices_and_directories_are_refused(path: str) -> None:
    if not os.path.exists(path):
        pytest.skip(f"{path} is not here")
    with pytest.raises(ImageError, match="cannot be read"):
        read_input(path)


def test_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
        with pytest.raises(ImageError, match=r"socket\.png: cannot be read"):
            read_input("socket.png")


@pytest.mark.parametrize("path", ["/proc/self/status", "/proc/kmsg", "/proc/self/mem"])
def test_files_that_have_no_size_are_empty(path: str) -> None:
    if not os.path.exists(path):
        pytest.skip(f"{path} is not here")
    with pytest.raises(ImageError, match=r"empty \(0 bytes\)|cannot be read"):
        read_input(path)


def test_a_link_to_a_regular_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "page.png").write_bytes(PNG)
    (tmp_path / "link.png").symlink_to("page.png")
    assert read_page(tmp_path / "link.png").sha256 == read_page(PNG).sha256


class Endless(io.RawIOBase):
    """A file object that never ends, and counts what was taken of it."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.taken = 0

    def read(self, size: int = -1) -> bytes:
        count = min(self.step, size) if size >= 0 else self.step
        self.taken += count
        return bytes(count)


@pytest.mark.parametrize("step", [1 << 20, 1 << 30])
def test_of_a_file_object_no_more_than_the_limit_is_read(step: int) -> None:
    endless: Any = Endless(step)
    with pytest.raises(ImageError, match="more than the 64,000,000 bytes accepted; save it"):
        read_input(endless)
    assert endless.taken == MAX_FILE_BYTES + 1


class Trickle(io.BytesIO):
    """A file object that gives fewer bytes than it is asked for, as a socket does."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(100, size) if size and size > 0 else 100)


def test_a_file_object_that_gives_few_bytes_is_read_whole() -> None:
    assert read_page(Trickle(PNG)).sha256 == read_page(PNG).sha256


def test_files_over_the_limit_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse
    start = time.perf_counter()
    with pytest.raises(ImageError, match=r"large\.png: more than the 64,000,000 bytes accepted"):
        read_input(path)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_over_the_limit_are_refused(kind: type) -> None:
    with pytest.raises(ImageError, match="more than the 64,000,000 bytes accepted"):
        read_input(kind(bytes(MAX_FILE_BYTES + 1)))


@pytest.mark.parametrize("source", [b"", bytearray(), io.BytesIO()])
def test_nothing_is_called_empty(source: Any) -> None:
    with pytest.raises(ImageError, match=r"empty \(0 bytes\)"):
        read_input(source)
