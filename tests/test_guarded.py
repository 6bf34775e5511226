"""Files from outside: regular, bounded, opened once; and such as only their owner may change."""

from __future__ import annotations

import io
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from pulse_edge.ecg.readers.registry import read_recording
from pulse_edge.errors import ImageError, RecordingError, TrustError
from pulse_edge.guarded import NotRegularError, open_regular, read_guarded, read_upto
from pulse_edge.page.source import read_input

from goldens import cases
from support.dicom_files import dataset, save
from support.image_files import encoded


def test_a_regular_file_is_opened_at_its_beginning(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        with open_regular(tmp_path / name) as file:
            assert file.read() == b"content"


def _folder(path: Path) -> None:
    path.mkdir()


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(path.parent)  # a socket's path is short
        try:
            server.bind(path.name)
        finally:
            os.chdir(here)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("make", [_folder, os.mkfifo, _socket])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "it")
    with pytest.raises(OSError, match=r"not a regular file|No such device"):
        open_regular(tmp_path / "it")
    with pytest.raises(TrustError, match=r"it: (not a regular file|cannot be read)"):
        read_guarded(tmp_path / "it", 100, TrustError)


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="no devices here")
def test_a_device_is_no_regular_file() -> None:
    with pytest.raises(NotRegularError):
        open_regular("/dev/zero")


class Chunks(io.BytesIO):
    """A file object that gives at most three bytes at a time."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(3, size) if size and size > 0 else 3)


@pytest.mark.parametrize("kind", [io.BytesIO, Chunks])
@pytest.mark.parametrize("most", [0, 1, 3, 4, 9, 10, 11, 1 << 20])
def test_no_more_than_the_limit_is_read(kind: type[io.BytesIO], most: int) -> None:
    file = kind(b"0123456789")
    assert read_upto(file, most) == b"0123456789"[:most]
    assert file.tell() == min(most, 10)


@pytest.mark.parametrize("content", ["text", ""])
def test_a_file_object_of_text_is_refused(content: str) -> None:
    file: Any = io.StringIO(content)
    with pytest.raises(TypeError):
        read_upto(file, 100)


@pytest.mark.parametrize(("size", "refused"), [(0, False), (100, False), (101, True)])
def test_a_guarded_file_has_a_largest_size(tmp_path: Path, size: int, refused: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(size))
    path.chmod(0o644)
    if refused:
        with pytest.raises(TrustError, match=f"{path}: over 100 bytes"):
            read_guarded(path, 100, TrustError)
    else:
        assert read_guarded(path, 100, TrustError) == bytes(size)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize(
    ("mode", "refused"),
    [
        *((0o600, ""), (0o644, ""), (0o400, ""), (0o755, "")),
        *((0o620, "g-w"), (0o660, "g-w"), (0o664, "g-w"), (0o775, "g-w"), (0o670, "g-w")),
        *((0o602, "o-w"), (0o606, "o-w"), (0o646, "o-w"), (0o757, "o-w")),
        *((0o622, "go-w"), (0o666, "go-w"), (0o777, "go-w")),
    ],
)
def test_only_the_owner_may_write_to_a_guarded_file(
    tmp_path: Path, mode: int, refused: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"rules")
    path.chmod(mode)
    if refused:
        with pytest.raises(TrustError, match=f"may write to it; run 'chmod {refused} {path}'"):
            read_guarded(path, 100, TrustError)
    else:
        assert read_guarded(path, 100, TrustError) == b"rules"


# -- each path is opened once


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are opened."""
    names: list[str] = []
    real = os.open

    def counting(path: Any, *rest: Any, **options: Any) -> int:
        names.append(os.path.basename(os.fspath(path)))
        return real(path, *rest, **options)

    monkeypatch.setattr(os, "open", counting)
    return names


@pytest.mark.parametrize("name", ["recording.dcm", "recording", "recording.png"])
def test_a_recording_is_opened_once(tmp_path: Path, name: str, opened: list[str]) -> None:
    pytest.importorskip("pydicom")
    path = save(tmp_path / name, dataset())
    opened.clear()
    assert read_input(path).undrawn is not None
    assert opened.count(name) == 1
    opened.clear()
    assert read_recording(path).leads
    assert opened.count(name) == 1


@pytest.mark.parametrize("name", ["page.png", "page", "page.dcm.png"])
def test_an_image_is_opened_once(tmp_path: Path, name: str, opened: list[str]) -> None:
    content = encoded(cases.page(40, 30), "PNG")
    (tmp_path / name).write_bytes(content)
    opened.clear()
    assert read_input(tmp_path / name).data == content
    assert opened.count(name) == 1


def test_a_file_that_is_exchanged_after_it_was_opened_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was recognized as a recording is what is drawn."""
    pytest.importorskip("pydicom")
    path = save(tmp_path / "recording.dcm", dataset())
    real = os.fstat

    def exchanging(number: int) -> os.stat_result:
        if path.exists():
            path.unlink()
        return real(number)

    monkeypatch.setattr(os, "fstat", exchanging)
    assert read_input(path).undrawn is not None


@pytest.mark.parametrize("read", [read_input, read_recording])
def test_a_reading_that_fails_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], object]
) -> None:
    path = tmp_path / "recording.dcm"
    path.write_bytes(bytes(200))

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    def failing(number: int, mode: str) -> BinaryIO:
        class File(Failing):
            def fileno(self) -> int:
                return number

        return File()

    monkeypatch.setattr(os, "fdopen", failing)
    error = RecordingError if read is read_recording else ImageError
    with pytest.raises(error, match=r"recording\.dcm: cannot be read \(Input/output error\)"):
        read(path)
