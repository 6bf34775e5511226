"""Files of recordings: regular ones, up to a size."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pulse_edge.ecg.readers.dicom_budget import MAX_BYTES
from pulse_edge.ecg.readers.registry import is_recording, read_recording
from pulse_edge.errors import RecordingError


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.dcm")
    assert is_recording(tmp_path / "pipe.dcm", b"")
    with pytest.raises(RecordingError, match=r"pipe\.dcm: no such file; it is a folder, a pipe"):
        read_recording(tmp_path / "pipe.dcm")


@pytest.mark.parametrize("name", ["absent.dcm", "with\0nul.dcm"])
def test_files_that_cannot_be_opened_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RecordingError, match=r"no such file|cannot be read"):
        read_recording(tmp_path / name)
    assert is_recording(tmp_path / name, b"")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.dcm").mkdir()
    with pytest.raises(RecordingError, match="no such file; it is a folder"):
        read_recording(tmp_path / "folder.dcm")


def test_large_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "large.dcm"
    with open(path, "wb") as file:
        file.truncate(MAX_BYTES + 1)  # sparse
    with pytest.raises(RecordingError, match="over the 64 MiB accepted"):
        read_recording(path)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.dcm").write_bytes(b"")
    with pytest.raises(RecordingError, match="not a readable DICOM file"):
        read_recording(tmp_path / "empty.dcm")
